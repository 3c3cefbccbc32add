"""Who the ranker learns from and is judged on in a window: histories, and what followed each of them.

A group is one history with its candidates. Groups are numbered 0, 1, …: one visitor can give two, so the `user` of
histories and truth is the number of the group here.
"""

import numpy as np

from tasks.recsys import evaluation
from tasks.recsys.interactions import Histories, Interactions, Truth

LATER = 10_000
"""Groups of a window, at most, that begin after its cut."""
FEW = 20
"""Visitors who came back below which they are no measure of an order."""


def learners(interactions: Interactions, cut: int, end: int, cap: int) -> tuple[Histories, Truth]:
    """Groups of a window to learn from; histories hold the newest `cap` interactions with items known at the cut.

    First everybody who came back: the history at the cut, and all items of cut ≤ time < end. Then everybody who did
    something twice since: the last interaction, asked for from those before it. They teach how a visit goes on, and
    are all that there is in a shop whose visitors do not come back.
    """
    came_back = evaluation.question(interactions, cut, end, cap)
    items = came_back.catalogue
    histories, truth = evaluation.next_items(interactions, cut, end, cap)
    histories, truth = _known(histories, truth, items)
    newest = histories.time[histories.start[1:] - 1]
    later = np.flatnonzero((newest >= cut) & (truth.item < items))
    some = later[np.unique(np.linspace(0, len(later) - 1, min(LATER, len(later))).astype(np.int64))]
    return _joined((came_back.asked, came_back.truth), _take(histories, truth, some))


def judges(interactions: Interactions, cut: int, end: int, cap: int) -> tuple[Histories, Truth]:
    """Groups of a window to measure an order on: everybody who came back, as in `learners`.

    Where those are fewer than `FEW`, the last interaction of everybody who did something in the window.
    """
    came_back = evaluation.question(interactions, cut, end, cap)
    if len(came_back.truth) >= FEW:
        return _joined((came_back.asked, came_back.truth))
    return _joined(_known(*evaluation.next_items(interactions, cut, end, cap), came_back.catalogue))


def _known(histories: Histories, truth: Truth, items: int) -> tuple[Histories, Truth]:
    """The histories' interactions with items 0 … items − 1, and those who are left with one."""
    known = histories.where(histories.item < items)
    return _take(known, truth, np.flatnonzero(known.length > 0))


def _take(histories: Histories, truth: Truth, rows: np.ndarray) -> tuple[Histories, Truth]:
    return histories.take(rows), truth.where(np.isin(np.arange(len(truth)), rows)[truth.row])


def _joined(*parts: tuple[Histories, Truth]) -> tuple[Histories, Truth]:
    """Groups of several kinds one after another, numbered."""
    histories, truth = zip(*parts, strict=True)
    number = np.arange(sum(len(one) for one in truth), dtype=np.int32)

    def joined(name: str, of: tuple[Histories, ...] | tuple[Truth, ...]) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in of])

    def start(of: tuple[Histories, ...] | tuple[Truth, ...]) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(one.start) for one in of]))]).astype(np.int64)

    asked = Histories(number, start(histories), *(joined(name, histories) for name in ("item", "event", "time")))
    return asked, Truth(number, start(truth), *(joined(name, truth) for name in ("item", "event")))
