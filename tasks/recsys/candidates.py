"""Candidates of several sources, blended into one list a history; the ranker decides their final order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.recsys.interactions import Ints, Longs

Floats = npt.NDArray[np.float32]
Shorts = npt.NDArray[np.int16]
Curve = tuple[float, float]
"""What a source says for an item by the rank that it gives it: how much of each of `shapes`"""
Curves = tuple[Curve, ...]
"""[sources], in the order of `SOURCES`"""

SMOOTHING = 30.0
"""Ranks below this count nearly alike in the second of the shapes."""
ROWS = 512
"""Lists blended at a time: what is sorted stays in the cache."""
COLUMN_BITS = 11
"""Of a sorted key: the sources name fewer than 2,048 items a list together."""


@dataclass(frozen=True)
class Source:
    """One way to find candidates."""

    name: str
    depth: int
    """candidates it names at most"""
    curve: Curve
    """its curve in the blend where none is learned; chosen on validation windows"""


OWN_HISTORY = Source("own_history", 50, (0.1, 0.1))
COVISITATION = Source("covisitation", 300, (0.1, 0.1))
TWO_TOWER = Source("two_tower", 300, (0.4, 0.1))
POPULAR = Source("popular", 300, (0.0, 0.1))
SOURCES = (OWN_HISTORY, COVISITATION, TWO_TOWER, POPULAR)
CURVES: Curves = tuple(source.curve for source in SOURCES)
"""The curves where nothing can be learned."""


@dataclass(frozen=True)
class Candidates:
    """Blended lists, best first, with what each source said of each item."""

    item: Ints
    """[lists, k], −1 where a list ends early"""
    rank: Shorts
    """[lists, k, sources], from 1; 0 where the source did not name the item"""
    score: Floats
    """[lists, k, sources], the source's own score; 0 where it did not name the item"""

    def __len__(self) -> int:
        return len(self.item)

    def pairs(self) -> "Pairs":
        """The same without the empty places, one row a (list, item), in the blend's order."""
        at = np.flatnonzero(self.item >= 0)
        row, place = np.divmod(at.astype(np.int32), np.int32(self.item.shape[1]))
        rank, score = self.rank.reshape(-1, len(SOURCES)), self.score.reshape(-1, len(SOURCES))
        return Pairs(
            row, self.item.take(at), place.astype(np.int16) + np.int16(1), rank.take(at, axis=0), score.take(at, axis=0)
        )


@dataclass(frozen=True)
class Pairs:
    """Candidates as rows, a list's rows together, in the blend's order."""

    row: Ints
    """[pairs], number of the list, ascending"""
    item: Ints
    """[pairs]"""
    place: Shorts
    """[pairs], place in the blend, from 1"""
    rank: Shorts
    """[pairs, sources], from 1; 0 where the source did not name the item"""
    score: Floats
    """[pairs, sources], the source's own score; 0 where it did not name the item"""

    def __len__(self) -> int:
        return len(self.item)

    def between(self, low: int, high: int, first: int) -> "Pairs":
        """The pairs low … high − 1, their lists counted from list `first`."""
        part = slice(low, high)
        row = self.row[part] - np.int32(first)
        return Pairs(row, self.item[part], self.place[part], self.rank[part], self.score[part])

    def where(self, keep: npt.NDArray[np.bool_]) -> "Pairs":
        """The pairs [pairs] that are kept."""
        return Pairs(self.row[keep], self.item[keep], self.place[keep], self.rank[keep], self.score[keep])


def shapes(depth: int) -> npt.NDArray[np.float64]:
    """[depth, 2], of each rank r from 1: 1 / r, and 1 / (smoothing + r); each adds up to 1 over the depth."""
    rank = np.arange(1, depth + 1)
    found = np.stack([1 / rank, 1 / (SMOOTHING + rank)], axis=1)
    found /= found.sum(axis=0)
    return found


def blend(lists: Sequence[Ints], scores: Sequence[Floats], k: int, curves: Curves = CURVES) -> Candidates:
    """Blends the sources' lists [users, depth] (−1 where they end early) with scores [users, depth] into the best k.

    gain(i) = Σ over the sources s that name i of f_s(rank)        f_s(r) = Σ over `shapes` of coefficient · shape(r)

    With the second shape alone it is reciprocal rank fusion (Cormack et al., SIGIR 2009).  Ties by item id.
    """
    result = _empty(len(lists[0]), k)
    for at in range(0, len(lists[0]), ROWS):
        rows = slice(at, at + ROWS)
        _blend_rows([one[rows] for one in lists], [one[rows] for one in scores], curves, _part(result, rows))
    return result


def _blend_rows(lists: Sequence[Ints], scores: Sequence[Floats], curves: Curves, result: "Candidates") -> None:
    """`blend` of a few rows, into rows of the result, by two sorts within each row."""
    named = merged(lists)
    head, again = _named_again(named)
    of_rank = [shapes(one.shape[1]) @ curve for one, curve in zip(lists, curves, strict=True)]
    gain = np.concatenate(of_rank).take(named.column)
    np.add.at(gain.reshape(-1), head, gain.take(again))  # an item's first place collects
    best, kept = _best(gain, named.first, result.item.shape[1])
    row = np.arange(len(best))[:, None]
    first, cell = (best + row * gain.shape[1])[kept], (np.arange(best.shape[1]) + row * result.item.shape[1])[kept]
    result.item.reshape(-1)[cell] = named.item.take(first)
    cell_of = np.full(gain.size, -1)
    cell_of[first] = cell
    also = cell_of[head] >= 0
    _write(named, np.append(first, again[also]), np.append(cell, cell_of[head][also]), scores, result)


