"""The plots of the morning page: numbers in, one inline SVG out, readable on a light and on a dark page.

The ground is transparent, text and axes have the colour of the page's text, the rest is of middling lightness.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.recsys.interactions import DAY, EVENTS, Longs
from tasks.recsys.metrics import Mean

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3f87c9", "#d9822b", "#3a9e6f", "#a566b8", "#8f8f8f"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#c75a6a", "#2fa3a3", "#a08a3c", "#7a7fd1", "#b0728f", GREY)
INK = "#767676"
"""Stands for the colour of the page's text."""
MARKED = 20
"""Points of a curve up to which each has a mark."""
DATES = 7
"""Dates on an axis at most."""
WIDTH = 7.6
"""Inches; the page scales it."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nightjar",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Line:
    """One curve with the interval of each point, where it has any."""

    x: Sequence[float]
    y: Sequence[Mean]
    colour: str
    main: bool = True
    """drawn strongly, with its intervals"""


def plain(values: Sequence[float]) -> list[Mean]:
    """Numbers without an interval."""
    return [Mean(value, None, None, 1) for value in values]


def forest(groups: Mapping[str, Mapping[str, Mean]], colours: Mapping[str, str], unit: str) -> str:
    """A row a group, in it a dot a series with its interval; who has no number has no dot.

    colours: of the series, or of the groups where there is one series.
    """
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, (axes,) = _figure(0.6 + len(groups) * (0.14 + 0.15 * len(series)))
    step = 0.7 / len(series)
    for row, (label, group) in enumerate(groups.items()):
        for name, mean in group.items():
            if mean.value is not None:
                at = row + step * (series.index(name) - (len(series) - 1) / 2)
                colour = colours[name if len(series) > 1 else label]
                axes.errorbar(mean.value, at, xerr=_arms(mean), fmt="o", ms=4.5, lw=1.6, color=colour)
    for name in series if len(series) > 1 else ():
        axes.plot([], [], "o-", ms=4.5, lw=1.6, color=colours[name], label=name)
    axes.set(yticks=range(len(groups)), yticklabels=list(groups), xlabel=unit, xlim=(min(0, axes.get_xlim()[0]), None))
    axes.set_ylim(len(groups) - 0.4, -0.6)
    _legend(figure, axes)
    return _svg(figure, f"{unit}: {', '.join(groups)}")


def lines(
    curves: Mapping[str, Line], x: str, y: str, *, ticks: Sequence[int] = (), dated: bool = False, zero: bool = True
) -> str:
    """Curves with their intervals as bands.  ticks: on a logarithmic axis; dated: x is UTC ms."""
    figure, (axes,) = _figure(3.1)
    for name, line in curves.items():
        at = [one / DAY if dated else one for one in line.x]
        value = [np.nan if mean.value is None else mean.value for mean in line.y]
        style: Any = {"lw": 2.0 if line.main else 1.0, "marker": "o" if len(at) <= MARKED else "", "ms": 3.5}
        axes.plot(at, value, color=line.colour, label=name, **style)
        if line.main:
            low, high = ([np.nan if end is None else end for end in ends] for ends in _ends(line.y))
            axes.fill_between(at, low, high, color=line.colour, alpha=0.18, lw=0)
            if len(at) == 1:  # the band of one point cannot be seen
                axes.errorbar(at, value, yerr=_arms(line.y[0]), color=line.colour)
    if ticks:
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    if dated:
        _date_ticks(axes, [one / DAY for line in curves.values() for one in line.x])
    if not ticks and not dated:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=x, ylabel=y)
    if zero:
        axes.set_ylim(bottom=0)
    if len(curves) > 1:
        _legend(figure, axes)
    return _svg(figure, f"{y} by {x}: {', '.join(curves)}")


def bars(panels: Mapping[str, Mapping[str, float | None]], mark: float | None = None) -> str:
    """Panels side by side with a horizontal bar a name, the same names in each.  mark: a line across all bars."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    figure, axes = _figure(0.6 + 0.2 * len(names), len(panels))
    for one, colour, (title, panel) in zip(axes, COLOURS, panels.items(), strict=False):
        one.barh(range(len(names)), [panel.get(name) or 0.0 for name in names], 0.7, color=colour)
        _rows(one, names if one is axes[0] else [""] * len(names), title)
        if mark is not None:
            one.axvline(mark, color=INK, lw=1.2, ls="--")
    return _svg(figure, f"{', '.join(panels)} of {', '.join(names)}")


