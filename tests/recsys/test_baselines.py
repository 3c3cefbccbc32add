import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.recsys import baselines
from tasks.recsys.baselines import BASELINES
from tasks.recsys.interactions import DAY, Ints, histories
from tests.recsys.made import asked, chance, views

CUT = 100 * DAY


# popular


def test_popular_counts_the_window_then_all_time_then_the_id() -> None:
    known = views((0, 2, 99), (1, 2, 98), (0, 1, 97), (0, 0, 10), (1, 3, 10), (2, 3, 11), (3, 0, 12), (3, 4, 1))
    # days 93–100: item 2 twice, item 1 once; all time: items 0 and 3 twice each, item 4 once
    assert baselines.popular(known, CUT, 7, 6).tolist() == [2, 1, 0, 3, 4, -1]
    assert baselines.popular(known, CUT, 7, 3).tolist() == [2, 1, 0]


def test_popular_window_is_half_open() -> None:
    known = views((0, 0, 50), (1, 0, 50), (0, 1, 93), (0, 2, 92.9), (0, 3, 100))
    assert baselines.popular(known, CUT, 7, 4).tolist() == [1, 0, 2, -1]


def test_an_empty_window_falls_back_on_all_time() -> None:
    assert baselines.popular(views((0, 0, 1), (1, 1, 2), (2, 1, 3)), CUT, 7, 2).tolist() == [1, 0]


def test_everybody_gets_the_popular_list() -> None:
    known = views((0, 0, 86), (1, 0, 87), (0, 1, 99))
    assert BASELINES["popular_7_days"](known, asked([0], []), CUT, 2).tolist() == [[1, 0], [1, 0]]
    assert BASELINES["popular_14_days"](known, asked([0], []), CUT, 2).tolist() == [[0, 1], [0, 1]]
    assert BASELINES["popular_14_days"](known, asked([]), 99 * DAY, 2).tolist() == [[0, -1]]


# own history


def test_own_history_is_by_the_last_interaction() -> None:
    lists = baselines.own_history(views(), asked([5, 7, 5, 9, 7], [], [3]), CUT, 3)
    assert lists.tolist() == [[7, 9, 5], [-1, -1, -1], [3, -1, -1]]
    assert baselines.own_history(views(), asked([5, 7, 5, 9, 7]), CUT, 2).tolist() == [[7, 9]]


def test_own_history_is_filled_up_with_popular_items() -> None:
    known = views((0, 0, 99), (1, 0, 99), (2, 0, 99), (0, 1, 99), (1, 1, 99), (0, 2, 99))
    lists = BASELINES["own_history_then_popular"](known, asked([2, 1], [], [3]), CUT, 4)
    assert lists.tolist() == [[1, 2, 0, -1], [0, 1, 2, -1], [3, 0, 1, 2]]


@given(st.data(), st.integers(1, 6), st.integers(0, 4))
def test_filled_equals_the_slow_way(data: st.DataObject, k: int, users: int) -> None:
    row = st.lists(st.integers(0, 9), max_size=k, unique=True)
    first, then = ([data.draw(row) for _ in range(users)] for _ in range(2))
    slow = [(a + [item for item in b if item not in a])[:k] for a, b in zip(first, then, strict=True)]
    again = baselines.ROWS  # times the same, so that there are several blocks
    lists = baselines.filled(padded(first * again, k), padded(then * again, k))
    assert np.array_equal(lists, padded(slow * again, k))


def padded(rows: list[list[int]], k: int) -> Ints:
    return np.array([row + [-1] * (k - len(row)) for row in rows], dtype=np.int32).reshape(len(rows), k)


# co-visitation


def test_covisitation_lists_weigh_the_newest_item_most() -> None:
    known = views((0, 0, 99), (0, 1, 99), (1, 2, 99), (1, 3, 99))
    assert baselines.covisitation(known, asked([0, 2], [2, 0], []), CUT, 3).tolist() == [
        [3, 1, -1],
        [1, 3, -1],
        [-1, -1, -1],
    ]


def test_the_last_resort_comes_last() -> None:
    known = views((0, 0, 99), (0, 1, 99), (1, 2, 99), (2, 2, 99), (3, 3, 99))
    lists = BASELINES["own_history_then_covisitation_then_popular"](known, asked([0]), CUT, 4)
    assert lists.tolist() == [[0, 1, 2, 3]]


# item-kNN and RP3beta

BINARY = views((0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 0, 1), (2, 0, 3), (2, 1, 2))
"""Users 0 and 2 saw items 0 and 1, user 1 items 0 and 2."""


def test_item_knn_counts_each_item_of_a_history_once() -> None:
    # from item 1: itself 1, item 0 2/√6 = 0.816
    assert baselines.item_knn(BINARY, asked([1], [1, 1], [2, 2, 2, 1]), CUT, 3).tolist() == [
        [1, 0, -1],
        [1, 0, -1],
        [0, 1, 2],  # 0: 2/√6 + 1/√3 = 1.394; 1 and 2: themselves, 1, the lower id first
    ]


def test_rp3beta_lists() -> None:
    # from item 2: itself 1/2, item 0 (1/2) / 3 ** 0.45 = 0.305
    assert baselines.rp3beta(BINARY, asked([2]), CUT, 3).tolist() == [[2, 0, -1]]


# all of them


@pytest.mark.parametrize("name", BASELINES)
def test_lists_have_their_shape_and_no_repeats(name: str) -> None:
    known = chance(0, 300)
    history = histories(known, CUT, 50, users=np.arange(known.users + 2))
    lists = BASELINES[name](known, history, CUT, 12)
    assert lists.shape == (len(history), 12)
    assert lists.dtype == np.int32
    for row in lists.tolist():
        listed = [item for item in row if item >= 0]
        assert row == listed + [-1] * (12 - len(listed))
        assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", BASELINES)
def test_later_events_change_nothing(name: str) -> None:
    everything = chance(1, 300)
    earlier = everything.before(CUT)
    assert len(earlier) < len(everything)
    lists = [BASELINES[name](known, histories(known, CUT, 50), CUT, 10) for known in (everything, earlier)]
    assert lists[0].tolist() == lists[1].tolist()


@pytest.mark.parametrize("name", BASELINES)
def test_nothing_known_means_empty_lists(name: str) -> None:
    assert BASELINES[name](views(), asked([], []), CUT, 3).tolist() == [[-1] * 3] * 2


@pytest.mark.parametrize("name", BASELINES)
def test_nobody_asked_means_no_lists(name: str) -> None:
    assert BASELINES[name](chance(2, 50), asked(), CUT, 3).shape == (0, 3)


def test_every_baseline_is_the_same_made_with_the_others() -> None:
    known = chance(3, 300)
    history = histories(known, CUT, 50)
    found = dict(baselines.every(known, history, CUT, 8))
    assert found.keys() == BASELINES.keys()
    for name, lists in found.items():
        assert lists.tolist() == BASELINES[name](known, history, CUT, 8).tolist()
