import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.recsys import metrics
from tasks.recsys.interactions import Ints, Truth
from tasks.recsys.metrics import Hits, Mean

LISTS = np.array([[7, 3, 5, 9], [2, 4, -1, -1], [1, 8, 6, 0]], dtype=np.int32)
RELEVANT = [[3, 9, 90], [5], [1, 6]]  # 90 is in no list: no catalogue knew it


def truth_of(relevant: list[list[int]]) -> Truth:
    start = np.concatenate([[0], np.cumsum([len(items) for items in relevant])]).astype(np.int64)
    item = np.array([item for items in relevant for item in sorted(items)], dtype=np.int32)
    return Truth(np.arange(len(relevant), dtype=np.int32), start, item, np.zeros(len(item), dtype=np.int8))


TRUTH = truth_of(RELEVANT)
HIT = metrics.hits(LISTS, TRUTH)


def test_hits() -> None:
    assert HIT.rank.tolist() == [2, 4, 0, 0, 1, 3]  # items 3, 9, 90 of the first user, 5 of the second, 1 and 6
    assert HIT.depth == 4


def test_hits_of_some_pairs() -> None:
    kept = HIT.where(np.array([True, False, False, True, True, False]))
    assert (kept.rank.tolist(), kept.depth) == ([2, 0, 1], 4)


def test_hits_of_somebody_else_do_not_count() -> None:
    assert not metrics.hits(np.array([[5], [3]], dtype=np.int32), truth_of([[3], [5]])).rank.any()


def test_recall_counts_items_that_no_catalogue_knew() -> None:
    assert metrics.recall_at(HIT, TRUTH, 4).tolist() == [2 / 3, 0 / 1, 2 / 2]
    assert metrics.recall_at(HIT, TRUTH, 2).tolist() == [1 / 3, 0 / 1, 1 / 2]


def test_hit_rate() -> None:
    assert metrics.hit_rate_at(HIT, TRUTH, 1).tolist() == [0, 0, 1]
    assert metrics.hit_rate_at(HIT, TRUTH, 2).tolist() == [1, 0, 1]


def test_reciprocal_rank() -> None:
    assert metrics.reciprocal_rank_at(HIT, TRUTH, 4).tolist() == [1 / 2, 0, 1 / 1]
    assert metrics.reciprocal_rank_at(HIT, TRUTH, 1).tolist() == [0, 0, 1 / 1]


def test_ndcg_is_over_the_ideal_of_the_relevant_items() -> None:
    first, second, third, fourth = (1 / math.log2(rank + 1) for rank in (1, 2, 3, 4))
    expected = [(second + fourth) / (first + second + third), 0.0, (first + third) / (first + second)]
    assert metrics.ndcg_at(HIT, TRUTH, 4) == pytest.approx(expected)


def test_ndcg_ideal_has_no_more_than_k_items() -> None:
    first, second = 1 / math.log2(2), 1 / math.log2(3)
    assert metrics.ndcg_at(HIT, TRUTH, 2) == pytest.approx([second / (first + second), 0.0, first / (first + second)])
    assert metrics.ndcg_at(Hits(np.array([1, 0, 2], dtype=np.int32), 2), truth_of([[1, 2, 3]]), 2) == pytest.approx(
        [1.0]
    )


def test_a_list_without_a_hit_is_worth_nothing() -> None:
    miss = Hits(np.zeros(1, dtype=np.int32), 3)
    assert metrics.ndcg_at(miss, truth_of([[1]]), 3).tolist() == [0.0]


def test_metrics_refuse_to_look_further_than_the_lists() -> None:
    with pytest.raises(ValueError, match=r"at 5 of lists of 4: ask for 1 … 4"):
        metrics.recall_at(HIT, TRUTH, 5)


def test_lists_of_other_users_are_refused() -> None:
    with pytest.raises(ValueError, match="2 lists for 3 users"):
        metrics.hits(LISTS[:2], TRUTH)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Ints, list[list[int]]]:
    users, k = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    items = st.integers(0, 12)
    lists = np.full((users, k), -1, dtype=np.int32)
    for row in lists:
        filled = draw(st.lists(items, max_size=k, unique=True))
        row[: len(filled)] = filled
    return lists, [draw(st.lists(items, min_size=1, max_size=8, unique=True)) for _ in range(users)]


@given(cases())
def test_hits_are_the_members_of_each_users_set(case: tuple[Ints, list[list[int]]]) -> None:
    lists, relevant = case
    expected = [
        [*row, item].index(item) + 1 if item in row else 0
        for row, items in zip(lists.tolist(), relevant, strict=True)
        for item in sorted(items)
    ]
    assert metrics.hits(lists, truth_of(relevant)).rank.tolist() == expected


