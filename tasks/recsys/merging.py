"""Learns how much each source counts in the blend, on a window that nobody is later judged on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.recsys.candidates import SMOOTHING, WEIGHTS, Named, Weights, merged
from tasks.recsys.interactions import Ints, Longs, Truth

FACTORS = (0.25, 0.5, 0.7, 1.4, 2.0, 4.0)
"""What a weight is multiplied by in a step of the search."""
PASSES = 3
PRIOR = 250
"""Lists with a relevant item that say as much as the weights at the start do."""


@dataclass(frozen=True)
class Pool:
    """All that the sources name for those who have a relevant item among it, an entry a (list, item)."""

    shares: Sequence[npt.NDArray[np.float32]]
    """of each source, [entries]: 1 / (smoothing + rank), 0 where it does not name the item"""
    start: Longs
    """[positives], first entry of each positive's list; the entries are repeated for each positive of a list"""
    positive: Longs
    """[positives], its own entry"""
    of: Longs
    """[entries], number of the positive"""
    share: npt.NDArray[np.float64]
    """[positives], 1 / (relevant items of its user · users)"""
    lists: int
    """those with a positive"""


def learn(lists: Sequence[Ints], truth: Truth, weights: Weights = WEIGHTS) -> Weights:
    """Weights of the sources' lists [users, depth] that find more of the truth [users]; `weights` are the start.

    Climbs recall@50 + (recall@20 + recall@300) / 2, one weight at a time, by the factors that help, until none does:
    recall is a step function without a gradient, and there are few weights. What n lists with a relevant item say is
    then shrunk, in logarithms, by n / (n + `PRIOR`) towards the start, which a few hundred users overrule by chance.
    The same input gives the same weights.
    """
    pool = _pool(lists, truth)
    if not len(pool.positive):
        return weights
    start, best = weights, _value(pool, weights)
    for _ in range(PASSES):
        before = best
        for source in range(len(weights)):
            tried = [(*weights[:source], weights[source] * by, *weights[source + 1 :]) for by in FACTORS]
            value, found = max(((_value(pool, one), one) for one in tried), key=lambda pair: pair[0])
            if value > best:
                best, weights = value, found
        if best == before:
            break
    share = pool.lists / (pool.lists + PRIOR)
    return tuple(round(old * (new / old) ** share, 4) for old, new in zip(start, weights, strict=True))


def _value(pool: Pool, weights: Weights) -> float:
    """What is climbed: recalls of the blend by these weights, ties counted against it."""
    gain = np.zeros(len(pool.of), dtype=np.float32)
    for weight, share in zip(weights, pool.shares, strict=True):
        gain += np.float32(weight) * share
    above = gain >= gain[pool.positive][pool.of]
    rank = np.add.reduceat(above.astype(np.int32), pool.start) - 1
    return sum(by * float(pool.share[rank < k].sum()) for k, by in ((20, 0.5), (50, 1.0), (300, 0.5)))


def _pool(lists: Sequence[Ints], truth: Truth) -> Pool:
    named = merged(lists)
    row, place = np.nonzero(named.first)
    width = max(int(named.item[named.first].max(initial=0)), int(truth.item.max(initial=0))) + 1
    relevant = np.isin(row * width + named.item[row, place], truth.row * width + truth.item)
    start = np.searchsorted(row, np.arange(len(truth) + 1))
    positive = np.flatnonzero(relevant)
    low, length = start[row[positive]], np.diff(start)[row[positive]]
    begin = np.cumsum(length) - length
    of = np.repeat(np.arange(len(positive)), length)
    entry = np.arange(len(of)) + np.repeat(low - begin, length)
    users = 1.0 / (np.diff(truth.start)[row[positive]] * max(len(truth), 1))
    shares = [share[entry] for share in _shares(named, [one.shape[1] for one in lists])]
    return Pool(shares, begin, begin + positive - low, of, users, len(np.unique(row[positive])))


def _shares(named: Named, depths: Sequence[int]) -> list[npt.NDArray[np.float32]]:
    """Of each source, [named items]: 1 / (smoothing + rank), 0 where it does not name the item."""
    row, place = np.nonzero(named.first)
    shares = [np.zeros(len(row), dtype=np.float32) for _ in depths]
    for step in range(len(depths)):
        at = np.minimum(place + step, named.item.shape[1] - 1)
        same = (at == place + step) & (named.item[row, at] == named.item[row, place])
        column, low = named.column[row, at], 0
        for share, depth in zip(shares, depths, strict=True):
            said = same & (column >= low) & (column < low + depth)
            share[said] = 1.0 / (SMOOTHING + column[said] - low + 1)
            low += depth
    return shares
