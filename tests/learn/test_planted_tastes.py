"""Planted tastes are found, chance is not: both bounds, so that a leak fails as surely as a model that learns nothing.

Whole nights of the learning verbs on demo data whose noise knob is at 0 and at 1.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tasks.contracts import Ranker, RecallReport
from tasks.demo_data import make_demo_data
from tasks.recsys.synthetic import DemoConfig
from tests.world import Home

pytestmark = pytest.mark.learn

Learned = tuple[RecallReport, Ranker]


def learn(home: Home, noise: float) -> Learned:
    data = home.path / "data"
    make_demo_data(data, DemoConfig(scale=0.01, noise=noise))
    dataset = home.run("prepare_data", {"data": str(data)})
    both: dict[str, Any] = {"dataset": dataset, "retriever": home.run("train_two_tower", {}, {"dataset": dataset})}
    candidates = [home.run("generate_candidates", {}, both)]
    ranker = home.run("train_lambdarank", {}, {"dataset": dataset, "candidates": candidates})
    return home.run("evaluate_recall", {}, both), ranker


@pytest.fixture(scope="module")
def planted(new_home: Callable[[], Home]) -> Learned:
    return learn(new_home(), noise=0.0)


@pytest.fixture(scope="module")
def chance(new_home: Callable[[], Home]) -> Learned:
    return learn(new_home(), noise=1.0)


def test_planted_tastes_are_found(planted: Learned) -> None:
    """Own history and popularity alone reach 0.30 on such data, the planted tastes themselves 0.73."""
    report, _ = planted
    assert report.two_tower.n > 150
    for found in (report.two_tower, report.blend):
        assert found.low is not None and found.high is not None
        assert found.low > 0.36
        assert found.high < 0.73


def test_the_blend_is_not_below_the_best_simple_method(planted: Learned) -> None:
    report, _ = planted
    assert report.blend_minus_baseline.high is not None and report.blend_minus_baseline.high > 0


def test_the_ranker_is_not_below_the_order_that_it_was_given(planted: Learned) -> None:
    _, ranker = planted
    assert ranker.trees > 0
    assert ranker.after_minus_before.high is not None and ranker.after_minus_before.high > 0
    assert ranker.ndcg_before.value is not None and ranker.ndcg_before.value > 0.2


def test_where_there_is_nothing_to_learn_nothing_beats_the_popular_items(chance: Learned) -> None:
    report, _ = chance
    assert report.baseline.startswith("popular")
    for found in (report.two_tower, report.blend):
        assert found.low is not None and report.best_baseline.high is not None
        assert found.low < report.best_baseline.high
    assert report.blend_minus_baseline.low is not None and report.blend_minus_baseline.low <= 0


def test_where_there_is_nothing_to_learn_the_ranker_gains_no_more_than_popularity_gives(chance: Learned) -> None:
    _, ranker = chance
    assert ranker.ndcg_after.low is not None
    assert ranker.ndcg_after.low < 0.1
