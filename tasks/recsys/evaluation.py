"""Recall of lists on what users did after a cut, for whom it can be asked, beside what simple methods reach."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.recsys import metrics
from tasks.recsys.interactions import CART, TRANSACTION, Histories, Interactions, Ints, Truth, histories, truth_between
from tasks.recsys.metrics import Doubles, Mean

DEPTHS = (10, 20, 50, 100, 300)
HEADLINE = 50


@dataclass(frozen=True)
class Question:
    """Who is asked, as of a cut, and what they did in the window after it."""

    asked: Histories
    """[users], warm: each has a history before the cut and something relevant after it"""
    truth: Truth
    """[users], all distinct items of the window; repeats of the history allowed"""
    unseen: npt.NDArray[np.bool_]
    """[pairs] of the truth: items that are not in the user's whole past"""
    in_catalogue: npt.NDArray[np.bool_]
    """[pairs] of the truth: items that were known before the cut, so that they could be found at all"""
    cold: Truth
    """[cold users], without a history before the cut"""


def question(interactions: Interactions, cut: int, end: int, cap: int) -> Question:
    """What can be asked as of a cut, answered by cut ≤ time < end; histories hold the newest `cap` interactions."""
    known = interactions.before(cut)
    everybody = truth_between(interactions, cut, end)
    warm = np.isin(everybody.user, np.unique(known.user))
    truth = everybody.where(warm[everybody.row])
    past = known.user.astype(np.int64) * max(interactions.items, 1) + known.item
    pairs = truth.user[truth.row].astype(np.int64) * max(interactions.items, 1) + truth.item
    return Question(
        asked=histories(interactions, cut, cap, truth.user),
        truth=truth,
        unseen=~np.isin(pairs, past),
        in_catalogue=truth.item < known.items,
        cold=everybody.where(~warm[everybody.row]),
    )


def populations(asked: Question) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Name → pairs [pairs] of the truth that count: all of them first, then the usual cuts through them."""
    event = asked.truth.event
    return {
        "": np.ones(len(event), dtype=bool),
        "unseen": asked.unseen,
        "in_catalogue": asked.in_catalogue,
        "carts": event >= CART,
        "transactions": event >= TRANSACTION,
    }


def per_user(lists: Ints, truth: Truth) -> dict[str, Doubles]:
    """Every metric of lists [users, k], one value a user [users]."""
    hit = metrics.hits(lists, truth)
    values = {f"recall_at_{k}": metrics.recall_at(hit, truth, k) for k in DEPTHS if k <= lists.shape[1]}
    values["ndcg_at_10"] = metrics.ndcg_at(hit, truth, 10)
    values["reciprocal_rank_at_20"] = metrics.reciprocal_rank_at(hit, 20)
    values["hit_rate_at_20"] = metrics.hit_rate_at(hit, 20)
    return values


def of_population(lists: Ints, truth: Truth, counts: npt.NDArray[np.bool_]) -> dict[str, Doubles]:
    """`per_user` on the pairs [pairs] that count, for the users who have one."""
    part = truth.where(counts)
    return per_user(lists[np.searchsorted(truth.user, part.user)], part)


def estimates(values: Mapping[str, Doubles], resamples: int, seed: int) -> dict[str, Mean]:
    """Each metric's mean and interval."""
    return {name: metrics.estimate(value, resamples, seed) for name, value in values.items()}
