"""Simple recommenders: what a model has to beat, each a function of what was known as of a cut.

Lists are [users, k]: best first, no repeats within a row, -1 where a list ends early. Items that a user already had
are recommended again by those whose method gives them a score.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from tasks.recsys import cooccurrence
from tasks.recsys.interactions import DAY, Histories, Interactions, Ints
from tasks.recsys.parallel import in_order

Baseline = Callable[[Interactions, Histories, int, int], Ints]
"""(interactions, the histories asked about, the cut, k) → [histories, k]; nothing at or after the cut is read."""

ROWS = 256
"""Lists joined at a time: they stay in the cache."""


def popular(interactions: Interactions, cut: int, days: int, k: int) -> Ints:
    """[k]: the items with the most interactions in the `days` before the cut.

    Those with equally many, or with none, follow by their interactions of all time before the cut, then by id: the
    list is full if the catalogue allows.
    """
    known = interactions.before(cut)
    ever = np.bincount(known.item, minlength=known.items)
    recent = np.bincount(known.between(cut - days * DAY, None).item, minlength=known.items)
    order = np.lexsort((-ever, -recent))[:k]
    return np.append(order, np.full(k - len(order), -1)).astype(np.int32)


def popular_in(days: int) -> Baseline:
    """Everybody gets the most popular items of the last `days` days."""

    def baseline(interactions: Interactions, asked: Histories, cut: int, k: int) -> Ints:
        return np.broadcast_to(popular(interactions, cut, days, k), (len(asked), k))

    return baseline


def own_items(asked: Histories, k: int) -> Ints:
    """[users, k]: the distinct items of each history, by their last interaction, newest first."""
    last = cooccurrence.latest(asked)
    row, item = asked.row[last], asked.item[last]
    place = np.searchsorted(row, row, "right") - 1 - np.arange(len(row))
    lists = np.full((len(asked), k), -1, dtype=np.int32)
    lists[row[place < k], place[place < k]] = item[place < k]
    return lists


def own_history(interactions: Interactions, asked: Histories, cut: int, k: int) -> Ints:
    """The user's own items again, by their last interaction, newest first."""
    return own_items(asked, k)


def covisitation(interactions: Interactions, asked: Histories, cut: int, k: int) -> Ints:
    """Decayed co-visitation with the history's interactions, the n-th newest weighing 1 / n."""
    neighbours = cooccurrence.direct(interactions, cut)
    return cooccurrence.recommend(asked, cooccurrence.recency(asked), neighbours, k)[0]


def item_knn(interactions: Interactions, asked: Histories, cut: int, k: int) -> Ints:
    """Summed cosine with the history's distinct items. An item is its own nearest neighbour, and stays one."""
    neighbours = cooccurrence.cosine(cooccurrence.seen(interactions, cut))
    return cooccurrence.recommend(asked, cooccurrence.latest(asked), neighbours, k)[0]


def rp3beta(interactions: Interactions, asked: Histories, cut: int, k: int) -> Ints:
    """Random walk from the history's distinct items, with walks that come back to them; see `cooccurrence`."""
    neighbours = cooccurrence.rp3beta(cooccurrence.seen(interactions, cut))
    return cooccurrence.recommend(asked, cooccurrence.latest(asked), neighbours, k)[0]


def filled(lists: Ints, more: Ints) -> Ints:
    """[users, k], [users, k] → [users, k]: each list, then what its row of `more` has that it lacks."""
    result = np.empty(lists.shape, dtype=np.int32)

    def fill(at: int) -> None:
        rows = slice(at, at + ROWS)
        _fill(result[rows], lists[rows], more[rows])

    deque(in_order(fill, range(0, len(lists), ROWS)), maxlen=0)
    return result


def _fill(result: Ints, first: Ints, then: Ints) -> None:
    """Puts into a block [users, k] what `filled` says of it."""
    k = result.shape[1]
    result[:] = -1
    longest = int((first >= 0).sum(axis=1).max())
    both = np.concatenate([first[:, :longest], then], axis=1)
    keep = (both >= 0) & ~_repeats(both)
    keep &= np.cumsum(keep, axis=1) <= k
    result[np.arange(k) < keep.sum(axis=1)[:, None]] = both[keep]


def _repeats(lists: Ints) -> npt.NDArray[np.bool_]:
    """[users, k] → [users, k]: whether the same item stands further left in its row."""
    bits = lists.shape[1].bit_length()
    integer = np.int32 if int(lists.max(initial=0)) < 1 << (31 - bits) else np.int64  # narrow ones sort faster
    keys = lists.astype(integer) << bits | np.arange(lists.shape[1], dtype=integer)
    keys.sort(axis=1)
    item = keys >> bits
    row, after = np.divmod(np.flatnonzero((item[:, 1:] == item[:, :-1]) & (item[:, 1:] >= 0)), lists.shape[1] - 1)
    repeated = np.zeros(lists.shape, dtype=bool)
    repeated[row, keys[row, after + 1] & ((1 << bits) - 1)] = True
    return repeated


def chain(*baselines: Baseline) -> Baseline:
    """The first one's list, filled up by the second's, and so on."""

    def baseline(interactions: Interactions, asked: Histories, cut: int, k: int) -> Ints:
        return _filled_by(part(interactions, asked, cut, k) for part in baselines)

    return baseline


def _filled_by(parts: Iterable[Ints]) -> Ints:
    return functools.reduce(filled, parts)


SINGLE: Mapping[str, Baseline] = {
    "popular_7_days": popular_in(7),
    "popular_14_days": popular_in(14),
    "own_history": own_history,
    "item_knn": item_knn,
    "covisitation": covisitation,
    "rp3beta": rp3beta,
}
CHAINS: Mapping[str, tuple[str, ...]] = {
    "own_history_then_popular": ("own_history", "popular_14_days"),
    "own_history_then_covisitation_then_popular": ("own_history", "covisitation", "popular_14_days"),
}
BASELINES: Mapping[str, Baseline] = {
    **SINGLE,
    **{name: chain(*(SINGLE[part] for part in parts)) for name, parts in CHAINS.items()},
}
"""What every recall is reported beside."""


def every(interactions: Interactions, asked: Histories, cut: int, k: int) -> Iterator[tuple[str, Ints]]:
    """Name and lists [histories, k] of each of `BASELINES`; what a chain is made of is computed once."""
    lists = in_order(lambda baseline: baseline(interactions, asked, cut, k), SINGLE.values())
    made = dict(zip(SINGLE, lists, strict=True))
    yield from made.items()
    for name, parts in CHAINS.items():
        yield name, _filled_by(made[part] for part in parts)
