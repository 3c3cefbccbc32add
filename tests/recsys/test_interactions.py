from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.recsys.interactions import (
    CART,
    TRANSACTION,
    VIEW,
    Histories,
    Interactions,
    Truth,
    distinct,
    histories,
    truth_between,
)

Row = tuple[int, int, int, int]
ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 2), st.integers(0, 20)), max_size=40)
"""(user, item, event, time)"""


def table(rows: Iterable[Row]) -> Interactions:
    ordered = sorted(rows, key=lambda row: (row[0], row[3], row[1], row[2]))
    user, item, event, time = np.array(ordered, dtype=np.int64).reshape(-1, 4).T
    return Interactions(user.astype(np.int32), item.astype(np.int32), event.astype(np.int8), time)


def unravel(ragged: Histories | Truth) -> dict[int, list[tuple[int, int]]]:
    rows = zip(ragged.user.tolist(), ragged.start[:-1].tolist(), ragged.start[1:].tolist(), strict=True)
    return {u: list(zip(ragged.item[a:b].tolist(), ragged.event[a:b].tolist(), strict=True)) for u, a, b in rows}


def test_between_is_half_open_and_keeps_the_order() -> None:
    interactions = table([(0, 1, VIEW, 10), (0, 2, VIEW, 20), (1, 3, CART, 30)])
    assert interactions.between(10, 30).item.tolist() == [1, 2]
    assert interactions.between(None, None).item.tolist() == [1, 2, 3]
    assert interactions.before(10).item.tolist() == []


def test_counts_are_of_dense_ids() -> None:
    interactions = table([(0, 4, VIEW, 10), (2, 1, VIEW, 20)])
    assert (interactions.users, interactions.items) == (3, 5)
    assert (table([]).users, table([]).items) == (0, 0)


def test_history_is_the_newest_interactions_before_the_cut() -> None:
    interactions = table([(0, 1, VIEW, 1), (0, 2, VIEW, 2), (0, 2, CART, 3), (0, 9, VIEW, 4), (1, 5, VIEW, 4)])
    history = histories(interactions, cut=4, cap=2)
    assert unravel(history) == {0: [(2, VIEW), (2, CART)]}
    assert history.age.tolist() == [1, 0]


def test_those_asked_for_without_a_history_get_an_empty_one() -> None:
    interactions = table([(1, 5, VIEW, 1), (3, 6, VIEW, 9)])
    history = histories(interactions, cut=5, cap=10, users=np.array([3, 0, 1]))
    assert unravel(history) == {0: [], 1: [(5, VIEW)], 3: []}
    assert history.length.tolist() == [0, 1, 0]


@given(ROWS, st.integers(0, 21), st.integers(1, 5))
def test_histories_equal_the_slow_way(rows: list[Row], cut: int, cap: int) -> None:
    interactions = table(rows)
    slow: dict[int, list[tuple[int, int]]] = {}
    for user, item, event, time in zip(
        *(a.tolist() for a in (interactions.user, interactions.item, interactions.event, interactions.time)),
        strict=True,
    ):
        if time < cut:
            slow.setdefault(user, []).append((item, event))
    assert unravel(histories(interactions, cut, cap)) == {user: past[-cap:] for user, past in slow.items()}


@given(ROWS, st.integers(0, 21))
def test_later_events_change_no_history(rows: list[Row], cut: int) -> None:
    earlier = table(row for row in rows if row[3] < cut)
    assert unravel(histories(table(rows), cut, 5)) == unravel(histories(earlier, cut, 5))


@given(ROWS, st.lists(st.integers(0, 4), max_size=6))
def test_take_is_the_histories_at_those_positions(rows: list[Row], positions: list[int]) -> None:
    history = histories(table(rows), 21, 3, users=np.arange(5))
    taken = history.take(np.array(positions, dtype=np.int64))
    everybody = unravel(history)
    assert taken.user.tolist() == positions
    assert np.diff(taken.start).tolist() == [len(everybody[user]) for user in positions]
    assert taken.item.tolist() == [item for user in positions for item, _ in everybody[user]]


def test_where_keeps_the_users_of_histories() -> None:
    history = histories(table([(0, 1, VIEW, 1), (0, 2, VIEW, 2), (1, 3, VIEW, 3)]), 9, 9)
    assert unravel(history.where(history.item == 2)) == {0: [(2, VIEW)], 1: []}


def test_truth_is_distinct_items_with_their_strongest_event() -> None:
    interactions = table(
        [
            (0, 7, VIEW, 9),
            (0, 7, VIEW, 10),
            (0, 7, TRANSACTION, 11),
            (0, 7, CART, 12),
            (0, 4, VIEW, 13),
            (1, 4, CART, 20),
        ]
    )
    assert unravel(truth_between(interactions, 10, 20)) == {0: [(4, VIEW), (7, TRANSACTION)]}


def test_truth_where_leaves_out_users_without_a_pair() -> None:
    truth = truth_between(table([(0, 1, VIEW, 0), (1, 1, VIEW, 0), (1, 2, CART, 0), (2, 2, CART, 0)]), 0, 1)
    assert unravel(truth.where(truth.event == CART)) == {1: [(2, CART)], 2: [(2, CART)]}
    assert unravel(truth.where(truth.event == TRANSACTION)) == {}


@given(ROWS, st.integers(0, 20), st.integers(0, 21))
def test_truth_equals_the_slow_way(rows: list[Row], start: int, end: int) -> None:
    slow: dict[int, dict[int, int]] = {}
    for user, item, event, time in rows:
        if start <= time < end:
            items = slow.setdefault(user, {})
            items[item] = max(items.get(item, 0), event)
    assert unravel(truth_between(table(rows), start, end)) == {u: sorted(items.items()) for u, items in slow.items()}


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=3), max_size=30))
def test_distinct_histories_are_told_apart_by_items_events_and_order(pasts: list[list[tuple[int, int]]]) -> None:
    rows = [(user, item, event, time) for user, past in enumerate(pasts) for time, (item, event) in enumerate(past)]
    first, position = distinct(histories(table(rows), 99, 9, users=np.arange(len(pasts))))
    unique = list(dict.fromkeys(tuple(past) for past in pasts))
    assert [tuple(pasts[user]) for user in first] == unique
    assert [unique[at] for at in position] == [tuple(past) for past in pasts]


def test_distinct_finds_a_history_again_far_down_the_table() -> None:
    rows = [(user, user % 50, VIEW, 0) for user in range(5_000)]
    assert len(distinct(histories(table(rows), 1, 9))[0]) == 50
