"""Everything that retrieves for one cut: the two-tower's fit, item-item neighbours, recent popularity."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from tasks.recsys import baselines, cooccurrence, evaluation, index, merging
from tasks.recsys.candidates import (
    COVISITATION,
    CURVES,
    OWN_HISTORY,
    POPULAR,
    SOURCES,
    TWO_TOWER,
    Candidates,
    Curves,
    Floats,
    blend,
)
from tasks.recsys.interactions import Histories, Interactions, Ints, Longs
from tasks.recsys.parallel import in_order
from tasks.recsys.sequences import Windows, history_windows
from tasks.recsys.two_tower import TwoTower

POPULAR_DAYS = 14
ROWS = 4_096
"""Histories answered at a time: bounds the memory, and a block of queries is one matrix product."""
LEARNERS = 5_000
"""Users that the blend's curves are learned from, at most."""
WARM = 100
"""Users with a history below which the curves are not learned from them alone."""


@dataclass(frozen=True)
class Tower:
    """A fitted two-tower: its model and the index over the items known before its cut."""

    model: TwoTower
    index: Any

    def queries(self, windows: Windows) -> tuple[Floats, Floats]:
        """Query vectors [users, dim of the index] and the scores [users, length] of the windows' own items.

        Windows that hold about as many interactions are asked together, without their padding: most are short.
        """
        vectors = np.empty((len(windows), self.index.d), dtype=np.float32)
        own = np.full(windows.item.shape, -np.inf, dtype=np.float32)
        for rows, width in _of_like_length(windows):
            part = windows.item[rows, :width], windows.event[rows, :width]
            found = self.model.query_vectors(*(torch.from_numpy(column).long() for column in part))
            vectors[rows], own[rows, :width] = (one.numpy() for one in found)
        return vectors, own

    def windows(self, histories: Histories) -> Windows:
        """What the query tower reads of each history."""
        return history_windows(histories, self.model.window)

    def answer(self, windows: Windows, k: int) -> tuple[Ints, Floats]:
        """The k best items of each window, with scores [users, k]; nothing for one without an item."""
        queries, own = self.queries(windows)
        items, scores = index.search(self.index, queries, k)
        for rows, width in _of_like_length(windows):
            mine = items[rows], scores[rows], windows.item[rows, :width], own[rows, :width]
            items[rows], scores[rows] = index.insert(*mine)
        blank = ~(windows.item >= 0).any(axis=1)
        items[blank] = -1
        scores[items < 0] = 0.0
        return items, scores

    def recommend(self, histories: Histories, k: int) -> tuple[Ints, Floats]:
        """The k best items of each history, with scores [users, k]; nothing for a history without an item."""
        return self.answer(self.windows(histories), k)


def _of_like_length(windows: Windows) -> Iterator[tuple[Longs, int]]:
    """Positions [n] of the windows that a width holds and half of it does not, and the width: 1, 2, 4, …"""
    longest = windows.item.shape[1]
    length, shorter, width = (windows.item >= 0).sum(axis=1), -1, 1
    while shorter < longest:
        width = min(width, longest)
        yield np.flatnonzero((length > shorter) & (length <= width)), width
        shorter, width = width, 2 * width


@dataclass(frozen=True)
class Retriever:
    """The sources as of a cut."""

    cut: int
    tower: Tower
    neighbours: sparse.csr_array
    """[items, items] decayed co-visitation, of which lists take one step and two"""
    popular: Ints
    """[k] most popular items before the cut, best first"""
    curves: Curves = CURVES
    """of the sources in the blend"""
    walked: sparse.csr_array | None = None
    """what `walk` gives, for every item, where it was made beforehand"""

    def blended(self, histories: Histories, k: int) -> Iterator[Candidates]:
        """The blend's k best items of each history, in blocks of `ROWS` histories."""
        return (blended for _, blended in self.answers(histories, k))

    def answers(self, histories: Histories, k: int) -> Iterator[tuple[Ints, Candidates]]:
        """The two-tower's own lists, as deep as the blend reads them, and `blended`, in the same blocks."""
        walk = self.walk(histories)

        def block(at: int) -> tuple[Ints, Candidates]:
            part = histories.take(np.arange(at, min(at + ROWS, len(histories))))
            lists, scores = self.named(part, walk)
            return lists[SOURCES.index(TWO_TOWER)], blend(lists, scores, k, self.curves)

        return in_order(block, range(0, len(histories), ROWS))

    def walk(self, histories: Histories) -> sparse.csr_array:
        """[items, items]: one step and two of co-visitation from the histories' items; `named` takes it."""
        if self.walked is not None:
            return self.walked
        known = self.neighbours.shape[0]
        return cooccurrence.two_steps(self.neighbours, np.unique(histories.item[histories.item < known]))

    def named(self, histories: Histories, walk: sparse.csr_array) -> tuple[Sequence[Ints], Sequence[Floats]]:
        """Of each source in the order of `SOURCES`, its lists and its own scores, [histories, depth]."""
        own = baselines.own_items(histories, OWN_HISTORY.depth)
        weights = cooccurrence.recency(histories)
        near, near_score = cooccurrence.recommend(histories, weights, walk, COVISITATION.depth)
        towers, tower_score = self.tower.recommend(histories, TWO_TOWER.depth)
        popular = np.tile(self.popular[: POPULAR.depth], (len(histories), 1))
        unscored = np.zeros(own.shape, dtype=np.float32), np.zeros(popular.shape, dtype=np.float32)
        return (own, near, towers, popular), (unscored[0], near_score, tower_score, unscored[1])


def retriever(
    interactions: Interactions,
    cut: int,
    tower: Tower,
    neighbours: sparse.csr_array,
    k: int,
    curves: Curves = CURVES,
) -> Retriever:
    """The sources as of a cut: only interactions before it are read."""
    return Retriever(cut, tower, neighbours, baselines.popular(interactions, cut, POPULAR_DAYS, k), curves)


def learned_curves(sources: Retriever, interactions: Interactions, end: int, cap: int) -> Curves:
    """Curves that blend the sources best for what people did from their cut up to the end.

    They are learned from at most `LEARNERS` warm users or, where fewer than `WARM` came back, from the last
    interaction of everybody who did something. Nobody may be judged later on what came before the end.
    """
    asked = evaluation.question(interactions, sources.cut, end, cap)
    histories, truth = asked.asked, asked.truth
    if len(truth) < WARM:
        histories, truth = evaluation.next_items(interactions, sources.cut, end, cap)
    some = np.unique(np.linspace(0, max(len(truth) - 1, 0), min(LEARNERS, len(truth))).astype(np.int64))
    part = truth.where(np.isin(np.arange(len(truth)), some)[truth.row])
    learners = histories.take(some)
    return merging.learn(sources.named(learners, sources.walk(learners))[0], part, sources.curves)
