"""Everything that retrieves for one cut: the two-tower's fit, item-item neighbours, recent popularity."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from tasks.recsys import baselines, cooccurrence, index
from tasks.recsys.candidates import COVISITATION, OWN_HISTORY, POPULAR, TWO_TOWER, Candidates, Floats, blend
from tasks.recsys.interactions import Histories, Interactions, Ints
from tasks.recsys.sequences import history_windows
from tasks.recsys.two_tower import TwoTower

POPULAR_DAYS = 14
ROWS = 8_192
"""Histories answered at a time: bounds the memory, and a block of queries is one matrix product."""


@dataclass(frozen=True)
class Tower:
    """A fitted two-tower: its model and the index over the items known before its cut."""

    model: TwoTower
    index: Any

    def queries(self, histories: Histories) -> Floats:
        """Query vectors [users, dim + 1]; interactions with items that it does not know are passed over."""
        known = histories.where(histories.item < self.model.item.num_embeddings)
        windows = history_windows(known, self.model.window)
        item, event = torch.from_numpy(windows.item).long(), torch.from_numpy(windows.event).long()
        vectors: Floats = self.model.query_vectors(item, event).numpy()
        return vectors

    def recommend(self, histories: Histories, k: int) -> tuple[Ints, Floats]:
        """The k best items of each history, with scores [users, k]; nothing for a history without a known item."""
        queries = self.queries(histories)
        items, scores = index.search(self.index, queries, k)
        blank = ~queries[:, :-1].any(axis=1)
        items[blank], scores[blank] = -1, 0.0
        scores[items < 0] = 0.0
        return items, scores


@dataclass(frozen=True)
class Retriever:
    """The sources as of a cut."""

    cut: int
    tower: Tower
    neighbours: sparse.csr_array
    """[items, items] decayed co-visitation"""
    popular: Ints
    """[k] most popular items before the cut, best first"""

    def blended(self, histories: Histories, k: int) -> Iterator[Candidates]:
        """The blend's k best items of each history, in blocks of `ROWS` histories."""
        for at in range(0, len(histories), ROWS):
            yield self._block(histories.take(np.arange(at, min(at + ROWS, len(histories)))), k)

    def _block(self, histories: Histories, k: int) -> Candidates:
        own = baselines.own_items(histories, OWN_HISTORY.depth)
        weights = cooccurrence.recency(histories)
        near, near_score = cooccurrence.recommend(histories, weights, self.neighbours, COVISITATION.depth)
        towers, tower_score = self.tower.recommend(histories, TWO_TOWER.depth)
        popular = np.tile(self.popular[: POPULAR.depth], (len(histories), 1))
        unscored = np.zeros(own.shape, dtype=np.float32), np.zeros(popular.shape, dtype=np.float32)
        return blend((own, near, towers, popular), (unscored[0], near_score, tower_score, unscored[1]), k)


def retriever(interactions: Interactions, cut: int, tower: Tower, neighbours: sparse.csr_array, k: int) -> Retriever:
    """The sources as of a cut: only interactions before it are read."""
    return Retriever(cut, tower, neighbours, baselines.popular(interactions, cut, POPULAR_DAYS, k))
