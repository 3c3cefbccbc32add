"""Features of a candidate for the ranker: the same code computes them for learning and for serving.

Everything is as of one cut: interactions before it, properties before it, histories up to it.  A feature depends on a
history's items and events and on nothing else of the user, so that users who share a history share its ranked list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.recsys.candidates import COVISITATION, OWN_HISTORY, POPULAR, SOURCES, TWO_TOWER, Floats, Pairs
from tasks.recsys.interactions import CART, Histories, Ints, Longs
from tasks.recsys.statistics import NAMES, SMOOTHING


@dataclass(frozen=True)
class Feature:
    """What a column of the ranker's input says."""

    meaning: str
    unit: str
    reads: str
    """what of the time before the cut it is made of, a key of `READS`"""


READS: Mapping[str, str] = {
    "candidates": "what the sources said as of the cut",
    "history": "the newest interactions before the cut, or before the interaction that is asked for",
    "everything": "all interactions before the cut",
    "14 days": "interactions in the 14 days before the cut",
    "28 days": "interactions in the 28 days before the cut",
    "properties": "the value that is valid at the cut",
}

FEATURES: Mapping[str, Feature] = {
    "place": Feature("place in the blend", "from 1", "candidates"),
    "simple_place": Feature(
        "place in the order of the simple methods: own history, then co-visitation, then popular",
        "from 1",
        "candidates",
    ),
    "own_history_rank": Feature(
        "rank by the user's own history, newest first; missing where it is not in it", "from 1", "candidates"
    ),
    "covisitation_rank": Feature(
        "rank by decayed co-visitation in one step and in two; missing where it was not named", "from 1", "candidates"
    ),
    "two_tower_rank": Feature("rank by the two-tower; missing where it was not named", "from 1", "candidates"),
    "popular_rank": Feature("rank by recent popularity; missing where it was not named", "from 1", "candidates"),
    "covisitation_score": Feature(
        "score of decayed co-visitation in one step and in two; missing where it was not named", "weight", "candidates"
    ),
    "two_tower_score": Feature("score of the two-tower; missing where it was not named", "logit", "candidates"),
    "covisitation_share": Feature(
        "its score of co-visitation over the best of the list; missing where it was not named", "share", "candidates"
    ),
    "two_tower_gap": Feature(
        "its score of the two-tower minus the best of the list; missing where it was not named", "logit", "candidates"
    ),
    "own_count": Feature("interactions of the history with the item", "count", "history"),
    "own_strongest": Feature(
        "strongest event of the history with the item: 0 none, 1 view, 2 cart, 3 transaction", "grade", "history"
    ),
    "own_steps": Feature(
        "steps back to the history's newest interaction with the item; missing where there is none", "steps", "history"
    ),
    "category_count": Feature("interactions of the history with the item's category", "count", "history"),
    "price_ratio": Feature(
        "the item's price over the mean price in the history; missing where either is unknown", "ratio", "history"
    ),
    "history_length": Feature("interactions in the history", "count", "history"),
    "history_carts": Feature("share of carts and transactions in the history", "share", "history"),
    "item_views": Feature("views of the item", "count", "everything"),
    "item_purchases": Feature("transactions of the item", "count", "everything"),
    "item_conversion": Feature(
        "transactions over views of the item, smoothed towards the shop's", "ratio", "everything"
    ),
    "item_recent": Feature("interactions with the item", "count", "14 days"),
    "item_trend": Feature(
        "interactions in the last 7 days over a fourth of those in the last 28, smoothed: 1 is steady",
        "ratio",
        "28 days",
    ),
    "item_age": Feature("time since the item's first interaction", "days", "everything"),
    "price": Feature("price; missing where unknown", "price", "properties"),
}
"""Name → what it says, in the order of the columns."""


@dataclass(frozen=True)
class ItemTable:
    """What is known of the items as of a cut."""

    views: Longs
    """[items], all time"""
    purchases: Longs
    """[items], transactions, all time"""
    recent: Longs
    """[items], interactions in the last 14 days"""
    trend: Floats
    """[items], last 7 days over a fourth of the last 28, smoothed: 1 is steady"""
    age: Floats
    """[items], days since the first interaction"""
    conversion: Floats
    """[items], transactions over views, smoothed towards the shop's"""
    category: Ints
    """[items], −1 where unknown"""
    price: Floats
    """[items], NaN where unknown"""


def item_table(columns: Mapping[str, npt.NDArray[Any]]) -> ItemTable:
    """From what is known of the items as of the cut: columns [items] of `item_statistics`, category and price."""

    def count(horizon: str) -> Longs:
        counts: Longs = np.sum([columns[f"{name}_{horizon}"] for name in NAMES], axis=0, dtype=np.int64)
        return counts

    return ItemTable(
        views=columns["views_all"],
        purchases=columns["transactions_all"],
        recent=count("14d"),
        trend=((4 * count("7d") + SMOOTHING) / (count("28d") + SMOOTHING)).astype(np.float32),
        age=columns["age_days"],
        conversion=columns["conversion"],
        category=columns["category"],
        price=columns["price"],
    )


