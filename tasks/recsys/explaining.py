"""Why a visitor's candidates stand where they stand: what named each of them, and what moved its score up and down."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.recsys import ranking
from tasks.recsys.candidates import SOURCES, Floats, Pairs
from tasks.recsys.features import FEATURES, ItemTable, features
from tasks.recsys.interactions import Histories

UP, DOWN = 3, 1
"""Features that are named of those which moved a score up most, and down most."""


@dataclass(frozen=True)
class Reason:
    """A feature that moved a score."""

    feature: str
    meaning: str
    unit: str
    value: float | None
    """None: missing"""
    moved: float
    """by how much it moved the score; negative: down"""


@dataclass(frozen=True)
class Explained:
    """A candidate with its score, and why."""

    item: int
    """dense id"""
    score: float
    place: int
    """in the blend, from 1: where it stood before ranking"""
    sources: dict[str, int]
    """those that named it → its rank there, from 1"""
    reasons: tuple[Reason, ...]
    """up first, the strongest first; empty where the order is the blend's"""


def explain(booster: Any, pairs: Pairs, history: Histories, items: ItemTable) -> list[Explained]:
    """One list's pairs and its history [1] → all its candidates, best first, as serving ranks them.

    booster: None where the ranker learned nothing or steps aside; the blend's order is kept then, without reasons.
    """
    if not len(pairs):
        return []
    columns = features(pairs, history, items)
    scores = ranking.score(booster, columns, pairs.place)
    moved = np.zeros(columns.shape) if booster is None else ranking.moves(booster, columns)
    position, _ = ranking.ranked(pairs, scores, len(pairs))
    return [
        Explained(
            item=int(pairs.item[at]),
            score=float(scores[at]),
            place=int(pairs.place[at]),
            sources={one.name: int(rank) for one, rank in zip(SOURCES, pairs.rank[at], strict=True) if rank > 0},
            reasons=_reasons(columns[at], moved[at]),
        )
        for at in position.tolist()
    ]


def _reasons(row: Floats, moved: npt.NDArray[np.float64]) -> tuple[Reason, ...]:
    """Of a candidate's features [features] and what they did [features], those that did most."""
    order = np.argsort(-moved, kind="stable").tolist()
    up = [at for at in order if moved[at] > 0][:UP]
    down = [at for at in reversed(order) if moved[at] < 0][:DOWN]
    names = list(FEATURES)
    return tuple(
        Reason(
            names[at],
            FEATURES[names[at]].meaning.partition("; missing")[0],
            FEATURES[names[at]].unit,
            None if np.isnan(row[at]) else float(row[at]),
            float(moved[at]),
        )
        for at in up + down
    )
