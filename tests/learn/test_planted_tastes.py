"""Planted tastes are found, chance is not: both bounds, so that a leak fails as surely as a model that learns nothing.

Whole nights of the learning verbs on demo data whose noise knob is at 0 and at 1.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tasks.contracts import Ranker, RecallReport
from tasks.demo_data import make_demo_data
from tasks.recsys.synthetic import DemoConfig
from tests.world import Home

pytestmark = pytest.mark.learn

OPTIMUM = 0.73
"""recall@50 at noise 0 of a list by the planted tastes themselves, on data like this."""
SHARE = 0.55
"""What is reached of it: with a few thousand events most items have been met a few times only."""


@dataclass(frozen=True)
class Learned:
    """What a night measured: the artifacts, and every figure by the name of its method."""

    report: RecallReport
    ranker: Ranker
    recall: dict[str, dict[str, float]]
    """recall@50"""
    ndcg: dict[str, dict[str, float]]
    """NDCG@10"""


def learn(home: Home, noise: float) -> Learned:
    data = home.path / "data"
    make_demo_data(data, DemoConfig(scale=0.01, noise=noise))
    dataset = home.run("prepare_data", {"data": str(data)})
    both: dict[str, Any] = {"dataset": dataset, "retriever": home.run("train_two_tower", {}, {"dataset": dataset})}
    candidates = [home.run("generate_candidates", {}, both)]
    ranker = home.run("train_lambdarank", {}, {"dataset": dataset, "candidates": candidates})
    report = home.run("evaluate_recall", {}, both)
    methods = json.loads((home.stored(report) / "recall.json").read_text())
    recall = {name: found["recall_at_50"] for name, found in methods.items() if "recall_at_50" in found}
    return Learned(report, ranker, recall, json.loads((home.stored(ranker) / "ndcg.json").read_text()))


@pytest.fixture(scope="module")
def planted(new_home: Callable[[], Home]) -> Learned:
    return learn(new_home(), noise=0.0)


@pytest.fixture(scope="module")
def chance(new_home: Callable[[], Home]) -> Learned:
    return learn(new_home(), noise=1.0)


@pytest.mark.parametrize("method", ["two_tower", "blend"])
def test_planted_tastes_are_found_and_nothing_beyond_them(planted: Learned, method: str) -> None:
    found = planted.recall[method]
    assert found["n"] > 150
    assert found["value"] > SHARE * OPTIMUM
    assert found["low"] > planted.recall["popular_14_days"]["high"]
    assert found["low"] > planted.recall["own_history_then_popular"]["value"]
    assert found["high"] < OPTIMUM


def test_the_blend_is_not_below_the_best_simple_method(planted: Learned) -> None:
    gain = planted.report.blend_minus_baseline
    assert gain.high is not None and gain.high > 0


def test_the_ranker_is_not_below_the_order_that_it_was_given(planted: Learned) -> None:
    ranker = planted.ranker
    assert ranker.trees > 0
    assert ranker.after_minus_before.high is not None and ranker.after_minus_before.high > 0
    assert ranker.ndcg_before.value is not None and ranker.ndcg_before.value > 0.2


def test_the_ranker_does_not_see_the_answers(planted: Learned) -> None:
    """With them it would reach what the candidates allow; see the planted leak in the tests of the ranking."""
    assert planted.ndcg["after"]["value"] < 0.75 * planted.ndcg["ceiling"]["value"]


@pytest.mark.parametrize("method", ["two_tower", "blend"])
def test_where_there_is_nothing_to_learn_nothing_beats_the_popular_items(chance: Learned, method: str) -> None:
    """Somebody's own past says nothing there, and costs places: half of what the popular items reach is left."""
    found, popular = chance.recall[method], chance.recall["popular_14_days"]
    assert chance.report.baseline.startswith("popular")
    assert found["value"] < popular["high"]
    assert found["value"] > popular["value"] / 2
    assert chance.report.blend_minus_baseline.low is not None and chance.report.blend_minus_baseline.low <= 0


def test_where_there_is_nothing_to_learn_the_ranker_gains_no_more_than_popularity_gives(chance: Learned) -> None:
    found, popular = chance.ndcg["after"], chance.ndcg["popular"]
    assert found["value"] < popular["high"]
    assert found["high"] > popular["low"]
    assert found["value"] < 0.25 * chance.ndcg["ceiling"]["value"]
