"""The plots of the morning page: well-formed, transparent, in the colour of the page's text, and the same twice."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from tasks import report_plots as plots
from tasks.recsys.interactions import DAY
from tasks.recsys.metrics import Mean
from tasks.report_plots import BLUE, GREY, Line, plain

NAME = '<b> $x_1^2$ & "é"'
SOME, FEW, NOBODY = Mean(0.4, 0.3, 0.5, 20), Mean(0.7, None, None, 1), Mean(None, None, None, 0)
AS_OF = 16_000 * DAY

PLOTS: dict[str, Callable[[], str]] = {
    "forest": lambda: plots.forest(
        {NAME: {"a": SOME, "b": FEW}, "nobody": {"a": NOBODY}}, {"a": BLUE, "b": GREY}, "recall"
    ),
    "lines": lambda: plots.lines({NAME: Line([1, 2], [SOME, NOBODY], BLUE), "b": Line([1], [FEW], GREY)}, "k", "y"),
    "dated": lambda: plots.lines({NAME: Line([AS_OF], [SOME], BLUE)}, "as_of", NAME, dated=True),
    "ticked": lambda: plots.lines({NAME: Line([10, 300], plain([0.1, 0.2]), BLUE)}, "k", NAME, ticks=(10, 300)),
    "bars": lambda: plots.bars({"one": {NAME: 0.5, "b": None}, "other": {NAME: 2.0}}, mark=0.6),
    "stack": lambda: plots.stack({NAME: 0.25, "b": 0.75}, (BLUE, GREY), "share"),
    "days": lambda: plots.days(np.array([[9, 1, 0]] * 9), (4.5, 20.0), AS_OF),
    "beside": lambda: plots.beside({"seconds": {NAME: [3.0, 2.0, 4.0]}, "GB": {NAME: [0.5]}}),
}


@pytest.mark.parametrize("name", sorted(PLOTS.keys() - {"days"}))
def test_a_plot_is_well_formed_and_says_its_names_whatever_is_in_them(name: str) -> None:
    svg = PLOTS[name]()
    root = ElementTree.fromstring(svg)
    words = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(NAME in word for word in words)
    assert NAME in (root.get("aria-label") or "")
    assert root.get("width") is None and root.get("viewBox")


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_reads_on_a_light_and_on_a_dark_page(name: str) -> None:
    """No ground, text in the page's own colour, and nothing nearly white or nearly black."""
    svg = PLOTS[name]()
    for colour in re.findall(r"#[0-9a-f]{6}\b", svg):
        assert 0.2 < sum(int(colour[at : at + 2], 16) for at in (1, 3, 5)) / (3 * 255) < 0.8, colour
    assert all("fill: currentColor" in style for style in re.findall(r'<text style="([^"]*)"', svg))


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_the_same_twice(name: str) -> None:
    assert PLOTS[name]() == PLOTS[name]()


def test_who_has_no_number_has_no_dot() -> None:
    def dots(mean: Mean) -> int:
        return plots.forest({"a": {"r": SOME}, "b": {"r": mean}}, {"a": BLUE, "b": GREY}, "recall").count(GREY)

    assert dots(NOBODY) == 0 < dots(FEW) < dots(SOME)