def _write(named: "Named", place: Longs, cell: Longs, scores: Sequence[Floats], result: "Candidates") -> None:
    """Notes what the sources said at places [n] of the table at cells [n] of the result, both laid flat."""
    depth = [one.shape[1] for one in scores]
    column, row = named.column.take(place), place // named.column.shape[1]
    said = cell * len(depth) + np.repeat(np.arange(len(depth)), depth)[column]
    result.rank.reshape(-1)[said] = np.concatenate([np.arange(1, one + 1) for one in depth])[column]
    result.score.reshape(-1)[said] = np.concatenate(scores, axis=1).take(row * sum(depth) + column)


def _named_again(named: "Named") -> tuple[Longs, Longs]:
    """Where, in the table laid flat, an item that was named before has its first place, and where it is now."""
    again = np.flatnonzero(named.real & ~named.first)
    head, first = again - 1, named.first.reshape(-1)
    while not (reached := first[head]).all():
        head = head - ~reached
    return head, again


@dataclass(frozen=True)
class Named:
    """What the sources name in each list, by item, an item's sources in their order; empty places last."""

    item: npt.NDArray[np.signedinteger]
    """[lists, width], larger than any item where the place is empty"""
    column: npt.NDArray[np.signedinteger]
    """[lists, width], column in the sources' lists laid side by side"""
    first: npt.NDArray[np.bool_]
    """[lists, width], whether it is the item's first place; not so where empty"""
    real: npt.NDArray[np.bool_]
    """[lists, width], whether the place is taken"""


def merged(lists: Sequence[Ints]) -> Named:
    """Lays the sources' lists [users, depth] side by side and sorts each row by item, then source."""
    item = np.concatenate(lists, axis=1)
    small = int(item.max(initial=0)) + 1 < 1 << (31 - COLUMN_BITS)
    item = item.astype(np.int32 if small else np.int64)  # the shorter keys sort four times as fast
    empty = np.iinfo(item.dtype).max >> COLUMN_BITS
    key = np.where(item >= 0, item, empty) << COLUMN_BITS | np.arange(item.shape[1], dtype=item.dtype)
    key.sort(axis=1)
    item, column = key >> COLUMN_BITS, key & ((1 << COLUMN_BITS) - 1)
    real = item < empty
    first = real.copy()
    first[:, 1:] &= item[:, 1:] != item[:, :-1]
    return Named(item, column, first, real)


def _best(gain: npt.NDArray[np.float64], wanted: npt.NDArray[np.bool_], k: int) -> tuple[Longs, npt.NDArray[np.bool_]]:
    """[lists, width] → [lists, ≤ k]: columns of the greatest gains of the wanted places, and whether there are so many.

    Best first, ties by column.
    """
    width = gain.shape[1]
    # The bits of a float that is not negative sort as it does.  The lowest give way to the column: gains that agree
    # to 1 part in 10¹² are ties.
    key = (gain.view(np.int64) >> COLUMN_BITS << COLUMN_BITS) | (width - 1 - np.arange(width))
    key[~wanted] = -1
    if k < width:
        key = np.partition(key, width - k, axis=1)[:, width - k :]
    key.sort(axis=1)
    key = key[:, ::-1]
    kept = key >= 0
    return np.where(kept, width - 1 - (key & ((1 << COLUMN_BITS) - 1)), 0), kept


def _part(candidates: "Candidates", rows: slice) -> "Candidates":
    return Candidates(candidates.item[rows], candidates.rank[rows], candidates.score[rows])


def _empty(users: int, k: int) -> Candidates:
    return Candidates(
        np.full((users, k), -1, dtype=np.int32),
        np.zeros((users, k, len(SOURCES)), dtype=np.int16),
        np.zeros((users, k, len(SOURCES)), dtype=np.float32),
    )


def without(candidates: Candidates, unwanted: npt.NDArray[np.bool_]) -> Candidates:
    """Lists with the items that are marked [items] left out, the rest moved up."""
    result = _empty(*candidates.item.shape)
    at, to = _moved_up(candidates.item, unwanted)
    result.item.reshape(-1)[to] = candidates.item.take(at)
    for old, new in ((candidates.rank, result.rank), (candidates.score, result.score)):
        new.reshape(-1, len(SOURCES))[to] = old.reshape(-1, len(SOURCES)).take(at, axis=0)
    return result


def items_without(lists: Ints, unwanted: npt.NDArray[np.bool_]) -> Ints:
    """The same of lists of items [lists, k]; an item beyond the marks is not marked."""
    later = np.zeros(max(0, int(lists.max(initial=-1)) + 1 - len(unwanted)), dtype=bool)
    result = np.full(lists.shape, -1, dtype=np.int32)
    at, to = _moved_up(lists, np.append(unwanted, later))
    result.reshape(-1)[to] = lists.take(at)
    return result


def _moved_up(item: Ints, unwanted: npt.NDArray[np.bool_]) -> tuple[Longs, Longs]:
    """Of the places of [lists, k] laid flat: those of items that are not marked, and where these move to."""
    kept = (item >= 0) & ~unwanted[item]
    at, count = np.flatnonzero(kept), kept.sum(axis=1)
    shift = np.arange(len(item)) * item.shape[1] - (np.cumsum(count) - count)
    return at, np.arange(len(at)) + np.repeat(shift, count)
