"""What a list of recommendations is worth: one number a user, then a mean with an interval.

Lists are [users, k]: best first, no repeats within a row, -1 where a list ends early. `truth` has the same users in
the same order. `hits` is computed once and every metric reads it; a metric stays per user, so that it can be
bootstrapped, paired with another model's, or averaged over any subset of the users.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tasks.recsys.interactions import Ints, Longs, Truth

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

CELLS = 1 << 18
"""Cells of lists read at a time: they stay in the cache."""
GROUPS = 1_000
"""Groups of users that are resampled whole."""
DRAWN = 32
"""Resamples summed at a time: they stay in the cache."""


@dataclass(frozen=True)
class Hits:
    """Where the relevant items are in their users' lists."""

    rank: Ints
    """[pairs] of the truth, from 1; 0 where the list lacks the item"""
    depth: int
    """length of the lists"""

    def where(self, keep: Bools) -> "Hits":
        """Those of the pairs [pairs] that are kept."""
        return Hits(self.rank[keep], self.depth)


def hits(lists: Ints, truth: Truth, list_of: Longs | None = None) -> Hits:
    """[lists, k] → the rank of each relevant item [pairs] in its own user's list.

    list_of: [users] number of each user's list, where users share them; None: lists are in the order of the users.
    Each relevant item is compared with its own user's list only: the cost is relevant items × k, however many users
    and items there are.
    """
    number = len(lists) if list_of is None else len(list_of)
    if number != len(truth):
        raise ValueError(f"{number} lists for {len(truth)} users of the truth: give each user a list, in its order")
    rank = np.zeros(len(truth.item), dtype=np.int32)
    rows = truth.row if list_of is None else list_of[truth.row]
    width = max(1, lists.shape[1])
    step = max(1, CELLS // width)
    for start in range(0, len(rows), step):
        same = lists[rows[start : start + step]] == truth.item[start : start + step, None]
        pair, place = np.divmod(np.flatnonzero(same), width)
        rank[start + pair] = place + 1
    return Hits(rank, lists.shape[1])


def recall_at(hit: Hits, truth: Truth, k: int) -> Doubles:
    """[pairs] → [users]: hits in the top k / all relevant items, those that no catalogue knew included."""
    return _sum(_top(hit, k), truth) / _relevant(truth)


def hit_rate_at(hit: Hits, truth: Truth, k: int) -> Doubles:
    """[pairs] → [users]: 1 if there is a hit in the top k, else 0."""
    return np.minimum(_sum(_top(hit, k), truth), 1.0)


def reciprocal_rank_at(hit: Hits, truth: Truth, k: int) -> Doubles:
    """[pairs] → [users]: 1 / the rank of the first hit, counted from 1; 0 if there is none in the top k.

    Its mean over users is the mean reciprocal rank, MRR@k.
    """
    best = np.zeros(len(truth))
    np.maximum.at(best, truth.row, np.where(_top(hit, k), 1.0 / np.maximum(hit.rank, 1), 0.0))
    return best


def ndcg_at(hit: Hits, truth: Truth, k: int) -> Doubles:
    """[pairs] → [users]: Σ over hits in the top k of 1 / log2(rank + 1), over the most it could be.

    The most is the sum over ranks 1 … min(k, number of relevant items): relevant items that the list lacks count as
    misses, and a list without a hit is worth 0. LightGBM's own `ndcg` differs: it sees only the candidates it is
    given and counts a group without a positive as 1, which lifts its mean towards 1 for any order at all.
    """
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))[np.minimum(k, _relevant(truth)) - 1]
    discount = 1.0 / np.log2(np.maximum(hit.rank, 1) + 1.0)
    ndcg: Doubles = _sum(np.where(_top(hit, k), discount, 0.0), truth) / ideal
    return ndcg


def _top(hit: Hits, k: int) -> Bools:
    if not 1 <= k <= hit.depth:
        raise ValueError(f"a metric at {k} of lists of {hit.depth}: ask for 1 … {hit.depth} or give longer lists")
    return (hit.rank > 0) & (hit.rank <= k)


