"""What the interactions before a cut say of each item and of each user."""

import numpy as np
import numpy.typing as npt

from tasks.recsys.interactions import DAY, EVENTS, TRANSACTION, VIEW, Interactions, Ints

HORIZONS = {"1d": 1, "7d": 7, "14d": 14, "28d": 28}
"""Name → days before the cut that popularity is counted over; `all` is everything before it."""
SMOOTHING = 20.0
"""Views that a conversion is smoothed by."""
NAMES = ("views", "carts", "transactions")
"""Column names of the event types, in the order of their codes."""

HALF_LIFE = 28 * DAY
"""After which an interaction counts half for how fresh an item is."""

Columns = dict[str, npt.NDArray[np.generic]]


def item_statistics(interactions: Interactions, cut: int) -> Columns:
    """Columns [items] of the items known before the cut, in the order of their ids.

    `item`; `age_days`, days from the first interaction to the cut; `views_7d`, `carts_all`, …: popularity by event
    type and horizon; `conversion` = (transactions + s · usual) / (views + s), usual the shop's own ratio, s = 20.
    """
    known = interactions.before(cut)
    columns: Columns = {
        "item": np.arange(known.items, dtype=np.int32),
        "age_days": ((cut - _first(known.item, known.time, known.items, cut)) / DAY).astype(np.float32),
    }
    for horizon, days in {**HORIZONS, "all": None}.items():
        rows = known if days is None else known.between(cut - days * DAY, None)
        counts = _by_event(rows.item, rows, known.items)
        columns |= {f"{name}_{horizon}": counts[:, event] for event, name in enumerate(NAMES)}
    views, bought = counts[:, VIEW], counts[:, TRANSACTION]
    usual = bought.sum() / max(int(views.sum()), 1)
    columns["conversion"] = ((bought + SMOOTHING * usual) / (views + SMOOTHING)).astype(np.float32)
    return columns


def freshness(interactions: Interactions, cut: int) -> npt.NDArray[np.float32]:
    """[items] known before the cut: log of the share of an item's interactions that still counts.

        log (Σ 2^(−age / `HALF_LIFE`) + 0.3) / (n + 0.6)

    over its n interactions: below 0, and the lower the longer ago people lost interest in it, or it went out of sale.
    """
    known = interactions.before(cut)
    left = np.bincount(known.item, 0.5 ** ((cut - known.time) / HALF_LIFE), known.items)
    return np.log((left + 0.3) / (np.bincount(known.item, minlength=known.items) + 0.6)).astype(np.float32)


def user_statistics(interactions: Interactions, cut: int) -> Columns:
    """Columns [users] of the users known before the cut, in the order of their ids.

    `user`; `views`, `carts`, `transactions`; `items`, distinct ones; `first` and `last` interaction, UTC ms.
    """
    known = interactions.before(cut)
    counts = _by_event(known.user, known, known.users)
    start = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])
    pairs = np.sort(known.user.astype(np.int64) * max(known.items, 1) + known.item)
    new = np.diff(pairs, prepend=-1) > 0  # np.unique would hash them, which takes ten times as long
    return {
        "user": np.arange(known.users, dtype=np.int32),
        **{name: counts[:, event] for event, name in enumerate(NAMES)},
        "items": np.bincount(pairs[new] // max(known.items, 1), minlength=known.users).astype(np.int32),
        "first": known.time[start[:-1]],
        "last": known.time[start[1:] - 1],
    }


def _by_event(owner: Ints, rows: Interactions, owners: int) -> npt.NDArray[np.int32]:
    """[owners, event types]: interactions of each item, or of each user, by event type."""
    key = owner.astype(np.int64) * len(EVENTS) + rows.event
    return np.bincount(key, minlength=owners * len(EVENTS)).reshape(owners, len(EVENTS)).astype(np.int32)


def _first(owner: Ints, time: npt.NDArray[np.int64], owners: int, cut: int) -> npt.NDArray[np.int64]:
    """[owners]: the earliest of each one's instants, UTC ms."""
    first = np.full(owners, cut, dtype=np.int64)
    np.minimum.at(first, owner, time)
    return first