def features(pairs: Pairs, histories: Histories, items: ItemTable) -> Floats:
    """[pairs, features] in the order of `FEATURES`; `histories` [lists] are those that the pairs' rows count."""
    columns = {
        "place": pairs.place,
        "simple_place": simple_place(pairs),
        **_sources(pairs),
        **_own(pairs, histories),
        **_taste(pairs, histories, items),
        **_item(pairs.item, items),
    }
    return np.stack([np.asarray(columns[name], dtype=np.float32) for name in FEATURES], axis=1)


def simple_place(pairs: Pairs) -> Floats:
    """[pairs]: where an item stands when the sources' lists are laid end to end, the simple ones first."""
    place, behind = np.full(len(pairs), np.inf, dtype=np.float32), 0
    for source in (OWN_HISTORY, COVISITATION, POPULAR, TWO_TOWER):
        rank = pairs.rank[:, SOURCES.index(source)]
        place = np.where(np.isinf(place) & (rank > 0), np.float32(behind) + rank, place)
        behind += source.depth
    return place


def _sources(pairs: Pairs) -> dict[str, Floats]:
    """What each source said; NaN where it did not name the item."""
    columns: dict[str, Floats] = {}
    said = pairs.rank > 0
    for index, source in enumerate(SOURCES):
        columns[f"{source.name}_rank"] = np.where(said[:, index], pairs.rank[:, index], np.nan).astype(np.float32)
    for source in (COVISITATION, TWO_TOWER):
        index = SOURCES.index(source)
        columns[f"{source.name}_score"] = np.where(said[:, index], pairs.score[:, index], np.float32(np.nan))
    near, towers = columns["covisitation_score"], columns["two_tower_score"]
    columns["covisitation_share"] = near / _best_of_list(pairs.row, near)
    columns["two_tower_gap"] = towers - _best_of_list(pairs.row, towers)
    return columns


def _best_of_list(row: Ints, score: Floats) -> Floats:
    """[pairs] lists and scores → [pairs]: the largest score of the pair's list; NaN where it has none."""
    best = np.full(int(row.max(initial=0)) + 1, np.nan, dtype=np.float32)
    np.fmax.at(best, row, score)
    return best[row]


def _own(pairs: Pairs, histories: Histories) -> dict[str, npt.NDArray[np.floating]]:
    """What the history did with the very item."""
    width = max(int(pairs.item.max(initial=0)), int(histories.item.max(initial=0))) + 1
    key, group = np.unique(histories.row * width + histories.item, return_inverse=True)
    count = np.bincount(group, minlength=len(key)).astype(np.float64)
    strongest = np.zeros(len(key))
    np.maximum.at(strongest, group, histories.event + 1.0)
    steps = np.full(len(key), np.inf)
    np.minimum.at(steps, group, histories.age.astype(np.float64))
    wanted = pairs.row.astype(np.int64) * width + pairs.item
    return {
        "own_count": _look_up(key, count, wanted, absent=0),
        "own_strongest": _look_up(key, strongest, wanted, absent=0),
        "own_steps": _look_up(key, steps, wanted, absent=np.nan),
    }


def _taste(pairs: Pairs, histories: Histories, items: ItemTable) -> dict[str, npt.NDArray[np.floating]]:
    """What the history says of the item's category and price."""
    known = histories.where(histories.item < len(items.category))
    category, price = items.category[known.item], items.price[known.item]
    width = int(items.category.max(initial=0)) + 2
    key, count = np.unique(known.row * width + category, return_counts=True)
    mine = items.category[pairs.item]
    same = _look_up(key, count.astype(np.float64), pairs.row.astype(np.int64) * width + mine, absent=0)
    priced = ~np.isnan(price)
    total = np.bincount(known.row[priced], weights=price[priced], minlength=len(histories))
    number = np.bincount(known.row[priced], minlength=len(histories))
    mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    carts = np.bincount(histories.row, weights=histories.event >= CART, minlength=len(histories))
    length = histories.length.astype(np.float64)
    return {
        "category_count": np.where(mine >= 0, same, 0),
        "price_ratio": items.price[pairs.item] / np.where(mean > 0, mean, np.nan)[pairs.row],
        "history_length": length[pairs.row],
        "history_carts": (carts / np.maximum(length, 1))[pairs.row],
    }


def _item(item: Ints, items: ItemTable) -> dict[str, npt.NDArray[np.generic]]:
    """What is known of the item, whoever asks."""
    return {
        "item_views": items.views[item],
        "item_purchases": items.purchases[item],
        "item_conversion": items.conversion[item],
        "item_recent": items.recent[item],
        "item_trend": items.trend[item],
        "item_age": items.age[item],
        "price": items.price[item],
    }


def _look_up(keys: Longs, values: npt.NDArray[np.float64], wanted: Longs, absent: float) -> npt.NDArray[np.float64]:
    """The value of each wanted key [n] among the ascending keys [m] with values [m]; `absent` where it is not there."""
    at = np.searchsorted(keys, wanted)
    found = np.append(keys, -1)[at] == wanted
    return np.where(found, np.append(values, absent)[at], absent)
