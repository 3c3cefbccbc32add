import math

import numpy as np
import pytest

from tasks.recsys import baselines, evaluation, metrics
from tasks.recsys.evaluation import DEPTHS, Question, question
from tasks.recsys.interactions import CART, TRANSACTION, VIEW, Ints, histories
from tests.recsys.made import Row, chance, table

CUT, END = 100, 200
ROWS: list[Row] = [
    # user 0 is warm: comes back to 1, finds 2 (known, of somebody else) and 4 (born after the cut)
    (0, 0, VIEW, 10),
    (0, 1, VIEW, 20),
    (0, 1, CART, 110),
    (0, 2, VIEW, 120),
    (0, 4, TRANSACTION, 130),
    # user 1 is warm, but does nothing in the window
    (1, 2, VIEW, 30),
    (1, 2, VIEW, 200),
    # user 2 is cold
    (2, 0, VIEW, 100),
    (2, 5, VIEW, 150),
    # user 3 is warm and only comes back
    (3, 3, VIEW, 99),
    (3, 3, VIEW, 199),
]
ASKED = question(table(ROWS), CUT, END, cap=10)


def test_the_warm_are_asked_in_order_with_their_histories() -> None:
    assert ASKED.asked.user.tolist() == ASKED.truth.user.tolist() == [0, 3]
    assert ASKED.asked.item.tolist() == [0, 1, 3]
    assert ASKED.asked.length.tolist() == [2, 1]


def test_the_truth_is_all_of_the_window() -> None:
    assert ASKED.truth.item.tolist() == [1, 2, 4, 3]
    assert ASKED.truth.event.tolist() == [CART, VIEW, TRANSACTION, VIEW]


def test_unseen_is_what_the_whole_past_lacks() -> None:
    assert ASKED.unseen.tolist() == [False, True, True, False]
    capped = question(table(ROWS), CUT, END, cap=1)
    assert capped.asked.item.tolist() == [1, 3]
    assert question(table([*ROWS, (0, 0, VIEW, 115)]), CUT, END, cap=1).unseen.tolist()[0] is False


def test_in_catalogue_is_what_was_known_of_anybody_before_the_cut() -> None:
    assert ASKED.in_catalogue.tolist() == [True, True, False, True]


def test_the_cold_are_those_without_a_history() -> None:
    assert ASKED.cold.user.tolist() == [2]
    assert ASKED.cold.item.tolist() == [0, 5]


def test_populations_are_parts_of_the_truth() -> None:
    parts = {name: np.flatnonzero(part).tolist() for name, part in evaluation.populations(ASKED).items()}
    assert parts == {
        "": [0, 1, 2, 3],
        "unseen": [1, 2],
        "in_catalogue": [0, 1, 3],
        "carts": [0, 2],
        "transactions": [2],
    }


def lists(*rows: list[int], k: int = 20) -> Ints:
    return np.array([row + [-1] * (k - len(row)) for row in rows], dtype=np.int32)


def test_per_user_by_hand() -> None:
    values = evaluation.per_user(lists([9, 2, 1], [3]), ASKED.truth)
    assert values["recall_at_10"].tolist() == [2 / 3, 1 / 1]
    assert values["reciprocal_rank_at_20"].tolist() == [1 / 2, 1]
    assert values["hit_rate_at_20"].tolist() == [1, 1]
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["ndcg_at_10"].tolist() == pytest.approx([(1 / math.log2(3) + 1 / math.log2(4)) / best, 1])


def test_only_depths_that_the_lists_reach_are_measured() -> None:
    names = set(evaluation.per_user(lists([1], [3], k=50), ASKED.truth))
    assert {name for name in names if name.startswith("recall")} == {"recall_at_10", "recall_at_20", "recall_at_50"}
    assert DEPTHS == (10, 20, 50, 100, 300)


def test_a_population_is_averaged_over_those_who_have_a_part_in_it() -> None:
    of_unseen = evaluation.of_population(lists([9, 2, 1], [3]), ASKED.truth, ASKED.unseen)
    assert of_unseen["recall_at_10"].tolist() == [1 / 2]  # user 3 found nothing new, and is not asked
    of_known = evaluation.of_population(lists([9, 2, 1], [3]), ASKED.truth, ASKED.in_catalogue)
    assert of_known["recall_at_10"].tolist() == [2 / 2, 1 / 1]


def test_estimates_are_one_a_metric() -> None:
    values = evaluation.per_user(lists([9, 2, 1], [3]), ASKED.truth)
    found = evaluation.estimates(values, resamples=200, seed=1)
    assert set(found) == set(values)
    assert found["recall_at_10"] == metrics.estimate(values["recall_at_10"], 200, 1)
    assert found["recall_at_10"].value == pytest.approx((2 / 3 + 1) / 2)


def test_later_events_change_no_question() -> None:
    everything = chance(3, 400)
    cut, end = 80 * 86_400_000, 120 * 86_400_000
    one, other = question(everything, cut, end, 5), question(everything.before(end), cut, end, 5)
    assert [a.tolist() for a in fields(one)] == [a.tolist() for a in fields(other)]
    assert len(one.truth) > 10


def fields(asked: Question) -> list[np.ndarray]:
    return [asked.asked.item, asked.truth.item, asked.truth.user, asked.unseen, asked.in_catalogue, asked.cold.item]


def test_a_history_from_after_the_cut_is_noticed() -> None:
    rows = chance(4, 1_500, users=60, items=500)
    cut, end = 100 * 86_400_000, 130 * 86_400_000
    asked = question(rows, cut, end, 100)
    leaked = histories(rows, end, 100, asked.truth.user)
    honest, cheated = (
        evaluation.per_user(baselines.own_items(of, 50), asked.truth)["recall_at_50"].mean()
        for of in (asked.asked, leaked)
    )
    assert honest < 0.15  # items are drawn by chance: some 17 of 500 are in a history
    assert cheated > 0.95
