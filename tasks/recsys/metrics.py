"""What a list of recommendations is worth: one number a user, then a mean with an interval.

Lists are [users, k]: best first, no repeats within a row, -1 where a list ends early. `truth` has the same users in
the same order. `hits` is computed once and every metric reads it; a metric stays per user, so that it can be
bootstrapped, paired with another model's, or averaged over any subset of the users.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.recsys.interactions import Ints, Longs, Truth

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

CELLS = 1 << 24
"""Comparisons, or resampled values, held in memory at a time."""


def hits(lists: Ints, truth: Truth) -> Bools:
    """[users, k] → [users, k]: whether the item is one that the user did something with in the window.

    Each relevant item is compared with its own user's list only: the cost is relevant items × k, however many users
    and items there are.
    """
    if len(lists) != len(truth):
        raise ValueError(f"{len(lists)} lists for {len(truth)} users of the truth: give each user a list, in its order")
    hit = np.zeros(lists.shape, dtype=bool)
    rows, step = truth.row, max(1, CELLS // max(1, lists.shape[1]))
    for start in range(0, len(rows), step):
        row, item = rows[start : start + step], truth.item[start : start + step]
        pair, place = np.nonzero(lists[row] == item[:, None])
        hit[row[pair], place] = True
    return hit


def recall_at(hit: Bools, truth: Truth, k: int) -> Doubles:
    """[users, ≥ k] → [users]: hits in the top k / all relevant items, those that no catalogue knew included."""
    recall: Doubles = np.count_nonzero(_top(hit, k), axis=1) / _relevant(truth)
    return recall


def hit_rate_at(hit: Bools, k: int) -> Doubles:
    """[users, ≥ k] → [users]: 1 if there is a hit in the top k, else 0."""
    hit_rate: Doubles = np.any(_top(hit, k), axis=1).astype(np.float64)
    return hit_rate


def reciprocal_rank_at(hit: Bools, k: int) -> Doubles:
    """[users, ≥ k] → [users]: 1 / the rank of the first hit, counted from 1; 0 if there is none in the top k."""
    rank: Longs = 1 + np.argmax(_top(hit, k), axis=1)
    return hit_rate_at(hit, k) / rank


def ndcg_at(hit: Bools, truth: Truth, k: int) -> Doubles:
    """[users, ≥ k] → [users]: Σ over hits in the top k of 1 / log2(rank + 1), over the most it could be.

    The most is the sum over ranks 1 … min(k, number of relevant items): relevant items that the list lacks count as
    misses, and a list without a hit is worth 0. LightGBM's own `ndcg` differs: it sees only the candidates it is
    given and counts a group without a positive as 1, which lifts its mean towards 1 for any order at all.
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(k, _relevant(truth)) - 1]
    ndcg: Doubles = np.where(_top(hit, k), discount, 0.0).sum(axis=1) / ideal
    return ndcg


def _top(hit: Bools, k: int) -> Bools:
    if not 1 <= k <= hit.shape[1]:
        raise ValueError(f"a metric at {k} of lists of {hit.shape[1]}: ask for 1 … {hit.shape[1]} or give longer lists")
    return hit[:, :k]


def _relevant(truth: Truth) -> Longs:
    return np.diff(truth.start)


def coverage(lists: Ints, k: int, items: int) -> float:
    """[users, k]: distinct items in anybody's top k / `items`, the size of the catalogue."""
    top = lists[:, :k]
    return np.count_nonzero(np.bincount(top[top >= 0], minlength=items)) / max(items, 1)


def average_popularity(lists: Ints, k: int, popularity: npt.NDArray[np.integer]) -> Doubles:
    """[users, ≥ k], [items] interactions before the cut → [users]: mean popularity of the items in the top k.

    Its mean over users is the average recommendation popularity, ARP (Yin et al. 2012, Challenging the long tail
    recommendation). An empty list has none: NaN, which `estimate` leaves out.
    """
    top = lists[:, :k]
    filled = top >= 0
    total = np.where(filled, np.append(popularity, 0)[top], 0).sum(axis=1)
    length = filled.sum(axis=1)
    return np.where(length > 0, total / np.maximum(length, 1), np.nan)


@dataclass(frozen=True)
class Mean:
    """A mean over users and the interval of it that resampling the users gives."""

    value: float | None
    """None where there is no user"""
    low: float | None
    """2.5 % of the resampled means are below; None where there is one user, who tells nothing of others"""
    high: float | None
    """2.5 % of the resampled means are above"""
    n: int
    """users averaged over"""


def estimate(values: Doubles, resamples: int = 1000, seed: int = 0) -> Mean:
    """[users]: their mean and its 95 % percentile bootstrap interval; NaN is a user who does not count."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Mean(None, None, None, 0)
    if len(values) == 1:
        return Mean(float(values[0]), None, None, 1)
    means = _resampled(values, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    return Mean(float(values.mean()), float(low), float(high), len(values))


def paired(a: Doubles, b: Doubles, resamples: int = 1000, seed: int = 0) -> Mean:
    """[users], [users] of the same users: the mean of a - b and its interval; a is better if `low` is above 0."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values paired with {len(b)}: give both for the same users in the same order")
    return estimate(a - b, resamples, seed)


def _resampled(values: Doubles, resamples: int, rng: np.random.Generator) -> Doubles:
    """[n] → [resamples]: means of n values drawn with replacement.

    A resample is how often each distinct value was drawn, which is multinomial: metrics have few distinct values, so
    this costs little. Where they have many, drawing the values themselves is cheaper.
    """
    distinct, count = np.unique(values, return_counts=True)
    n, few = len(values), len(distinct) * 10 < len(values)
    step = max(1, CELLS // (len(distinct) if few else n))
    means = np.empty(resamples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if few:
            means[start : start + size] = (rng.multinomial(n, count / n, size) * distinct).sum(axis=1) / n
        else:
            means[start : start + size] = values[rng.integers(n, size=(size, n))].mean(axis=1)
    return means
