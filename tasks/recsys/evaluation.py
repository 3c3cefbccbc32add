"""Recall of lists on what users did after a cut, for whom it can be asked, beside what simple methods reach."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tasks.recsys import metrics
from tasks.recsys.interactions import CART, TRANSACTION, VIEW, Histories, Interactions, Truth, histories, truth_between
from tasks.recsys.metrics import Bools, Doubles, Hits, Mean

DEPTHS = (10, 20, 50, 100, 300)
HEADLINE = 50
COLD = 5
"""Interactions before the cut below which an item counts as cold."""


@dataclass(frozen=True)
class Question:
    """Who is asked, as of a cut, and what they did in the window after it."""

    asked: Histories
    """[users], warm: each has a history before the cut and something relevant after it"""
    truth: Truth
    """[users], all distinct items of the window; repeats of the history allowed"""
    unseen: Bools
    """[pairs] of the truth: items that are not in the user's whole past"""
    in_catalogue: Bools
    """[pairs] of the truth: items that were known before the cut, so that they could be found at all"""
    cold_items: Bools
    """[pairs] of the truth: items that were known before the cut, by fewer than `COLD` interactions"""
    catalogue: int
    """items known before the cut"""
    cold: Truth
    """[cold users], without a history before the cut"""


def question(interactions: Interactions, cut: int, end: int, cap: int) -> Question:
    """What can be asked as of a cut, answered by cut ≤ time < end; histories hold the newest `cap` interactions."""
    known = interactions.before(cut)
    everybody = truth_between(interactions, cut, end)
    warm = (np.bincount(known.user, minlength=interactions.users) > 0)[everybody.user]
    truth = everybody.where(warm[everybody.row])
    theirs = np.bincount(truth.user, minlength=interactions.users)[known.user] > 0
    past = known.user[theirs].astype(np.int64) * max(interactions.items, 1) + known.item[theirs]
    past = np.append(np.sort(past), -1)  # behind the last one: no pair
    pairs = truth.user[truth.row].astype(np.int64) * max(interactions.items, 1) + truth.item
    met = np.bincount(known.item, minlength=known.items + 1)
    return Question(
        asked=histories(interactions, cut, cap, truth.user),
        truth=truth,
        unseen=past[np.searchsorted(past[:-1], pairs)] != pairs,
        in_catalogue=truth.item < known.items,
        cold_items=(truth.item < known.items) & (met[np.minimum(truth.item, known.items)] < COLD),
        catalogue=known.items,
        cold=everybody.where(~warm[everybody.row]),
    )


def next_items(interactions: Interactions, cut: int, end: int, cap: int) -> tuple[Histories, Truth]:
    """Each user's last interaction of cut ≤ time < end, asked for from the newest `cap` of those before it.

    It asks also those who came after the cut, the only ones there are in a shop whose visitors do not come back.
    """
    known = interactions.before(end)
    last = np.flatnonzero(np.append(known.user[1:] != known.user[:-1], True)[: len(known)])
    length = np.diff(last, prepend=-1) - 1
    asked = (known.time[last] >= cut) & (length > 0)
    last, length = last[asked], np.minimum(length[asked], cap)
    start = np.append(0, np.cumsum(length))
    row = np.arange(start[-1]) + np.repeat(last - length - start[:-1], length)
    user, one_each = known.user[last], np.arange(len(last) + 1)
    histories = Histories(user, start, known.item[row], known.event[row], known.time[row])
    return histories, Truth(user, one_each, known.item[last], known.event[last])


def populations(asked: Question) -> Mapping[str, Bools]:
    """Name → pairs [pairs] of the truth that count: all of them first, then the usual cuts through them."""
    event = asked.truth.event
    return {
        "": np.ones(len(event), dtype=bool),
        "unseen": asked.unseen,
        "in_catalogue": asked.in_catalogue,
        "cold_items": asked.cold_items,
        "views": event == VIEW,
        "carts": event == CART,
        "transactions": event == TRANSACTION,
        "carts_and_transactions": event >= CART,
    }


def per_user(hit: Hits, truth: Truth) -> dict[str, Doubles]:
    """Every metric of the hits [pairs], one value a user [users]."""
    values = {f"recall_at_{k}": metrics.recall_at(hit, truth, k) for k in DEPTHS if k <= hit.depth}
    values["ndcg_at_10"] = metrics.ndcg_at(hit, truth, 10)
    values["mrr_at_20"] = metrics.reciprocal_rank_at(hit, truth, 20)
    values["hit_rate_at_20"] = metrics.hit_rate_at(hit, truth, 20)
    return values


def of_population(hit: Hits, truth: Truth, counts: Bools) -> dict[str, Doubles]:
    """`per_user` on the pairs [pairs] that count, for the users who have one."""
    return per_user(hit.where(counts), truth.where(counts))


def estimates(values: Mapping[str, Doubles], resamples: int, seed: int) -> dict[str, Mean]:
    """Each metric's mean and interval."""
    return {name: metrics.estimate(value, resamples, seed) for name, value in values.items()}


LOSSES = ("item_not_in_catalogue", "user_without_history", "not_in_300", "in_300_not_in_50", "found")
"""What became of a relevant (user, item) pair, the first that holds."""


def losses(hit: Hits, asked: Question) -> dict[str, float]:
    """Where recall is lost: each outcome's share of all relevant pairs, of warm and of cold users; they add up to 1.

    `hit` [pairs] of the truth, of lists of 300. Nothing where there is no pair.
    """
    unknown = int((~asked.in_catalogue).sum() + (asked.cold.item >= asked.catalogue).sum())
    cold = int((asked.cold.item < asked.catalogue).sum())
    rank = hit.rank[asked.in_catalogue]
    count = (unknown, cold, int((rank == 0).sum()), int((rank > HEADLINE).sum()))
    pairs = len(asked.truth.item) + len(asked.cold.item)
    found = pairs - sum(count)
    return {name: number / pairs for name, number in zip(LOSSES, (*count, found), strict=True)} if pairs else {}
