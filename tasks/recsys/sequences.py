"""Interactions as padded windows, from which the two-tower learns every next item."""

from dataclasses import dataclass

import numpy as np

from tasks.recsys.interactions import Bytes, Histories, Interactions, Ints, Longs

PADDING = -1


@dataclass(frozen=True)
class Windows:
    """Consecutive interactions of a user, oldest first, padded at the end."""

    item: Ints
    """[windows, length], −1 where padded"""
    event: Bytes
    """[windows, length], 0 where padded"""

    def __len__(self) -> int:
        return len(self.item)


def windows(interactions: Interactions, length: int) -> Windows:
    """Cuts each user's interactions into windows of at most length + 1, the last one ending at the newest.

    Windows of a user overlap by one row, so that each interaction but the first is once a target: position p's target
    is position p + 1.  Users with a single interaction have no window.  Steps up the funnel with one item (view, cart,
    purchase) are merged, with the strongest event; the same event again is a repeat, which is there to be learned.
    """
    user, item, event = _merge_funnel(interactions)
    start = np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else np.zeros(0, dtype=np.int64)
    end = np.r_[start[1:], len(user)]
    pieces = -(-(end - start - 1) // length)
    owner = np.repeat(np.arange(len(start)), pieces)
    back = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    high = end[owner] - back * length
    low = np.maximum(high - length - 1, start[owner])
    return _pad(low, high - low, item, event, length + 1)


def history_windows(histories: Histories, length: int) -> Windows:
    """The newest `length` interactions of each history [users], steps up the funnel merged."""
    flat = Interactions(histories.row.astype(np.int32), histories.item, histories.event, histories.time)
    user, item, event = _merge_funnel(flat)
    rows = np.arange(len(histories), dtype=np.int32)
    low, high = np.searchsorted(user, rows, "left"), np.searchsorted(user, rows, "right")
    low = np.maximum(low, high - length)
    return _pad(low, high - low, item, event, length)


def last_out(interactions: Interactions, start: int, length: int, most: int) -> tuple[Windows, Ints]:
    """What validation asks: the windows before each user's last item, and that item [users].

    Only users whose last interaction is at or after `start` (UTC ms) and who did something before it; `most` of them
    at most, evenly spread.
    """
    user, item, event = _merge_funnel(interactions)
    active = np.unique(interactions.between(start, None).user)
    low, last = np.searchsorted(user, active, "left"), np.searchsorted(user, active, "right") - 1
    low, last = low[last > low], last[last > low]
    chosen = np.unique(np.linspace(0, len(last) - 1, min(most, len(last))).astype(np.int64))
    low, last = np.maximum(low[chosen], last[chosen] - length), last[chosen]
    return _pad(low, last - low, item, event, length), item[last]


def _merge_funnel(interactions: Interactions) -> tuple[Ints, Ints, Bytes]:
    """One row for each run of a user's ever stronger events with one item, with the strongest."""
    user, item = interactions.user, interactions.item
    if not len(user):
        return user, item, interactions.event
    event = interactions.event
    last = np.r_[(user[1:] != user[:-1]) | (item[1:] != item[:-1]) | (event[1:] <= event[:-1]), True]
    return user[last], item[last], event[last]


def _pad(low: Longs, length: Longs, item: Ints, event: Bytes, width: int) -> Windows:
    """Rows low … low + length of the columns, as one padded row each."""
    at = low[:, None] + np.arange(width)
    real = np.arange(width) < length[:, None]
    at = np.where(real, at, 0)
    if not len(item):
        return Windows(np.full(at.shape, PADDING, dtype=np.int32), np.zeros(at.shape, dtype=np.int8))
    padded = np.where(real, item[at], PADDING).astype(np.int32), np.where(real, event[at], 0).astype(np.int8)
    return Windows(*padded)
