"""The morning page's form: sections of sentences, tables and plots to one HTML file that needs nothing but itself.

Whatever comes from data is escaped; of the plots, which are made of numbers and escape their own labels, the SVG goes
in as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tasks.recsys.metrics import Mean

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Plot:
    """An inline SVG."""

    svg: str
    how: str
    """how to read it, in a sentence"""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column is names, the others are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    text: bool = False
    """the others are words, too"""


@dataclass(frozen=True)
class Folded:
    """A table that opens on a click."""

    title: str
    inside: Sequence[Table]


Part = str | Plot | Table | Folded


@dataclass(frozen=True)
class Section:
    """What there is to say of one thing; one without parts is left out, with the word why."""

    title: str
    parts: Sequence[Part] = ()
    missing: str = ""


def page(
    title: str, verdict: str, lead: Sequence[str], sections: Sequence[Section], made: Sequence[Sequence[str]]
) -> str:
    """The whole page.  verdict: its first word; lead: paragraphs below it; made: what it was made from."""
    folder = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters["kind"] = lambda part: type(part).__name__.lower()
    jinja.filters["breakable"] = lambda name: escape(name).replace("_", Markup("_<wbr>"))
    jinja.filters["svg"] = lambda plot: Markup(plot.svg)
    return jinja.get_template(TEMPLATE).render(title=title, verdict=verdict, lead=lead, sections=sections, made=made)


def number(value: float | None) -> str:
    """A share or a score; nobody to average over gives no number."""
    return "none" if value is None else f"{value:.4f}"


def estimate(mean: Mean) -> str:
    """A mean with its interval; without one, why."""
    if mean.value is None:
        return "none, n = 0"
    if mean.low is None or mean.high is None:
        return f"{mean.value:.4f}, no interval"
    return f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]"


def stacked(mean: Mean) -> str:
    """The same with the interval on a line of its own."""
    return estimate(mean).replace(" [", "\n[")


def instant(ms: int) -> str:
    """An instant, to the minute."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