def stack(shares: Mapping[str, float], colours: Sequence[str], unit: str) -> str:
    """One bar of shares that add up to 1."""
    figure, (axes,) = _figure(1.25)
    left = 0.0
    for colour, (name, share) in zip(colours, shares.items(), strict=True):
        axes.barh([0], [share], 0.6, left, color=colour, label=f"{name} {share:.1%}")
        left += share
    axes.set(xlim=(0, 1), yticks=[], xlabel=unit)
    _legend(figure, axes)
    return _svg(figure, ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))


def days(daily: Longs, band: tuple[float, float] | None, as_of: int) -> str:
    """Events a day [days, event types], the newest first, stacked by type; the band that the newest may lie in."""
    figure, (axes,) = _figure(2.6)
    end = [as_of / DAY - back for back in range(len(daily))]
    bottom = np.zeros(len(daily))
    for event, colour in enumerate((BLUE, ORANGE, GREEN)):
        axes.bar(end, daily[:, event], 0.8, bottom, color=colour, label=EVENTS[event])
        bottom += daily[:, event]
    if band:
        axes.axhspan(*band, color=PURPLE, alpha=0.2, lw=0, zorder=0, label="usual")
    _date_ticks(axes, end)
    axes.set(xlabel="24 hours until", ylabel="events")
    _legend(figure, axes)
    return _svg(figure, "events a day")


def beside(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Panels with a row a name: a bar for the first number, tonight's, and a dot for each of the others."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    figure, axes = _figure(0.6 + 0.26 * len(names), len(panels))
    for one, colour, (title, panel) in zip(axes, COLOURS, panels.items(), strict=False):
        for at, name in enumerate(names):
            tonight, *before = panel.get(name) or [0.0]
            one.barh([at], [tonight], 0.62, color=colour)
            one.plot(before, [at] * len(before), "o", ms=4, mfc="none", mec=INK)
        _rows(one, names if one is axes[0] else [""] * len(names), title)
    return _svg(figure, f"{', '.join(panels)} of {', '.join(names)}")


def _figure(height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return figure, figure.subplots(1, columns, squeeze=False)[0].tolist()


def _rows(axes: Axes, labels: Sequence[str], title: str) -> None:
    """Names for the rows, the first one on top."""
    axes.set(xlabel=title, yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _date_ticks(axes: Axes, at: Sequence[float]) -> None:
    """Names some of the instants, days since 1970, by their dates."""
    some = sorted(set(at))[:: -(-len(set(at)) // DATES)]
    axes.set_xticks(some, [f"{datetime.fromtimestamp(one * DAY / 1000, UTC):%Y-%m-%d}" for one in some])
    axes.set_xlim(min(at) - 0.6, max(at) + 0.6)


def _legend(figure: Figure, axes: Axes) -> None:
    """Above the plot, so that it covers nothing."""
    labels = axes.get_legend_handles_labels()[1]
    if not labels:
        return
    columns = 2 if sum(map(len, labels)) > 120 else 4
    with mpl.rc_context(STYLE):
        figure.legend(loc="outside upper left", ncols=min(columns, len(labels)), fontsize=8)


def _ends(means: Sequence[Mean]) -> tuple[list[float | None], list[float | None]]:
    return [mean.low for mean in means], [mean.high for mean in means]


def _arms(mean: Mean) -> list[list[float]] | None:
    """Lengths of the arms of an interval, left and right."""
    if mean.value is None or mean.low is None or mean.high is None:
        return None
    return [[max(0.0, mean.value - mean.low)], [max(0.0, mean.high - mean.value)]]


def _svg(figure: Figure, label: str) -> str:
    """The figure as an element of a page: no prolog, no size of its own, a label for who cannot see it."""
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", text.replace(INK, "currentColor"), count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
