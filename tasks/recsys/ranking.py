"""LambdaRank on the candidates' features, and the order that it gives."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from tasks.recsys.candidates import Floats, Pairs
from tasks.recsys.features import FEATURES, ItemTable, features
from tasks.recsys.interactions import Histories, Ints, Truth
from tasks.recsys.trees import Trees

log = logging.getLogger(__name__)

NDCG_AT = 10
CHUNK = 256
"""Lists whose features are computed at a time when all are ranked."""
PATIENCE = 30
"""Trees without a better NDCG on the last window before boosting stops."""


@dataclass(frozen=True)
class Groups:
    """Candidates of some (user, cut) pairs with what the users then did."""

    features: Floats
    """[pairs, features]"""
    grade: npt.NDArray[np.int8]
    """[pairs]: 0 nothing, 1 view, 2 cart, 3 transaction"""
    size: npt.NDArray[np.int64]
    """[groups], pairs of each group; a group's pairs lie together"""

    @property
    def group(self) -> npt.NDArray[np.int64]:
        """[pairs], number of the group of each pair."""
        return np.repeat(np.arange(len(self.size)), self.size)

    def where(self, keep: npt.NDArray[np.bool_]) -> "Groups":
        """The pairs [pairs] that are kept, groups without a pair left out."""
        size = np.bincount(self.group[keep], minlength=len(self.size))
        return Groups(self.features[keep], self.grade[keep], size[size > 0])


@dataclass(frozen=True)
class Boosting:
    """How the trees are grown."""

    max_trees: int
    leaves: int
    shrinkage: float
    seed: int


def grades(user: Ints, item: Ints, truth: Truth) -> npt.NDArray[np.int8]:
    """Graded label of each (user, item) [pairs]: 0 nothing, 1 view, 2 cart, 3 transaction in the window."""
    width = max(int(item.max(initial=0)), int(truth.item.max(initial=0))) + 1
    keys = truth.user[truth.row].astype(np.int64) * width + truth.item
    wanted = user.astype(np.int64) * width + item
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int8)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, truth.event[at] + 1, 0).astype(np.int8)


def concatenate(parts: list[Groups]) -> Groups:
    """Groups of several cuts, one after another."""
    return Groups(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.grade for part in parts]),
        np.concatenate([part.size for part in parts]),
    )


def learnable(groups: Groups) -> Groups:
    """Only the groups with a positive: the others have no order to learn."""
    has = np.bincount(groups.group[groups.grade > 0], minlength=len(groups.size)) > 0
    return groups.where(has[groups.group])


def down_sample(groups: Groups, share: float, seed: int) -> Groups:
    """Keeps every positive and this share of the negatives, for training only; shuffles within each group.

    LightGBM breaks ties by row order, which is the blend's: shuffled, a feature without information gains nothing.
    """
    rng = np.random.default_rng(seed)
    keep = (groups.grade > 0) | (rng.random(len(groups.grade)) < share)
    kept = groups.where(keep)
    order = np.lexsort((rng.random(len(kept.grade)), kept.group))
    return Groups(kept.features[order], kept.grade[order], kept.size)


def train(training: Groups, validation: Groups, how: Boosting) -> tuple[Any, list[float]]:
    """A LightGBM booster, stopped early by NDCG@10 on the validation groups; LightGBM's own value of it a tree."""
    learn = _data(training)
    judge = lightgbm.Dataset(validation.features, validation.grade, group=validation.size, reference=learn)
    curve: dict[str, dict[str, list[float]]] = {}
    calls: list[Any] = [lightgbm.record_evaluation(curve), lightgbm.early_stopping(PATIENCE, verbose=False), _tell]
    booster = lightgbm.train(
        _parameters(how), learn, how.max_trees, valid_sets=[judge], valid_names=["lightgbm"], callbacks=calls
    )
    return booster, curve["lightgbm"][f"ndcg@{NDCG_AT}"]


def refit(groups: Groups, trees: int, how: Boosting) -> Any:
    """A booster of so many trees, learned from all groups: those that told when to stop are the newest."""
    return lightgbm.train(_parameters(how), _data(groups), trees)


