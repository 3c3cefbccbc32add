"""Realised recall of lists made by hand, and of a planted generation that knows and one that does not."""

import itertools
import math

import numpy as np

from tasks.recsys import realised
from tasks.recsys.evaluation import Question, question
from tasks.recsys.interactions import CART, TRANSACTION, VIEW, Interactions, Ints
from tasks.recsys.realised import DEPTH, Report
from tests.recsys.made import Row, chance, table

CUT, END = 100, 200
ROWS: list[Row] = [
    (0, 0, VIEW, 10),
    (0, 1, VIEW, 20),
    (1, 2, VIEW, 30),
    (1, 0, VIEW, 40),
    (2, 0, VIEW, 50),
    # the window: user 0 comes back to 0 and buys 2, user 1 carts 1, user 3 is new
    (0, 0, VIEW, 110),
    (0, 2, TRANSACTION, 120),
    (1, 1, CART, 130),
    (3, 0, VIEW, 140),
    (2, 2, VIEW, 200),
]


def padded(*lists: list[int]) -> Ints:
    return np.array([row + [-1] * (DEPTH - len(row)) for row in lists], dtype=np.int32).reshape(-1, DEPTH)


def scored(interactions: Interactions, asked: Question, cut: int, shown: Ints, cold: list[int]) -> Report:
    return realised.score(interactions, asked, cut, shown, padded(cold)[0], resamples=100, seed=1)


def by_hand(shown: Ints, cold: list[int]) -> Report:
    return scored(table(ROWS), question(table(ROWS), CUT, END, cap=10), CUT, shown, cold)


def test_recall_and_ndcg_of_lists_made_by_hand() -> None:
    report = by_hand(padded([2, 5, 0], [7]), [3, 0])
    assert report["generation"]["recall_at_10"].value == (2 / 2 + 0 / 1) / 2
    assert report["generation"]["recall_at_10"].n == 2
    ndcg = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    assert math.isclose(report["generation"]["ndcg_at_10"].value or 0, ndcg / 2)
    assert report["generation"]["views.recall_at_50"].value == 1.0
    assert report["generation"]["transactions.recall_at_50"].value == 1.0
    assert report["generation"]["carts.recall_at_50"].value == 0.0
    assert report["generation"]["unseen.recall_at_50"].value == 0.5
    assert (report["cold_users"]["recall_at_10"].value, report["cold_users"]["recall_at_10"].n) == (1.0, 1)


def test_the_simple_methods_are_as_of_the_generation() -> None:
    report = by_hand(padded([2], [7]), [])
    own, both = report["own_history"], report["own_history_then_popular"]
    assert own["recall_at_50"].value == (1 / 2 + 0) / 2
    assert both["recall_at_50"].value == 1.0
    assert report["minus_own_history_then_popular"]["recall_at_50"].value == (1 / 2 + 0) / 2 - 1.0
    assert report["cold_users"]["recall_at_50"].value == 0.0
    later = [*ROWS, (4, 9, VIEW, 150), (4, 9, VIEW, 160), (4, 9, VIEW, 170)]
    again = scored(table(later), question(table(ROWS), CUT, END, cap=10), CUT, padded([2], [7]), [])
    assert again["popular_14_days"] == report["popular_14_days"]


def test_a_window_in_which_nobody_known_came_has_no_value() -> None:
    report = scored(table(ROWS), question(table(ROWS), END + 1, END + 2, cap=10), END + 1, padded(), [0])
    for figures in report.values():
        assert {(one.value, one.n) for one in figures.values()} == {(None, 0)}


def test_lists_that_know_the_window_beat_the_simple_methods_and_chance_does_not() -> None:
    rows = chance(3, 4_000, users=200, items=150)
    cut = int(np.quantile(rows.time, 0.9))
    asked = question(rows, cut, int(rows.time.max()) + 1, cap=50)
    rng = np.random.default_rng(4)
    knows = padded(*(asked.truth.item[a:b].tolist() for a, b in itertools.pairwise(asked.truth.start)))
    blind = padded(*(rng.permutation(150)[:DEPTH].tolist() for _ in range(len(asked.truth))))
    best, chances = (scored(rows, asked, cut, lists, []) for lists in (knows, blind))
    assert best["generation"]["recall_at_50"].value == best["generation"]["ndcg_at_10"].value == 1.0
    gain = best["minus_own_history_then_popular"]["recall_at_50"]
    assert gain.low is not None and gain.low > 0
    middle = chances["generation"]["recall_at_50"]
    assert middle.low is not None and middle.high is not None
    assert middle.low <= DEPTH / 150 <= middle.high
