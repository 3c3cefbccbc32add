import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from tasks.recsys import baselines, cooccurrence
from tasks.recsys.baselines import BASELINES
from tasks.recsys.interactions import DAY, Histories, Interactions, Ints, histories

CUT = 100 * DAY


def table(*rows: tuple[int, int, float]) -> Interactions:
    """(user, item, day)"""
    user, item, day = np.array(sorted(rows, key=lambda row: (row[0], row[2], row[1])), dtype=float).reshape(-1, 3).T
    time = np.round(day * DAY).astype(np.int64)
    return Interactions(user.astype(np.int32), item.astype(np.int32), np.zeros(len(user), dtype=np.int8), time)


def asked(*pasts: list[int]) -> Histories:
    """Histories of items, oldest first."""
    start = np.concatenate([[0], np.cumsum([len(past) for past in pasts])]).astype(np.int64)
    item = np.array([item for past in pasts for item in past], dtype=np.int32)
    event, time = np.zeros(len(item), dtype=np.int8), np.arange(len(item), dtype=np.int64)
    return Histories(np.arange(len(pasts), dtype=np.int32), start, item, event, time)


# popular


def test_popular_counts_the_window_then_all_time_then_the_id() -> None:
    known = table((0, 2, 99), (1, 2, 98), (0, 1, 97), (0, 0, 10), (1, 3, 10), (2, 3, 11), (3, 0, 12), (3, 4, 1))
    # days 93–100: item 2 twice, item 1 once; all time: items 0 and 3 twice each, item 4 once
    assert baselines.popular(known, CUT, 7, 6).tolist() == [2, 1, 0, 3, 4, -1]
    assert baselines.popular(known, CUT, 7, 3).tolist() == [2, 1, 0]


def test_popular_window_is_half_open() -> None:
    known = table((0, 0, 50), (1, 0, 50), (0, 1, 93), (0, 2, 92.9), (0, 3, 100))
    assert baselines.popular(known, CUT, 7, 4).tolist() == [1, 0, 2, -1]


def test_an_empty_window_falls_back_on_all_time() -> None:
    assert baselines.popular(table((0, 0, 1), (1, 1, 2), (2, 1, 3)), CUT, 7, 2).tolist() == [1, 0]


def test_everybody_gets_the_popular_list() -> None:
    known = table((0, 0, 86), (1, 0, 87), (0, 1, 99))
    assert BASELINES["popular_7_days"](known, asked([0], []), CUT, 2).tolist() == [[1, 0], [1, 0]]
    assert BASELINES["popular_14_days"](known, asked([0], []), CUT, 2).tolist() == [[0, 1], [0, 1]]
    assert BASELINES["popular_14_days"](known, asked([]), 99 * DAY, 2).tolist() == [[0, -1]]


# own history


def test_own_history_is_by_the_last_interaction() -> None:
    lists = baselines.own_history(table(), asked([5, 7, 5, 9, 7], [], [3]), CUT, 3)
    assert lists.tolist() == [[7, 9, 5], [-1, -1, -1], [3, -1, -1]]
    assert baselines.own_history(table(), asked([5, 7, 5, 9, 7]), CUT, 2).tolist() == [[7, 9]]


def test_own_history_is_filled_up_with_popular_items() -> None:
    known = table((0, 0, 99), (1, 0, 99), (2, 0, 99), (0, 1, 99), (1, 1, 99), (0, 2, 99))
    lists = BASELINES["own_history_then_popular"](known, asked([2, 1], [], [3]), CUT, 4)
    assert lists.tolist() == [[1, 2, 0, -1], [0, 1, 2, -1], [3, 0, 1, 2]]