def test_hits_are_the_same_in_blocks() -> None:
    rng, k = np.random.default_rng(0), 300
    lists = np.stack([rng.permutation(600)[:k] for _ in range(metrics.CELLS // k + 100)]).astype(np.int32)
    relevant = [[int(item) for item in rng.permutation(600)[:2]] for _ in lists]
    expected = [
        [*row, item].index(item) + 1 if item in row else 0
        for row, items in zip(lists.tolist(), relevant, strict=True)
        for item in sorted(items)
    ]
    assert metrics.hits(lists, truth_of(relevant)).rank.tolist() == expected


@given(cases())
def test_metrics_lie_between_0_and_1_and_recall_grows_with_k(case: tuple[Ints, list[list[int]]]) -> None:
    lists, relevant = case
    truth = truth_of(relevant)
    hit = metrics.hits(lists, truth)
    before = np.zeros(len(lists))
    for k in range(1, lists.shape[1] + 1):
        recall, rank = metrics.recall_at(hit, truth, k), metrics.reciprocal_rank_at(hit, truth, k)
        ndcg = metrics.ndcg_at(hit, truth, k)
        assert ((before <= recall) & (recall <= 1)).all()
        assert ((rank >= 0) & (rank <= metrics.hit_rate_at(hit, truth, k))).all()
        assert ((ndcg >= 0) & (ndcg <= 1 + 1e-12)).all()
        before = recall


def test_coverage() -> None:
    lists = np.array([[0, 1], [0, -1]], dtype=np.int32)
    assert metrics.coverage(lists, 2, 8) == 2 / 8
    assert metrics.coverage(lists, 1, 8) == 1 / 8
    assert metrics.coverage(np.zeros((0, 2), dtype=np.int32), 2, 0) == 0


def test_average_popularity_skips_padding_and_empty_lists() -> None:
    lists = np.array([[0, 1, 2], [2, 0, -1], [-1, -1, -1]], dtype=np.int32)
    popularity = np.array([10, 4, 1])
    assert metrics.average_popularity(lists, 3, popularity) == pytest.approx(
        [(10 + 4 + 1) / 3, (1 + 10) / 2, math.nan], nan_ok=True
    )
    assert metrics.average_popularity(lists, 1, popularity)[:2].tolist() == [10, 1]


def test_estimate_is_the_mean_with_an_interval_around_it() -> None:
    mean = metrics.estimate(np.array([0.0, 1.0, 1.0, 0.0] * 100))
    assert mean.value == 0.5
    assert mean.n == 400
    assert mean.low is not None and mean.high is not None
    # the standard error of a proportion of 400 is sqrt(0.5 · 0.5 / 400) = 0.025
    assert mean.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)
    assert mean.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.01)


def test_estimate_of_values_that_are_all_distinct() -> None:
    mean = metrics.estimate(np.random.default_rng(1).normal(3.0, 2.0, size=2_500))
    assert mean.value is not None and mean.low is not None and mean.high is not None
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * 2.0 / 50, rel=0.15)
    assert mean.low < mean.value < mean.high


def test_estimate_of_nobody_has_no_value() -> None:
    assert metrics.estimate(np.zeros(0)) == metrics.Mean(None, None, None, 0)
    assert metrics.estimate(np.array([math.nan])) == metrics.Mean(None, None, None, 0)
    assert metrics.estimate(np.array([0.25, math.nan])) == metrics.Mean(0.25, None, None, 1)


def test_estimate_leaves_out_those_for_whom_there_is_no_value() -> None:
    assert metrics.estimate(np.array([1.0, math.nan, 3.0])).value == (1 + 3) / 2


def test_estimate_of_one_value_is_certain() -> None:
    assert metrics.estimate(np.full(50, 0.25)) == metrics.Mean(0.25, 0.25, 0.25, 50)


@pytest.mark.parametrize("users", [300, 3_000])
def test_estimate_depends_on_its_seed_alone(users: int) -> None:
    values = np.arange(float(users)) % 7
    first, again, other = (metrics.estimate(values, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_groups_of_many_users_give_the_interval_of_the_users() -> None:
    values = np.random.default_rng(2).exponential(1.0, 40_000)
    mean = metrics.estimate(values)
    assert mean.low is not None and mean.high is not None
    # the standard error of the mean of n values with deviation 1 is 1 / √n = 0.005
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * 0.005, rel=0.15)


def test_paired_interval_is_of_the_difference() -> None:
    base = np.random.default_rng(0).random(500)
    better = metrics.paired(base + 0.01, base)
    assert better.value == pytest.approx(0.01)
    # unpaired, the noise between users would drown it
    assert better.low is not None and better.low > 0
    with pytest.raises(ValueError, match="500 values paired with 499"):
        metrics.paired(base, base[1:])


def test_ratio_is_of_the_means() -> None:
    base = np.random.default_rng(0).random(500)
    found = metrics.ratio(base * 1.1, base)
    assert found.value == pytest.approx(1.1)
    assert found.low == pytest.approx(1.1) and found.high == pytest.approx(1.1)  # the same users in both
    assert metrics.ratio(np.array([1.0, 0.0, 3.0]), np.array([1.0, 1.0, 0.0])).value == (4 / 3) / (2 / 3)
    assert metrics.ratio(base, np.zeros(500)) == Mean(None, None, None, 500)


@pytest.mark.parametrize(
    ("mean", "told"),
    [
        (Mean(0.25, 0.2, 0.3, 1_234), "0.2500 [0.2000, 0.3000], n 1,234"),
        (Mean(0.25, None, None, 1), "0.2500, n 1"),
        (Mean(None, None, None, 0), "none, n 0"),
    ],
)
def test_a_mean_in_words(mean: Mean, told: str) -> None:
    assert str(mean) == told


def test_verdicts() -> None:
    assert metrics.verdict(Mean(0.2, 0.1, 0.3, 9)) == "better"
    assert metrics.verdict(Mean(-0.2, -0.3, -0.1, 9)) == "worse"
    assert metrics.verdict(Mean(0.1, -0.1, 0.3, 9)) == "no difference shown"
    assert metrics.verdict(Mean(0.1, None, None, 1)) == "too few users to tell"


def test_popularity_bias_is_over_what_people_do_by_themselves() -> None:
    popularity = np.array([3, 1])  # an interaction's item has (3·3 + 1·1) / 4 = 2.5 interactions on average
    assert metrics.popularity_bias(np.array([3.0, 2.0, math.nan]), popularity) == pytest.approx(2.5 / 2.5)
    assert metrics.popularity_bias(np.array([3.0]), popularity) == pytest.approx(3 / 2.5)
    assert metrics.popularity_bias(np.array([math.nan]), popularity) is None
    assert metrics.popularity_bias(np.array([1.0]), np.zeros(2, dtype=np.int64)) is None
