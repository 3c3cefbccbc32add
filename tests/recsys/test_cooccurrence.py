import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from tasks.recsys import cooccurrence
from tasks.recsys.interactions import DAY
from tests.recsys.made import asked, chance, views

CUT = 100 * DAY


# co-visitation


def test_covisitation_weighs_offset_gap_age_and_direction() -> None:
    known = views((0, 0, 89), (0, 1, 90), (0, 2, 90))
    matrix = cooccurrence.direct(
        known, CUT, window=2, gap=DAY, half_life=10 * DAY, backward=0.25, damping=0, neighbours=9
    ).toarray()
    near, far, level = 0.5 * (1 / 2), 0.5 * (1 / 2) / 2, 0.5 * 1
    expected = [[0, near, far], [0.25 * near, 0, level], [0.25 * far, 0.25 * level, 0]]
    assert matrix == pytest.approx(np.array(expected), rel=1e-6)


def test_covisitation_adds_up_over_users_and_not_across_them() -> None:
    known = views((0, 0, 99), (0, 1, 99), (1, 0, 99), (1, 1, 99), (1, 1, 99.5))
    matrix = cooccurrence.direct(known, CUT, gap=math.inf, half_life=math.inf, backward=0, damping=0).toarray()
    assert matrix.tolist() == [[0, 1 + (1 + 1 / 2)], [0, 0]]


def test_damping_divides_a_row_by_a_power_of_its_sum() -> None:
    known = views((0, 0, 99), (0, 1, 99), (1, 0, 99), (1, 1, 99), (2, 0, 99), (2, 1, 99), (3, 0, 99), (3, 2, 99))
    matrix = cooccurrence.direct(known, CUT, gap=math.inf, half_life=math.inf, backward=0, damping=0.5).toarray()
    assert matrix[0] == pytest.approx([0, 3 / 2, 1 / 2])


def test_covisitation_keeps_the_strongest_neighbours_and_the_lower_id_of_ties() -> None:
    known = views((0, 0, 99), (0, 3, 99), (1, 0, 99), (1, 2, 99), (2, 0, 99), (2, 1, 99), (3, 0, 99), (3, 3, 99))
    matrix = cooccurrence.direct(known, CUT, damping=0, neighbours=2)
    assert matrix[[0]].indices.tolist() == [1, 3]


def test_covisitation_of_more_items_than_are_laid_out_at_a_time() -> None:
    pairs = cooccurrence.ROWS // 2 + 1
    known = views(*((user, 2 * user + which, 99.0) for user in range(pairs) for which in (0, 1)))
    matrix = cooccurrence.direct(known, CUT)
    assert matrix.indices.tolist() == (np.arange(2 * pairs) ^ 1).tolist()


# two steps