@given(st.data(), st.integers(1, 6), st.integers(0, 4))
def test_filled_equals_the_slow_way(data: st.DataObject, k: int, users: int) -> None:
    row = st.lists(st.integers(0, 9), max_size=k, unique=True)
    first, then = ([data.draw(row) for _ in range(users)] for _ in range(2))
    slow = [(a + [item for item in b if item not in a])[:k] for a, b in zip(first, then, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "ROWS", 2)
        lists = baselines.filled(padded(first, k), padded(then, k))
    assert lists.tolist() == padded(slow, k).tolist()


def padded(rows: list[list[int]], k: int) -> Ints:
    return np.array([row + [-1] * (k - len(row)) for row in rows], dtype=np.int32).reshape(len(rows), k)


# co-visitation


def test_covisitation_weighs_offset_gap_age_and_direction() -> None:
    known = table((0, 0, 89), (0, 1, 90), (0, 2, 90))
    matrix = cooccurrence.covisitation(
        known, CUT, window=2, gap=DAY, half_life=10 * DAY, backward=0.25, damping=0, neighbours=9
    ).toarray()
    near, far, level = 0.5 * (1 / 2), 0.5 * (1 / 2) / 2, 0.5 * 1
    expected = [[0, near, far], [0.25 * near, 0, level], [0.25 * far, 0.25 * level, 0]]
    assert matrix == pytest.approx(np.array(expected), rel=1e-6)


def test_covisitation_adds_up_over_users_and_not_across_them() -> None:
    known = table((0, 0, 99), (0, 1, 99), (1, 0, 99), (1, 1, 99), (1, 1, 99.5))
    matrix = cooccurrence.covisitation(known, CUT, gap=math.inf, half_life=math.inf, backward=0, damping=0).toarray()
    assert matrix.tolist() == [[0, 1 + (1 + 1 / 2)], [0, 0]]


def test_damping_divides_a_row_by_a_power_of_its_sum() -> None:
    known = table((0, 0, 99), (0, 1, 99), (1, 0, 99), (1, 1, 99), (2, 0, 99), (2, 1, 99), (3, 0, 99), (3, 2, 99))
    matrix = cooccurrence.covisitation(known, CUT, gap=math.inf, half_life=math.inf, backward=0, damping=0.5).toarray()
    assert matrix[0] == pytest.approx([0, 3 / 2, 1 / 2])


def test_covisitation_keeps_the_strongest_neighbours_and_the_lower_id_of_ties() -> None:
    known = table((0, 0, 99), (0, 3, 99), (1, 0, 99), (1, 2, 99), (2, 0, 99), (2, 1, 99), (3, 0, 99), (3, 3, 99))
    matrix = cooccurrence.covisitation(known, CUT, damping=0, neighbours=2)
    assert matrix[[0]].indices.tolist() == [1, 3]


def test_covisitation_lists_weigh_the_newest_item_most() -> None:
    known = table((0, 0, 99), (0, 1, 99), (1, 2, 99), (1, 3, 99))
    assert baselines.covisitation(known, asked([0, 2], [2, 0], []), CUT, 3).tolist() == [
        [3, 1, -1],
        [1, 3, -1],
        [-1, -1, -1],
    ]


def test_the_last_resort_comes_last() -> None:
    known = table((0, 0, 99), (0, 1, 99), (1, 2, 99), (2, 2, 99), (3, 3, 99))
    lists = BASELINES["own_history_then_covisitation_then_popular"](known, asked([0]), CUT, 4)
    assert lists.tolist() == [[0, 1, 2, 3]]


# item-kNN and RP3beta

BINARY = table((0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 0, 1), (2, 0, 3), (2, 1, 2))
"""Users 0 and 2 saw items 0 and 1, user 1 items 0 and 2."""


def test_seen_is_binary() -> None:
    assert cooccurrence.seen(BINARY, CUT).toarray().tolist() == [[1, 1, 0], [1, 0, 1], [1, 1, 0]]


def test_seen_keeps_the_newest_distinct_items() -> None:
    known = table((0, 0, 1), (0, 1, 2), (0, 0, 3), (0, 2, 4), (2, 1, 1))
    assert cooccurrence.seen(known, CUT, cap=2).toarray().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_cosine() -> None:
    expected = [
        [1, 2 / math.sqrt(3 * 2), 1 / math.sqrt(3 * 1)],
        [2 / math.sqrt(2 * 3), 1, 0],
        [1 / math.sqrt(1 * 3), 0, 1],
    ]
    assert cooccurrence.cosine(cooccurrence.seen(BINARY, CUT)).toarray() == pytest.approx(np.array(expected))


def test_item_knn_counts_each_item_of_a_history_once() -> None:
    # from item 1: itself 1, item 0 2/√6 = 0.816
    assert baselines.item_knn(BINARY, asked([1], [1, 1], [2, 2, 2, 1]), CUT, 3).tolist() == [
        [1, 0, -1],
        [1, 0, -1],
        [0, 1, 2],  # 0: 2/√6 + 1/√3 = 1.394; 1 and 2: themselves, 1, the lower id first
    ]


def test_rp3beta() -> None:
    matrix = cooccurrence.rp3beta(cooccurrence.seen(BINARY, CUT), alpha=1, beta=0.6).toarray()
    assert matrix[0] == pytest.approx([(3 / 3 / 2) / 3**0.6, (2 / 3 / 2) / 2**0.6, (1 / 3 / 2) / 1**0.6])
    assert matrix[2] == pytest.approx([(1 / 1 / 2) / 3**0.6, 0, (1 / 1 / 2) / 1**0.6])


def test_rp3beta_lists() -> None:
    # from item 2: itself 1/2, item 0 (1/2) / 3 ** 0.45 = 0.305
    assert baselines.rp3beta(BINARY, asked([2]), CUT, 3).tolist() == [[2, 0, -1]]


# recommend


@given(st.data(), st.integers(1, 5), st.integers(1, 30))
def test_recommend_equals_the_dense_way_whatever_the_chunks(data: st.DataObject, k: int, cells: int) -> None:
    # eighths add up exactly, so that ties are ties in any order of summing
    values = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=6, max_size=6))
    dense = np.array(values, dtype=np.float32) / 8
    history = asked(*data.draw(st.lists(st.lists(st.integers(0, 7), max_size=5), max_size=6)))
    weights = np.array([data.draw(st.integers(0, 3)) for _ in history.item], dtype=np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cooccurrence, "CELLS", cells)
        lists, scores = cooccurrence.recommend(history, weights, sparse.csr_array(dense), k)
    for row in range(len(history)):
        span = range(history.start[row], history.start[row + 1])
        score = sum((weights[i] * dense[history.item[i]] for i in span if history.item[i] < 6), np.zeros(6))
        best = [int(j) for j in sorted(range(6), key=lambda j: (-score[j], j)) if score[j] > 0][:k]
        assert lists[row].tolist() == best + [-1] * (k - len(best))
        assert scores[row].tolist() == [score[j] for j in best] + [0] * (k - len(best))