def first(booster: Any, trees: int) -> Any:
    """A booster of the first trees of another: the same as one that was grown no further."""
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=trees))


def _data(groups: Groups) -> Any:
    return lightgbm.Dataset(groups.features, groups.grade, group=groups.size, feature_name=list(FEATURES))


def _parameters(how: Boosting) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [NDCG_AT],
        "lambdarank_truncation_level": NDCG_AT + 5,
        "num_leaves": how.leaves,
        "learning_rate": how.shrinkage,
        "min_data_in_leaf": 20,
        "bagging_by_query": True,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": 0.8,
        "seed": how.seed,
        "num_threads": 1,  # with more, `deterministic` or not, the last bits of the sums change from run to run
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def moves(booster: Any, columns: Floats) -> npt.NDArray[np.float64]:
    """[pairs, features] → [pairs, features]: SHAP values, how far a feature moves a score up, or below 0 down.

    Exact for trees (Lundberg et al. 2018, Consistent individualized feature attribution for tree ensembles): with one
    number that is the same for all pairs, a row's sum is its score.
    """
    found: npt.NDArray[np.float64] = booster.predict(columns, pred_contrib=True, num_threads=1)
    return found[:, :-1]


def contributions(booster: Any, columns: Floats) -> npt.NDArray[np.float64]:
    """[pairs, features] → [features]: mean of |SHAP value|, how far a feature moves a score up or down."""
    mean: npt.NDArray[np.float64] = np.abs(moves(booster, columns)).mean(axis=0)
    return mean


def _tell(environment: Any) -> None:
    """A line every twenty trees."""
    if environment.iteration % 20 == 19:
        log.info(
            "%d trees, LightGBM's own ndcg %.4f", environment.iteration + 1, environment.evaluation_result_list[0][2]
        )


def score(booster: Any, columns: Floats, place: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """[pairs], the ranker's score; without a booster, one that keeps the blend's places [pairs]."""
    return _scores(_trees(booster), columns, place)


def _trees(booster: Any) -> Trees | None:
    return None if booster is None else Trees.of(booster)


def _scores(trees: Trees | None, columns: Floats, place: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    return 1.0 / place.astype(np.float64) if trees is None else trees.scores(columns)


def best(
    booster: Any, pairs: Pairs, histories: Histories, items: ItemTable, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The k best pairs of each list, list by list in order: their positions and scores.

    histories [lists]: those that the pairs' rows count.  Works on `CHUNK` lists at a time, so that their features stay
    in the cache, with a thread a core; the result does not depend on either.
    """
    starts = np.arange(0, len(histories), CHUNK)
    bounds, trees = np.searchsorted(pairs.row, np.append(starts, len(histories))), _trees(booster)

    def chunk(start: int, low: int, high: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        part = pairs.between(low, high, start)
        mine = histories.take(np.arange(start, min(start + CHUNK, len(histories))))
        scores = _scores(trees, features(part, mine, items), part.place)
        position, _ = ranked(part, scores, k)
        return position + low, scores[position]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(chunk, starts.tolist(), bounds[:-1].tolist(), bounds[1:].tolist()))
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    positions, scores = zip(nothing, *found, strict=True)
    return np.concatenate(positions), np.concatenate(scores)


def ranked(
    pairs: Pairs, score: npt.NDArray[np.floating], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The k best pairs of each list: their positions, list by list in order, and their ranks from 0.

    Best score first, ties by the place in the blend; a score of −∞ is out.
    """
    order = np.lexsort((pairs.place, -score, pairs.row))
    row = pairs.row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row, "left")
    kept = (rank < k) & (score[order] > -np.inf)
    return order[kept], rank[kept]


def lists(pairs: Pairs, score: npt.NDArray[np.floating], rows: int, k: int) -> Ints:
    """Items of the k best pairs of each of the lists 0 … rows − 1: [rows, k], −1 where a list ends early."""
    position, rank = ranked(pairs, score, k)
    found = np.full((rows, k), -1, dtype=np.int32)
    found[pairs.row[position], rank] = pairs.item[position]
    return found
