"""Candidates of several sources, blended into one list a history; the ranker decides their final order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.recsys.interactions import Ints

Floats = npt.NDArray[np.float32]
Shorts = npt.NDArray[np.int16]

SMOOTHING = 60.0
"""Ranks below this count nearly alike in the blend."""


@dataclass(frozen=True)
class Source:
    """One way to find candidates."""

    name: str
    depth: int
    """candidates it names at most"""
    weight: float
    """its weight in the blend; chosen on validation windows"""


OWN_HISTORY = Source("own_history", 50, 8.0)
COVISITATION = Source("covisitation", 200, 1.0)
TWO_TOWER = Source("two_tower", 300, 1.0)
POPULAR = Source("popular", 300, 0.6)
SOURCES = (OWN_HISTORY, COVISITATION, TWO_TOWER, POPULAR)


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

    def where(self, keep: npt.NDArray[np.bool_]) -> "Pairs":
        """The pairs [pairs] that are kept."""
        return Pairs(self.row[keep], self.item[keep], self.place[keep], self.rank[keep], self.score[keep])


def blend(lists: Sequence[Ints], scores: Sequence[Floats], k: int) -> Candidates:
    """Blends the sources' lists [users, depth] (−1 where they end early) with scores [users, depth] into the best k.

    gain(i) = Σ over the sources that name i of weight / (smoothing + rank)

    which is reciprocal rank fusion (Cormack et al., SIGIR 2009) with a weight a source.  Ties by item id.
    """
    source = np.repeat(np.arange(len(lists)), [one.shape[1] for one in lists])
    rank = np.concatenate([np.arange(1, one.shape[1] + 1) for one in lists])
    item, score = np.concatenate(lists, axis=1), np.concatenate(scores, axis=1)
    row, column = np.nonzero(item >= 0)
    width = int(item.max(initial=0)) + 1
    pair, which = np.unique(row * width + item[row, column], return_inverse=True)
    weight = np.array([one.weight for one in SOURCES])
    gain = np.bincount(which, weights=(weight[source] / (SMOOTHING + rank))[column], minlength=len(pair))
    user = pair // width
    order = np.lexsort((pair, -gain, user))
    place = np.empty(len(pair), dtype=np.int64)
    place[order] = np.arange(len(pair)) - np.searchsorted(user, user, "left")
    result = _empty(len(item), k)
    kept = place < k
    result.item[user[kept], place[kept]] = (pair % width)[kept]
    row, column, at = (one[kept[which]] for one in (row, column, place[which]))
    result.rank[row, at, source[column]] = rank[column]
    result.score[row, at, source[column]] = score[row, column]
    return result


def _empty(users: int, k: int) -> Candidates:
    return Candidates(
        np.full((users, k), -1, dtype=np.int32),
        np.zeros((users, k, len(SOURCES)), dtype=np.int16),
        np.zeros((users, k, len(SOURCES)), dtype=np.float32),
    )


def without(candidates: Candidates, unwanted: npt.NDArray[np.bool_]) -> Candidates:
    """Lists with the items that are marked [items] left out, the rest moved up."""
    drop = (candidates.item < 0) | unwanted[candidates.item]
    order = np.argsort(drop, axis=1, kind="stable")
    item = np.where(np.take_along_axis(drop, order, 1), -1, np.take_along_axis(candidates.item, order, 1))
    rank, score = (np.take_along_axis(a, order[:, :, None], 1) for a in (candidates.rank, candidates.score))
    gone = (item < 0)[:, :, None]
    return Candidates(item.astype(np.int32), np.where(gone, 0, rank), np.where(gone, 0, score))