def random_neighbours(rng: np.random.Generator, items: int) -> sparse.csr_array:
    return sparse.csr_array(
        np.where(rng.random((items, items)) < 0.4, rng.random((items, items)), 0).astype(np.float32)
    )


def test_recommend_does_not_depend_on_chunks_or_company(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    matrix = random_neighbours(rng, 50)
    history = asked(*(rng.integers(0, 50, size=rng.integers(0, 12)).tolist() for _ in range(60)))
    lists, scores = cooccurrence.recommend(history, cooccurrence.recency(history), matrix, 20)
    monkeypatch.setattr(cooccurrence, "CELLS", 64)
    some = history.take(np.arange(0, 60, 7))
    again, rescored = cooccurrence.recommend(some, cooccurrence.recency(some), matrix, 20)
    assert again.tobytes() == lists[::7].tobytes()
    assert rescored.tobytes() == scores[::7].tobytes()


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    rng = np.random.default_rng(1)
    matrix = random_neighbours(rng, 30)
    history = asked(*(rng.integers(0, 30, size=4).tolist() for _ in range(20)))
    short, long = (cooccurrence.recommend(history, cooccurrence.recency(history), matrix, k)[0] for k in (3, 12))
    assert short.tolist() == long[:, :3].tolist()


# all of them


def random_table(seed: int, rows: int) -> Interactions:
    rng = np.random.default_rng(seed)
    day = np.sort(rng.integers(0, 160, rows))
    user, item = dense(rng.integers(0, 30, rows)), dense(rng.integers(0, 25, rows))
    return table(*zip(user, item, day.tolist(), strict=True))


def dense(ids: npt.NDArray[np.int64]) -> list[int]:
    """Ids renamed in order of first appearance."""
    names = {name: position for position, name in enumerate(dict.fromkeys(ids.tolist()))}
    return [names[name] for name in ids.tolist()]


@pytest.mark.parametrize("name", BASELINES)
def test_lists_have_their_shape_and_no_repeats(name: str) -> None:
    known = random_table(0, 300)
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
    everything = random_table(1, 300)
    earlier = everything.before(CUT)
    assert len(earlier) < len(everything)
    lists = [BASELINES[name](known, histories(known, CUT, 50), CUT, 10) for known in (everything, earlier)]
    assert lists[0].tolist() == lists[1].tolist()


@pytest.mark.parametrize("name", BASELINES)
def test_nothing_known_means_empty_lists(name: str) -> None:
    assert BASELINES[name](table(), asked([], []), CUT, 3).tolist() == [[-1] * 3] * 2


@pytest.mark.parametrize("name", BASELINES)
def test_nobody_asked_means_no_lists(name: str) -> None:
    assert BASELINES[name](random_table(2, 50), asked(), CUT, 3).shape == (0, 3)
