"""The planted optimum: what somebody would recommend who knows what the demo data are made from.

At the cut this oracle knows each visitor's tastes and past, every item's kind, popularity, stock and life so far, and
every chance that the generator draws with.  It does not know what the generator drew after the cut: when visitors came
and how often, what they looked at, where popularity, stock and lives went.  It orders by the chance that an item is in
what the visitor does in the window:

    returns    when a visitor comes is drawn many times, each time as another visitor came, of a shop of full size made
               with another seed, who had looked about as often by the cut and last about as long ago, and who came in
               the window.  Which of these views are returns, and to what, the generator's own code draws.
    meetings   the other views are of items that are new to the visitor, of the kinds that they like, by what each item
               is expected to weigh in the week of the view.
    chance     the share `noise` of all views is of any item, by popularity.

Left out: that views of a visit share a taste, that a cart is one more event of its item, and that a relevant item
weighs the more in recall the fewer there are (weighing it so changed no figure by more than 0.005).  Of the past the
oracle knows one thing that nobody could: which events chance has replaced, but not what they would have been.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from benchmarks.planted_windows import Past, Window, drawn_views, expected, memories, survival
from tasks.recsys.interactions import Interactions
from tasks.recsys.interactions import Ints as Rows
from tasks.recsys.synthetic import (
    COMES_BACK,
    DAY,
    FULL_VISITORS,
    SELLS_OUT,
    START,
    WEEK,
    WEEKS,
    Bools,
    Floats,
    Ints,
    Shop,
)
from tasks.recsys.synthetic_events import (
    COMPLEMENT,
    DRIFT_KEPT,
    DRIFT_STEP,
    OUT_OF_STOCK,
    SECOND_IS_PARTNER,
    TASTES,
    VISITORS_A_BLOCK,
    WANDER,
    Odds,
    alive_popularity,
    draw_tastes,
    drifting_odds,
    drifts,
    odds_of,
)

OPTIMUM = "planted optimum"
OF_KNOWN = "planted: known items only"
OF_PAST = "planted: and tastes read off"
OF_COUNTS = "planted: and weights counted"
BOUNDS = (OPTIMUM, OF_KNOWN, OF_PAST, OF_COUNTS)
HALF_LIFE = 14 * DAY
"""An interaction counts half as much after it; 5 to 14 days find the same."""
VISITORS = 200
"""Visitors whose lists are ordered at a time."""
CLUSTERS = 128
"""Clusters, of whose triples each is weighed, at most: those of 0.03 of full size."""


def lists(
    shop: Shop, visitors: Ints, items: Ints, known: Interactions, window: tuple[int, int], depth: int
) -> Iterator[tuple[str, Rows]]:
    """Lists [visitors, depth] of dense ids for the window start ≤ time < end (UTC ms), by who knows less and less.

    visitors: ids, each with a view before the window; items: [items] itemid of each dense id; known: what was before
    the window.  First the optimum, of all items that are alive whether or not somebody has met them; then of those that
    somebody has met; then by somebody who reads the visitors' tastes off what they did; then who counts, of each item,
    how often it was met of late, and knows neither its weight nor whether it is alive.
    """
    # What nobody ever meets is numbered beyond the others.
    dense = np.append(len(items) + np.arange(shop.sold), -1).astype(np.int32)
    dense[np.argsort(shop.item_id)[items]] = np.arange(len(items))
    order = np.argsort(visitors)
    week = (window[0] - START) // WEEK
    past = memories(shop, visitors[order], window[0])
    ahead = expected(shop, past, *drawn_views(shop, past, *window), week)
    weights, counted = forecast(shop, week), (counts(known, window[0], dense[:-1]),) * 2
    alive, met = alive_popularity(shop, week) > 0, dense[:-1] < known.items
    tastes = liked(shop, planted_tastes(shop)[visitors[order]])
    bounds = [(OPTIMUM, tastes, alive, weights), (OF_KNOWN, tastes, alive & met, weights)]
    if len(shop.cluster_appeal) <= CLUSTERS:
        read = read_tastes(shop, past)
        bounds += [(OF_PAST, read, alive & met, weights), (OF_COUNTS, read, met, counted)]
    for name, likes, may, (taken, by_chance) in bounds:
        found = best(shop, ahead, likes, week, may, taken, by_chance, depth)
        yield name, dense[found][np.argsort(order)]


def counts(known: Interactions, cut: int, dense: Rows) -> Floats:
    """[WEEKS, sold] how often each item was met before the cut, the older the less; dense: [sold] dense ids."""
    weight = np.bincount(known.item, 0.5 ** ((cut - known.time) / HALF_LIFE), known.items)
    return np.tile(np.append(weight, 1e-9)[np.minimum(dense, known.items)], (WEEKS, 1))


def best(
    shop: Shop, window: Window, tastes: Floats, week: int, may: Bools, taken: Floats, by_chance: Floats, depth: int
) -> Ints:
    """[visitors, depth] the items that are likeliest in the window, of those [sold] that may be named; -1 after them.

    tastes: [visitors, clusters] chance that a visit is for the cluster; taken, by_chance: [WEEKS, sold] what the items
    weigh for who has a taste, and when chance decides.
    """
    odds, found = odds_of(shop, taken), []
    # What dies gives way to as much that is born.
    left = by_chance.sum(axis=1) / by_chance[week].sum()
    by_chance = by_chance * shop.config.noise / by_chance[week].sum()
    for first in range(0, len(tastes), VISITORS):
        rows = slice(first, first + VISITORS)
        new = window.views[rows] @ by_chance
        for ahead in range(week, WEEKS):
            new += left[ahead] * window.met[rows, ahead, None] * planted_affinity(shop, odds, tastes[rows], ahead)
        back = window.returned[rows].toarray()
        score = np.where(may, back - (1 - back) * np.expm1(-new), 0.0)
        order = np.argsort(-score, axis=1, kind="stable")[:, :depth]
        found.append(np.where(may[order], order, -1))
    return np.concatenate(found)


def read_tastes(shop: Shop, past: Past) -> Floats:
    """[visitors, clusters] chance that a visit is for the cluster, by what the visitor has met: exact, by Bayes.

    A triple of tastes has the chance that it is dealt times, for each visit, the chance of what was met in it.
    """
    appeal, odds = shop.cluster_appeal, drifting_odds(shop)
    dealt = (1 - SECOND_IS_PARTNER) * np.outer(appeal, appeal)
    dealt[np.arange(len(appeal)), shop.cluster_partner] += SECOND_IS_PARTNER * appeal
    found = np.zeros((len(past.start) - 1, len(appeal)))
    for row, (low, high) in enumerate(pairwise(past.start)):
        views = low + np.unique(past.item[low:high], return_index=True)[1]
        views = views[past.item[views] >= 0]
        chance = dealt[:, :, None] * appeal
        for visit in np.unique(past.visit[views]):
            of = views[past.visit[views] == visit]
            said = np.sum([np.log(_met(shop, odds, past.week[view], past.item[view])) for view in of], axis=0)
            first, second, third = np.outer(TASTES, np.exp(said - said.max()))
            chance *= first[:, None, None] + second[:, None] + third
            chance /= chance.sum()
        each = [chance.sum(axis=(1, 2)), chance.sum(axis=(0, 2)), chance.sum(axis=(0, 1))]
        found[row] = TASTES @ np.stack(each) / chance.sum()
    return found


def _met(shop: Shop, odds: Odds, week: int, item: int) -> Floats:
    """[clusters] chance to meet the item in a visit for the cluster."""
    cluster, start = shop.item_cluster[item], week * shop.sold
    low, high = odds.running[start + shop.first_sold[cluster : cluster + 2]]
    weight = odds.running[start + item + 1] - odds.running[start + item]
    kind = np.eye(1, len(shop.cluster_appeal), cluster)[0]
    share = (1 - WANDER - COMPLEMENT) * kind + COMPLEMENT * kind[shop.cluster_partner]
    chance: Floats = share * weight / (high - low) + WANDER * weight / (
        odds.running[start + shop.sold] - odds.running[start]
    )
    return chance


def forecast(shop: Shop, week: int) -> tuple[Floats, Floats]:
    """[WEEKS, sold] expected weights, from `week` on, of the items alive in it: as in drifting and as in fixed odds."""
    ahead = np.maximum(np.arange(WEEKS) - week, 0)[:, None]
    kept = DRIFT_KEPT**ahead
    spread = DRIFT_STEP**2 * (1 - kept**2) / (1 - DRIFT_KEPT**2)
    usual = COMES_BACK / (SELLS_OUT + COMES_BACK)
    stock = usual + (shop.available[week, : shop.sold] - usual) * (1 - SELLS_OUT - COMES_BACK) ** ahead
    fixed = alive_popularity(shop, week) * survival(shop, week)
    rise = np.exp(kept * drifts(shop)[week] + spread / 2)
    return fixed * (OUT_OF_STOCK + (1 - OUT_OF_STOCK) * stock) * rise, fixed


def planted_tastes(shop: Shop) -> Ints:
    """[visitors, 3] clusters that every visitor likes, best first; the row is the visitorid."""
    total = shop.config.sized(FULL_VISITORS)
    firsts = range(0, total, VISITORS_A_BLOCK)
    return np.concatenate(
        [draw_tastes(shop, block, min(VISITORS_A_BLOCK, total - first)) for block, first in enumerate(firsts)]
    )


def liked(shop: Shop, tastes: Ints) -> Floats:
    """[visitors, clusters] chance that a visit is for the cluster, by `tastes` [visitors, 3]."""
    found = np.zeros((len(tastes), len(shop.cluster_appeal)))
    np.add.at(found, (np.arange(len(tastes))[:, None], tastes), TASTES)
    return found


def planted_affinity(shop: Shop, odds: Odds, tastes: Floats, week: int) -> Floats:
    """[visitors, sold] chance that a newly met item of the week is this one, by `tastes` [visitors, clusters].

    The best that anybody can know of what is new to a visitor; what was seen before comes back on top of it.
    """
    weight = np.diff(odds.running[week * shop.sold : (week + 1) * shop.sold + 1])
    cluster = shop.item_cluster[: shop.sold]
    inside = weight / np.maximum(np.bincount(cluster, weight, len(shop.cluster_appeal)), 1e-300)[cluster]
    share = (1 - WANDER - COMPLEMENT) * tastes
    # Every cluster complements one other.
    share[:, shop.cluster_partner] += COMPLEMENT * tastes
    affinity: Floats = share[:, cluster] * inside + WANDER * weight / weight.sum()
    return affinity
