"""Interactions, and what is read off them as of a cut: histories and truth.

Ids are dense and in order of first appearance, so the users and the items known before any cut are 0 … n-1: an
encoder of a cut is a prefix of every later one, and later events cannot change it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.int8]
Longs = npt.NDArray[np.int64]

VIEW, CART, TRANSACTION = 0, 1, 2
EVENTS = ("view", "addtocart", "transaction")
"""Event names of the input format; the position is the event's code."""
DAY = 86_400_000
"""Milliseconds of a day."""


@dataclass(frozen=True)
class Interactions:
    """Rows sorted by user, then time, then item, then event: a user's rows lie together, oldest first."""

    user: Ints
    """[n], dense id"""
    item: Ints
    """[n], dense id"""
    event: Bytes
    """[n], position in `EVENTS`"""
    time: Longs
    """[n], UTC ms"""

    def __len__(self) -> int:
        return len(self.user)

    def between(self, start: int | None, end: int | None) -> "Interactions":
        """The rows with start <= time < end, in the same order; None is an open end."""
        keep = np.ones(len(self), dtype=bool)
        if start is not None:
            keep &= self.time >= start
        if end is not None:
            keep &= self.time < end
        return Interactions(self.user[keep], self.item[keep], self.event[keep], self.time[keep])

    def before(self, cut: int) -> "Interactions":
        """The rows that exist as of the cut."""
        return self.between(None, cut)

    @property
    def users(self) -> int:
        """Number of users known: ids are dense in order of first appearance."""
        return int(self.user.max()) + 1 if len(self) else 0

    @property
    def items(self) -> int:
        """Number of items known: ids are dense in order of first appearance."""
        return int(self.item.max()) + 1 if len(self) else 0


@dataclass(frozen=True)
class Histories:
    """The newest interactions of some users as of a cut, oldest first, as ragged rows."""

    user: Ints
    """[users], ascending"""
    start: Longs
    """[users + 1], row i is start[i]:start[i+1]"""
    item: Ints
    """[rows]"""
    event: Bytes
    """[rows]"""
    time: Longs
    """[rows], UTC ms"""

    def __len__(self) -> int:
        return len(self.user)

    @property
    def length(self) -> Longs:
        """[users], interactions in each history."""
        return np.diff(self.start)

    @cached_property
    def row(self) -> Longs:
        """[rows], position in `user` of each interaction."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.length)

    @property
    def age(self) -> Longs:
        """[rows], steps from the end of its history: 0 is the newest interaction."""
        return self.start[1:][self.row] - 1 - np.arange(len(self.item))

    def take(self, rows: npt.NDArray[np.integer]) -> "Histories":
        """The histories at these positions, in this order."""
        length = self.length[rows]
        start = np.concatenate([[0], np.cumsum(length)])
        index = np.arange(start[-1]) + np.repeat(self.start[:-1][rows] - start[:-1], length)
        return Histories(self.user[rows], start, self.item[index], self.event[index], self.time[index])

    def where(self, keep: npt.NDArray[np.bool_]) -> "Histories":
        """The same users with the interactions [rows] that are kept."""
        start = np.concatenate([[0], np.cumsum(keep)])[self.start]
        return Histories(self.user, start, self.item[keep], self.event[keep], self.time[keep])


def sort_interactions(
    user: npt.NDArray[np.integer], item: npt.NDArray[np.integer], event: npt.NDArray[np.integer], time: Longs
) -> Interactions:
    """Interactions from columns [n] in any order."""
    order = np.lexsort((event, item, time, user))
    return Interactions(
        user[order].astype(np.int32), item[order].astype(np.int32), event[order].astype(np.int8), time[order]
    )


def histories(
    interactions: Interactions, cut: int, cap: int, users: npt.NDArray[np.integer] | None = None
) -> Histories:
    """Each user's newest `cap` interactions strictly before the cut.

    `users` [n]: only these, in ascending order, with an empty history for those who have none; None: everybody who
    has one.
    """
    known = interactions.before(cut)
    end = np.cumsum(np.bincount(known.user, minlength=1 + int(np.max(users, initial=0)) if users is not None else 0))
    users = np.flatnonzero(np.diff(end, prepend=0)) if users is None else np.unique(users)
    high = end[users]
    low = np.maximum(np.append(0, end)[users], high - cap)
    length = high - low
    start = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    index = np.arange(start[-1]) + np.repeat(low - start[:-1], length)
    return Histories(users.astype(np.int32), start, known.item[index], known.event[index], known.time[index])


@dataclass(frozen=True)
class Truth:
    """What users did in a window: their distinct items, each with its strongest event, as ragged rows."""

    user: Ints
    """[users], ascending; each has at least one item"""
    start: Longs
    """[users + 1], row i is start[i]:start[i+1]"""
    item: Ints
    """[pairs], ascending within a row"""
    event: Bytes
    """[pairs], the strongest event of the pair: transaction over addtocart over view"""

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def row(self) -> Longs:
        """[pairs], position in `user` of each pair."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.start))

    def where(self, keep: npt.NDArray[np.bool_]) -> "Truth":
        """The pairs [pairs] that are kept; users left without a pair are left out."""
        start = np.concatenate([[0], np.cumsum(keep)])[self.start]
        left = np.diff(start) > 0
        return Truth(self.user[left], np.append(0, start[1:][left]), self.item[keep], self.event[keep])


def truth_between(interactions: Interactions, start: int, end: int) -> Truth:
    """The distinct (user, item) pairs with start <= time < end."""
    window = interactions.between(start, end)
    order = np.lexsort((-window.event, window.item, window.user))
    user, item, event = window.user[order], window.item[order], window.event[order]
    first = np.ones(len(user), dtype=bool)
    first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    user, item, event = user[first], item[first], event[first]
    bounds = np.append(np.flatnonzero(np.diff(user, prepend=-1)), len(user))
    return Truth(user[bounds[:-1]], bounds, item, event)


def distinct(asked: Histories) -> tuple[Longs, Longs]:
    """Positions [lists] of one user for each distinct history, ascending, and each user's position in them [users].

    Two histories are the same when they name the same items and events in the same order.  They are told apart by a
    64-bit hash: among a million histories, two that differ share one with a chance of 3 in 10⁸.
    """
    code = (asked.item.astype(np.uint64) * np.uint64(len(EVENTS)) + asked.event.astype(np.uint64)) << np.uint64(16)
    mixed = np.zeros(len(code) + 1, dtype=np.uint64)  # a list [0] in front would make floats of them
    np.cumsum(_mix(code + asked.age.astype(np.uint64)), out=mixed[1:])
    hashes = _mix(np.diff(mixed[asked.start]) + asked.length.astype(np.uint64))
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    return first[order].astype(np.int64), position[inverse]


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele et al., OOPSLA 2014): spreads every bit over all."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