def test_two_steps_add_what_is_shared_and_not_the_way_back() -> None:
    first = sparse.csr_array(np.array([[0, 3, 1, 0], [2, 0, 0, 2], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=np.float32))
    found = cooccurrence.two_steps(first, np.arange(4), weight=2.0).toarray()
    # from 0: 3/4 to 1 and 1/4 to 2; on from 1 half to 3, half back; on from 2 all back: two steps end in 3 alone
    assert found[0] == pytest.approx([0, 3 / 4, 1 / 4, 2 * 1])
    # from 1: half to 0, half to 3; on from 0 1/4 to 2, 3/4 back; on from 3 nowhere
    assert found[1] == pytest.approx([1 / 2, 0, 2 * 1, 1 / 2])
    assert found[2] == pytest.approx([1, 2 * 1, 0, 0])
    assert found[3] == pytest.approx([0, 0, 0, 0])


def test_two_steps_walk_over_the_strongest_neighbours() -> None:
    first = sparse.csr_array(np.array([[0, 3, 1, 0], [2, 0, 0, 2], [1, 0, 0, 5], [0, 0, 0, 0]], dtype=np.float32))
    assert cooccurrence.two_steps(first, np.arange(4), width=1, weight=1.0).toarray()[2] == pytest.approx(
        [1 / 6, 0, 0, 5 / 6]
    )
    assert cooccurrence.two_steps(first, np.arange(4), neighbours=1).toarray()[0].astype(bool).tolist() == [
        False,
        False,
        False,
        True,
    ]


def test_two_steps_from_some_items_are_those_from_all() -> None:
    first = cooccurrence.covisitation(chance(7, 400), CUT)
    whole = cooccurrence.two_steps(first, np.arange(first.shape[0]))
    some = np.array([1, 4, 9])
    part = cooccurrence.two_steps(first, some)
    assert part[some].toarray().tobytes() == whole[some].toarray().tobytes()
    assert set(np.flatnonzero(np.diff(part.indptr)).tolist()) <= set(some.tolist())
    assert cooccurrence.two_steps(first, np.array([], dtype=np.int32)).nnz == 0


# item-kNN and RP3beta

BINARY = views((0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 0, 1), (2, 0, 3), (2, 1, 2))
"""Users 0 and 2 saw items 0 and 1, user 1 items 0 and 2."""


def test_seen_is_binary() -> None:
    assert cooccurrence.seen(BINARY, CUT).toarray().tolist() == [[1, 1, 0], [1, 0, 1], [1, 1, 0]]


def test_seen_keeps_the_newest_distinct_items() -> None:
    known = views((0, 0, 1), (0, 1, 2), (0, 0, 3), (0, 2, 4), (2, 1, 1))
    assert cooccurrence.seen(known, CUT, cap=2).toarray().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_cosine() -> None:
    expected = [
        [1, 2 / math.sqrt(3 * 2), 1 / math.sqrt(3 * 1)],
        [2 / math.sqrt(2 * 3), 1, 0],
        [1 / math.sqrt(1 * 3), 0, 1],
    ]
    assert cooccurrence.cosine(cooccurrence.seen(BINARY, CUT)).toarray() == pytest.approx(np.array(expected))


def test_rp3beta() -> None:
    matrix = cooccurrence.rp3beta(cooccurrence.seen(BINARY, CUT), alpha=1, beta=0.6).toarray()
    assert matrix[0] == pytest.approx([(3 / 3 / 2) / 3**0.6, (2 / 3 / 2) / 2**0.6, (1 / 3 / 2) / 1**0.6])
    assert matrix[2] == pytest.approx([(1 / 1 / 2) / 3**0.6, 0, (1 / 1 / 2) / 1**0.6])


# recommend


@given(st.data(), st.integers(1, 5))
def test_recommend_equals_the_dense_way(data: st.DataObject, k: int) -> None:
    # eighths add up exactly, so that ties are ties in any order of summing
    values = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=6, max_size=6))
    dense = np.array(values, dtype=np.float32) / 8
    history = asked(*data.draw(st.lists(st.lists(st.integers(0, 7), max_size=5), max_size=6)))
    weights = np.array([data.draw(st.integers(0, 3)) for _ in history.item], dtype=np.float64)
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


def test_recommend_does_not_depend_on_chunks_or_company() -> None:
    rng, items, users = np.random.default_rng(0), 1_500, 2_100
    matrix = random_neighbours(rng, items)
    history = asked(*(rng.integers(0, items, size=rng.integers(0, 12)).tolist() for _ in range(users)))
    assert np.diff(matrix.indptr)[history.item].sum() > cooccurrence.CELLS, "the whole is one chunk"
    lists, scores = cooccurrence.recommend(history, cooccurrence.recency(history), matrix, 20)
    some = history.take(np.arange(0, users, 7))
    again, rescored = cooccurrence.recommend(some, cooccurrence.recency(some), matrix, 20)
    assert again.tobytes() == lists[::7].tobytes()
    assert rescored.tobytes() == scores[::7].tobytes()


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    rng = np.random.default_rng(1)
    matrix = random_neighbours(rng, 30)
    history = asked(*(rng.integers(0, 30, size=4).tolist() for _ in range(20)))
    short, long = (cooccurrence.recommend(history, cooccurrence.recency(history), matrix, k)[0] for k in (3, 12))
    assert short.tolist() == long[:, :3].tolist()
