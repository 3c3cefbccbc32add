"""What evaluate_recall writes and logs, on a night of a small shop."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks.contracts import RecallReport, Retriever
from tasks.demo_data import make_demo_data
from tasks.recsys.baselines import BASELINES
from tasks.recsys.evaluation import LOSSES
from tasks.recsys.synthetic import DemoConfig
from tests.world import Home

MLFLOW_NAME = re.compile(r"[\w./ -]+")


@dataclass(frozen=True)
class Evaluated:
    """An evaluated retriever and what was written of it."""

    home: Home
    retriever: Retriever
    report: RecallReport
    recall: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def evaluated(new_home: Callable[[], Home], tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    home, data = new_home(), Path(tmp_path_factory.mktemp("demo")) / "shop"
    make_demo_data(data, DemoConfig(scale=0.003))
    dataset = home.run("prepare_data", {"data": str(data)})
    retriever = home.run("train_two_tower", {"max_epochs": 1}, {"dataset": dataset})
    report = home.run("evaluate_recall", {"resamples": 100}, {"dataset": dataset, "retriever": retriever})
    recall = json.loads((home.stored(report) / "recall.json").read_text())
    return Evaluated(home, retriever, report, recall)


def test_each_method_has_every_metric_with_n_and_interval(evaluated: Evaluated) -> None:
    names = [f"recall_at_{k}" for k in (10, 20, 50, 100, 300)] + ["ndcg_at_10", "mrr_at_20", "hit_rate_at_20"]
    parts = ["", "unseen.", "in_catalogue.", "cold_items.", "views.", "carts.", "transactions."]
    for method in ("two_tower", "blend", *BASELINES):
        for name in (f"{part}{name}" for part in (*parts, "carts_and_transactions.") for name in names):
            found = evaluated.recall[method][name]
            assert found.keys() == {"value", "low", "high", "n"}
            if found["n"]:
                assert 0 <= found["value"] <= 1
            else:
                assert found["value"] is None
        assert 0 < evaluated.recall[method]["coverage_at_50"] <= 1
        assert evaluated.recall[method]["popularity_bias_at_50"] > 0


def test_the_cold_are_measured_apart(evaluated: Evaluated) -> None:
    for method in ("blend", "popular_7_days", "popular_14_days"):
        assert evaluated.recall[method]["cold_users.recall_at_50"]["n"] > 100
    assert (
        evaluated.recall["blend"]["cold_users.recall_at_50"]
        == (evaluated.recall["popular_14_days"]["cold_users.recall_at_50"])
    )


def test_the_report_says_how_the_models_compare_with_the_best_baseline(evaluated: Evaluated) -> None:
    report, best = evaluated.report, evaluated.report.baseline
    assert best in BASELINES
    assert report.best_baseline.value == max(evaluated.recall[name]["recall_at_50"]["value"] for name in BASELINES)
    for model in ("two_tower", "blend"):
        paired = evaluated.recall["paired"][f"{model}_minus_{best}"]
        values = [evaluated.recall[name]["recall_at_50"]["value"] for name in (model, best)]
        assert paired["value"] == pytest.approx(values[0] - values[1])
        assert paired["verdict"] in ("better", "worse", "no difference shown")


def test_where_recall_is_lost_adds_up(evaluated: Evaluated) -> None:
    lost = evaluated.recall["losses_of_blend"]
    assert sum(lost[name] for name in LOSSES) == pytest.approx(1)
    assert lost["n"] > 0


def test_the_retriever_s_own_run_has_the_numbers(evaluated: Evaluated) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in evaluated.home.environment.items():
            patch.setenv(variable, value)
        uri = evaluated.home.environment["MLFLOW_TRACKING_URI"]
        logged = MlflowClient(uri).get_run(evaluated.retriever.run_id).data.metrics
    assert logged["blend.recall_at_50"] == evaluated.report.blend.value
    assert logged["blend.recall_at_50.n"] == evaluated.report.blend.n
    assert logged["blend.unseen.recall_at_300"] == evaluated.recall["blend"]["unseen.recall_at_300"]["value"]
    assert logged[f"{evaluated.report.baseline}.mrr_at_20"] > 0
    assert logged["losses_of_blend.found"] == evaluated.recall["losses_of_blend"]["found"]
    assert all(MLFLOW_NAME.fullmatch(name) for name in logged)
