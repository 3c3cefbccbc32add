import itertools
import math

import numpy as np
import pytest

from tasks.recsys import baselines, evaluation, metrics
from tasks.recsys.evaluation import DEPTHS, Question, question
from tasks.recsys.interactions import CART, TRANSACTION, VIEW, histories
from tasks.recsys.metrics import Hits
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
        "cold_items": [0, 1, 3],
        "views": [1, 3],
        "carts": [0],
        "transactions": [2],
        "carts_and_transactions": [0, 2],
    }


def test_an_item_is_cold_below_so_many_interactions_before_the_cut() -> None:
    often: list[Row] = [(9, 2, VIEW, 40 + number) for number in range(evaluation.COLD - 2)]
    assert question(table([*ROWS, *often]), CUT, END, 10).cold_items.tolist()[1] is True
    often.append((9, 2, VIEW, 60))  # user 1's view and these make COLD
    assert question(table([*ROWS, *often]), CUT, END, 10).cold_items.tolist()[1] is False


def hits(*rows: list[int], k: int = 20) -> Hits:
    lists = np.array([row + [-1] * (k - len(row)) for row in rows], dtype=np.int32)
    return metrics.hits(lists, ASKED.truth)


def test_per_user_by_hand() -> None:
    values = evaluation.per_user(hits([9, 2, 1], [3]), ASKED.truth)
    assert values["recall_at_10"].tolist() == [2 / 3, 1 / 1]
    assert values["mrr_at_20"].tolist() == [1 / 2, 1]
    assert values["hit_rate_at_20"].tolist() == [1, 1]
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["ndcg_at_10"].tolist() == pytest.approx([(1 / math.log2(3) + 1 / math.log2(4)) / best, 1])


def test_only_depths_that_the_lists_reach_are_measured() -> None:
    names = set(evaluation.per_user(hits([1], [3], k=50), ASKED.truth))
    assert {name for name in names if name.startswith("recall")} == {"recall_at_10", "recall_at_20", "recall_at_50"}
    assert DEPTHS == (10, 20, 50, 100, 300)


def test_a_population_is_averaged_over_those_who_have_a_part_in_it() -> None:
    of_unseen = evaluation.of_population(hits([9, 2, 1], [3]), ASKED.truth, ASKED.unseen)
    assert of_unseen["recall_at_10"].tolist() == [1 / 2]  # user 3 found nothing new, and is not asked
    of_known = evaluation.of_population(hits([9, 2, 1], [3]), ASKED.truth, ASKED.in_catalogue)
    assert of_known["recall_at_10"].tolist() == [2 / 2, 1 / 1]


def test_estimates_are_one_a_metric() -> None:
    values = evaluation.per_user(hits([9, 2, 1], [3]), ASKED.truth)
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
        evaluation.per_user(metrics.hits(baselines.own_items(of, 50), asked.truth), asked.truth)["recall_at_50"].mean()
        for of in (asked.asked, leaked)
    )
    assert honest < 0.15  # items are drawn by chance: some 17 of 500 are in a history
    assert cheated > 0.95


def test_where_recall_is_lost() -> None:
    # 6 relevant pairs: item 4 of user 0 and item 5 of user 2 are in no catalogue; user 2 has no history (item 0);
    # user 0's item 1 is found, item 2 is the 51st; user 3's item 3 is not listed
    far = [*range(100, 149), 1, 2]
    assert far.index(1) + 1 == 50 and far.index(2) + 1 == 51
    found = evaluation.losses(hits(far, [9], k=300), ASKED)
    assert found == {
        "item_not_in_catalogue": 2 / 6,
        "user_without_history": 1 / 6,
        "not_in_300": 1 / 6,
        "in_300_not_in_50": 1 / 6,
        "found": 1 / 6,
    }


def test_nothing_is_lost_of_nothing() -> None:
    nothing = question(table([(0, 0, VIEW, 1)]), CUT, END, 10)
    assert evaluation.losses(Hits(np.zeros(0, dtype=np.int32), 300), nothing) == {}


def test_item_features_from_after_the_cut_are_noticed() -> None:
    """Popularity of the window itself: the one figure of an item that nobody can know at the cut."""
    rows = chance(5, 3_000, users=200, items=800)
    cut, end = 100 * 86_400_000, 110 * 86_400_000
    asked = question(rows, cut, end, 50)
    honest, cheated = (
        evaluation.per_user(metrics.hits(np.tile(popular, (len(asked.truth), 1)), asked.truth), asked.truth)
        for popular in (baselines.popular(rows, cut, 14, 50), baselines.popular(rows, end, 10, 50))
    )
    assert cheated["recall_at_50"].mean() > 2 * honest["recall_at_50"].mean()


def test_next_items_are_the_last_of_the_window_asked_from_what_went_before() -> None:
    histories, truth = evaluation.next_items(table(ROWS), CUT, END, cap=3)
    # user 0's last is 4, user 2's (cold) 5, user 3's 3; user 1 did nothing in the window
    assert truth.user.tolist() == histories.user.tolist() == [0, 2, 3]
    assert truth.item.tolist() == [4, 5, 3]
    assert [histories.item[a:b].tolist() for a, b in itertools.pairwise(histories.start)] == [[1, 1, 2], [0], [3]]
    assert evaluation.next_items(table([(0, 0, VIEW, 150)]), CUT, END, 3)[1].item.tolist() == []
    assert evaluation.next_items(table([]), CUT, END, 3)[1].item.tolist() == []
