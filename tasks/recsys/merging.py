"""Learns what each source's rank says for an item in the blend, on a window that nobody is later judged on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.recsys import metrics
from tasks.recsys.candidates import CURVES, Curves, blend, shapes
from tasks.recsys.interactions import Ints, Truth

Doubles = npt.NDArray[np.float64]

PRIOR = 20.0
"""Lists with a relevant item that say as much as the curves at the start do."""
STEPS = 100
POWERS = (1.0, 0.8, 0.65, 0.5, 0.35)
"""Of the likeliest coefficients; below 1 the weaker sources have more say."""


def learn(lists: Sequence[Ints], truth: Truth, curves: Curves = CURVES) -> Curves:
    """Curves of the sources' lists [users, depth] that explain the truth [users] best; `curves` are the start.

    An item that a user takes is drawn from one of the sources by one of the `shapes`, each with a probability, which is
    its coefficient: a mixture (a linear opinion pool: Genest, Zidek 1986), whose most likely coefficients come
    by expectation and maximization (Dempster, Laird, Rubin 1977).  A user counts once, however many items were taken,
    and the start as `PRIOR` users; items that no source names say nothing.  The likeliest mixture leaves nearly all to
    the best source, though what several name is worth more: of its `POWERS` the one with the best NDCG of whole lists
    is taken.  The same input gives the same curves.
    """
    odds, user = _odds(lists, truth)
    if not len(odds):
        return curves
    share = 1.0 / np.bincount(user)[user]
    start = np.array(curves).ravel() / np.sum(curves)
    mixture = start
    for _ in range(STEPS):
        mixture = _likelier(mixture, odds, share, start)
    return max((_curves(mixture**power) for power in POWERS), key=lambda one: _ndcg(lists, truth, one))


def _curves(coefficients: Doubles) -> Curves:
    """[sources · shapes], in any unit."""
    share = coefficients / coefficients.sum()
    return tuple((round(first, 5), round(second, 5)) for first, second in share.reshape(-1, 2).tolist())


def _ndcg(lists: Sequence[Ints], truth: Truth, curves: Curves) -> float:
    """Mean NDCG of the blend's lists, as long as the longest of the sources'."""
    depth = max(one.shape[1] for one in lists)
    unscored = [np.zeros(one.shape, dtype=np.float32) for one in lists]
    found = blend(lists, unscored, depth, curves).item
    return float(metrics.ndcg_at(metrics.hits(found, truth), truth, depth).mean())


def _likelier(mixture: Doubles, odds: Doubles, share: Doubles, start: Doubles) -> Doubles:
    """One step of expectation and maximization from a mixture [sources · shapes]; share [taken]: what each counts."""
    by = odds * mixture
    by *= (share / by.sum(axis=1))[:, None]
    found: Doubles = by.sum(axis=0) + PRIOR * start
    found /= found.sum()
    return found


def _odds(lists: Sequence[Ints], truth: Truth) -> tuple[Doubles, Ints]:
    """[taken, sources · shapes] how likely each shape of each source is to give an item, and whose it is [taken].

    Of the truth's items that a source names at all.
    """
    odds = []
    for named in lists:
        place = named[truth.row] == truth.item[:, None]
        of_rank = shapes(named.shape[1])
        odds.append(np.where(place.any(axis=1)[:, None], of_rank[place.argmax(axis=1)], 0.0))
    found = np.concatenate(odds, axis=1)
    named_at_all = found.any(axis=1)
    return found[named_at_all], truth.row[named_at_all].astype(np.int32)