def _sum(values: npt.NDArray[np.generic], truth: Truth) -> Doubles:
    """[pairs] → [users]: the sum of each user's."""
    total: Doubles = np.bincount(truth.row, weights=values, minlength=len(truth)).astype(np.float64)
    return total


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
    total = np.append(popularity, 0)[top].sum(axis=1)  # -1 is the last, which is 0
    length = np.count_nonzero(top >= 0, axis=1)
    return np.where(length > 0, total / np.maximum(length, 1), np.nan)


def popularity_bias(average: Doubles, popularity: npt.NDArray[np.integer]) -> float | None:
    """[users] average popularity of lists, [items] → its mean over users / that of an interaction's item.

    An interaction's item has Σ popularity² / Σ popularity on average. 1: lists are as popular as what people do by
    themselves; above: they push the popular further. None where there is no list or no interaction.
    """
    average = average[~np.isnan(average)]
    squares = float((popularity.astype(np.float64) ** 2).sum())
    return float(average.mean() / squares * popularity.sum()) if len(average) and squares else None


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

    def __str__(self) -> str:
        value = "none" if self.value is None else f"{self.value:.4f}"
        interval = "" if self.low is None else f" [{self.low:.4f}, {self.high:.4f}]"
        return f"{value}{interval}, n {self.n:,}"


def estimate(values: Doubles, resamples: int = 1000, seed: int = 0) -> Mean:
    """[users]: their mean and its 95 % percentile bootstrap interval; NaN is a user who does not count."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Mean(None, None, None, 0)
    if len(values) == 1:
        return Mean(float(values[0]), None, None, 1)
    means = _drawn(values, resamples, seed) / _users_drawn(len(values), resamples, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    return Mean(float(values.mean()), float(low), float(high), len(values))


def paired(a: Doubles, b: Doubles, resamples: int = 1000, seed: int = 0) -> Mean:
    """[users], [users] of the same users: the mean of a - b and its interval; a is better if `low` is above 0."""
    return estimate(a - _same(a, b), resamples, seed)


def ratio(a: Doubles, b: Doubles, resamples: int = 1000, seed: int = 0) -> Mean:
    """[users], [users] of the same users: mean of a / mean of b and its interval; a is better if `low` is above 1."""
    if not _same(a, b).any():
        return Mean(None, None, None, len(a))
    below = _drawn(b, resamples, seed)
    found = (_drawn(a, resamples, seed) / np.where(below > 0, below, np.nan))[below > 0]
    low, high = np.quantile(found, [0.025, 0.975])
    return Mean(float(a.mean() / b.mean()), float(low), float(high), len(a))


def _same(a: Doubles, b: Doubles) -> Doubles:
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values paired with {len(b)}: give both for the same users in the same order")
    return b


def _drawn(values: Doubles, resamples: int, seed: int) -> Doubles:
    """[n] → [resamples]: sums over as many groups drawn with replacement, the same draws for the same seed."""
    groups = min(len(values), GROUPS)
    group = np.bincount(_group(len(values), seed), values, groups)
    draws = _draws(groups, resamples, seed)
    parts = [(draws[at : at + DRAWN] * group).sum(axis=1) for at in range(0, resamples, DRAWN)]
    return np.concatenate(parts)


@lru_cache(maxsize=32)
def _users_drawn(users: int, resamples: int, seed: int) -> Doubles:
    """[resamples]: how many users the drawn groups have together."""
    return _drawn(np.ones(users), resamples, seed)


@lru_cache(maxsize=32)
def _group(users: int, seed: int) -> Longs:
    """[users]: which of at most `GROUPS` groups chance has put each in.

    Of few users each is a group of its own, and resampling groups is the usual bootstrap. Of many, groups made by
    chance vary as the users in them do, so the interval is as wide; it only rests on `GROUPS` - 1 degrees of freedom.
    """
    return np.random.default_rng(seed).permutation(users) % min(users, GROUPS)


@lru_cache(maxsize=4)
def _draws(groups: int, resamples: int, seed: int) -> Doubles:
    """[resamples, groups]: how often each group is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), resamples).astype(np.float64)


def verdict(difference: Mean) -> str:
    """A paired difference in words, at the 95 % level."""
    if difference.low is None or difference.high is None:
        return "too few users to tell"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no difference shown"
