"""Candidates of several sources, blended into one list a history; the ranker decides their final order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.recsys.interactions import Ints, Longs

Floats = npt.NDArray[np.float32]
Shorts = npt.NDArray[np.int16]
Weights = tuple[float, ...]
"""[sources], in the order of `SOURCES`"""

SMOOTHING = 30.0
"""Ranks below this count nearly alike in the blend."""
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
    weight: float
    """its weight in the blend where none is learned; chosen on validation windows"""


OWN_HISTORY = Source("own_history", 50, 1.0)
COVISITATION = Source("covisitation", 300, 1.0)
TWO_TOWER = Source("two_tower", 300, 0.5)
POPULAR = Source("popular", 300, 0.6)
SOURCES = (OWN_HISTORY, COVISITATION, TWO_TOWER, POPULAR)
WEIGHTS: Weights = tuple(source.weight for source in SOURCES)
"""The weights where nothing can be learned."""


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
        row, place = np.nonzero(self.item >= 0)
        found = self.item[row, place], (place + 1).astype(np.int16), self.rank[row, place], self.score[row, place]
        return Pairs(row.astype(np.int32), *found)


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


def blend(lists: Sequence[Ints], scores: Sequence[Floats], k: int, weights: Weights = WEIGHTS) -> Candidates:
    """Blends the sources' lists [users, depth] (−1 where they end early) with scores [users, depth] into the best k.

    gain(i) = Σ over the sources that name i of weight / (smoothing + rank)

    which is reciprocal rank fusion (Cormack et al., SIGIR 2009) with a weight a source.  Ties by item id.
    """
    result = _empty(len(lists[0]), k)
    for at in range(0, len(lists[0]), ROWS):
        rows = slice(at, at + ROWS)
        _blend_rows([one[rows] for one in lists], [one[rows] for one in scores], weights, _part(result, rows))
    return result


def _blend_rows(lists: Sequence[Ints], scores: Sequence[Floats], weights: Weights, result: "Candidates") -> None:
    """`blend` of a few rows, into rows of the result, by two sorts within each row."""
    named = merged(lists)
    depth = [np.arange(1, one.shape[1] + 1) for one in lists]
    of_column = np.concatenate([weight / (SMOOTHING + rank) for weight, rank in zip(weights, depth, strict=True)])
    of_source = of_column[named.column]
    gain = np.zeros(named.item.shape)
    for step in range(len(lists)):  # an item's sources follow one another; its first place collects
        together = named.item[:, step:] == named.item[:, : named.item.shape[1] - step]
        gain[:, : together.shape[1]] += np.where(together, of_source[:, step:], 0)
    gain[~named.first] = -1.0
    best = _best(gain, result.item.shape[1])
    kept = np.take_along_axis(gain, best, 1) >= 0
    item = np.where(kept, np.take_along_axis(named.item, best, 1), -1)
    result.item[:, : best.shape[1]] = item
    for step in range(len(lists)):
        at = np.minimum(best + step, named.item.shape[1] - 1)
        said = kept & (best + step == at) & (np.take_along_axis(named.item, at, 1) == item)
        _write(np.where(said, np.take_along_axis(named.column, at, 1), -1), scores, result)


def _write(column: Longs, scores: Sequence[Floats], result: "Candidates") -> None:
    """Notes rank and score of the sources' columns [lists, ≤ k], −1 for none, at the places of the result."""
    low = 0
    for source, score in enumerate(scores):
        rank = column - low + 1
        said = (rank > 0) & (rank <= score.shape[1])
        places = slice(None), slice(column.shape[1]), source
        result.rank[places] += np.where(said, rank, 0).astype(np.int16)
        result.score[places] += np.where(said, np.take_along_axis(score, np.where(said, rank - 1, 0), 1), 0)
        low += score.shape[1]


@dataclass(frozen=True)
class Named:
    """What the sources name in each list, by item, an item's sources in their order; empty places last."""

    item: npt.NDArray[np.signedinteger]
    """[lists, width], larger than any item where the place is empty"""
    column: npt.NDArray[np.signedinteger]
    """[lists, width], column in the sources' lists laid side by side"""
    first: npt.NDArray[np.bool_]
    """[lists, width], whether it is the item's first place; not so where empty"""


def merged(lists: Sequence[Ints]) -> Named:
    """Lays the sources' lists [users, depth] side by side and sorts each row by item, then source."""
    item = np.concatenate(lists, axis=1)
    small = int(item.max(initial=0)) + 1 < 1 << (31 - COLUMN_BITS)
    item = item.astype(np.int32 if small else np.int64)  # the shorter keys sort four times as fast
    empty = np.iinfo(item.dtype).max >> COLUMN_BITS
    key = np.where(item >= 0, item, empty) << COLUMN_BITS | np.arange(item.shape[1], dtype=item.dtype)
    key.sort(axis=1)
    item, column = key >> COLUMN_BITS, key & ((1 << COLUMN_BITS) - 1)
    first = item < empty
    first[:, 1:] &= item[:, 1:] != item[:, :-1]
    return Named(item, column, first)


def _best(gain: npt.NDArray[np.float64], k: int) -> Longs:
    """[lists, width] → [lists, ≤ k]: columns of the greatest gains, best first, ties by column."""
    width = gain.shape[1]
    # The bits of a float that is not negative sort as it does.  The lowest give way to the column: gains that agree
    # to 1 part in 10¹² are ties.
    key = np.where(gain >= 0, gain, 0.0).view(np.int64) >> COLUMN_BITS << COLUMN_BITS
    key = np.where(gain >= 0, key, -1 << COLUMN_BITS) | (width - 1 - np.arange(width))
    if k < width:
        key = np.partition(key, width - k, axis=1)[:, width - k :]
    key.sort(axis=1)
    best: Longs = width - 1 - (key[:, ::-1] & ((1 << COLUMN_BITS) - 1))
    return best


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
    item, order = _moved_up(candidates.item, unwanted)
    rank, score = (np.take_along_axis(a, order[:, :, None], 1) for a in (candidates.rank, candidates.score))
    gone = (item < 0)[:, :, None]
    return Candidates(item, np.where(gone, 0, rank), np.where(gone, 0, score))


def items_without(lists: Ints, unwanted: npt.NDArray[np.bool_]) -> Ints:
    """The same of lists of items [lists, k]; an item beyond the marks is not marked."""
    later = np.zeros(max(0, int(lists.max(initial=-1)) + 1 - len(unwanted)), dtype=bool)
    return _moved_up(lists, np.append(unwanted, later))[0]


def _moved_up(item: Ints, unwanted: npt.NDArray[np.bool_]) -> tuple[Ints, Longs]:
    """[lists, k] without the marked ones, −1 at the end, and the places [lists, k] that they were taken from."""
    drop = (item < 0) | unwanted[item]
    order = np.argsort(drop, axis=1, kind="stable")
    kept = np.where(np.take_along_axis(drop, order, 1), -1, np.take_along_axis(item, order, 1))
    return kept.astype(np.int32), order
