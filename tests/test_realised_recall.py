"""The earlier generation scored on what people did since: a real store, a real Dataset, real MLflow metrics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient

from tasks import dataset_files, publication, realised_recall
from tasks.contracts import Dataset, Realised
from tasks.publication import Generation
from tasks.recsys.interactions import DAY
from tests.test_prepare_data import START, prepare, shop
from tests.world import Home, MakeInput

AS_OF = START + 40 * DAY
EARLIER = AS_OF - 3 * DAY


@pytest.fixture
def dataset(home: Home, make_input: MakeInput) -> Dataset:
    return prepare(home, make_input("data", shop()), as_of="2015-07-11T00:00:00Z")


def write(name: str, as_of: int, lists: Mapping[int, list[int]], default: list[int]) -> None:
    """A held generation: visitor → items."""
    items = list(lists.values())
    scores = [[1 / (rank + 1) for rank in range(len(row))] for row in items]
    shown = pl.DataFrame(
        {"list": range(len(items)), "items": items, "scores": scores},
        schema={"list": pl.Int32, "items": pl.List(pl.Int64), "scores": pl.List(pl.Float64)},
    )
    who = pl.DataFrame({"visitorid": list(lists), "list": range(len(items))})
    first = pl.DataFrame({"itemid": default, "score": [1.0] * len(default)})
    publication.store().write(Generation(name, as_of, "n", "held", "why", "1", None), [shown], [who], first)


def measure(home: Home, dataset: Dataset) -> tuple[Realised | None, str, str]:
    """What was measured, the id of the run, the id of the night."""
    with home.task("publish_recommendations", [dataset]) as run:
        return realised_recall.measure(run, publication.store(), dataset, run.fetch(dataset)), run.run_id, run.night


def done_since(home: Home, dataset: Dataset, since: int) -> dict[int, list[int]]:
    """visitorid → the itemids that they did something with, read off the Dataset's files."""
    folder = home.stored(dataset)
    rows = dataset_files.read_interactions(folder).between(since, None)
    users, items = dataset_files.read_user_ids(folder), dataset_files.read_item_ids(folder)
    table = pl.DataFrame({"visitor": users[rows.user], "item": items[rows.item]}).unique()
    return {int(who): sorted(done["item"]) for (who,), done in table.group_by("visitor")}


def test_lists_that_foresaw_the_days_have_recall_one(home: Home, dataset: Dataset) -> None:
    knows = done_since(home, dataset, EARLIER)
    write("older", EARLIER - DAY, {1000: [1]}, [1])
    write("foresaw", EARLIER, knows, [])
    write("tonight's, of an earlier try", AS_OF, {1000: [1]}, [1])
    found, run_id, night = measure(home, dataset)
    assert found is not None
    assert (found.generation, found.days) == ("foresaw", 3.0)
    assert found.recall.value == found.ndcg.value == 1.0
    assert found.recall.n == len(knows) > 10
    assert found.recall_minus_baseline.value == pytest.approx(1 - (found.baseline_recall.value or 0))
    client = MlflowClient(home.environment["MLFLOW_TRACKING_URI"])
    for one in (run_id, night):
        metrics = client.get_run(one).data.metrics
        assert metrics["realised.recall_at_50"] == metrics["realised.views.ndcg_at_10"] == 1.0
        assert metrics["realised.recall_at_50.n"] == found.recall.n
        assert metrics["realised.own_history_then_popular.recall_at_50"] == found.baseline_recall.value
    (path,) = Path(home.path / "mlflow" / "artifacts" / run_id).rglob("realised.json")
    told: dict[str, Any] = json.loads(path.read_text())
    assert (told["scored"], told["from"], told["to"]) == ("foresaw", EARLIER, AS_OF)


def test_recall_is_what_arithmetic_says_and_a_visitor_without_a_list_was_shown_the_default(
    home: Home, dataset: Dataset
) -> None:
    knows = done_since(home, dataset, EARLIER)
    someone, *others = sorted(knows)
    default = [77_777, *knows[someone][:1]]
    write("partly", EARLIER, {visitor: [] for visitor in others}, default)
    found, _, _ = measure(home, dataset)
    assert found is not None
    assert found.recall.value == pytest.approx(1 / len(knows[someone]) / len(knows))


def test_where_nothing_earlier_is_kept_there_is_nothing_to_score(home: Home, dataset: Dataset) -> None:
    assert measure(home, dataset)[0] is None
    write("same day", AS_OF, {1000: [50]}, [50])
    found, run_id, _ = measure(home, dataset)
    assert found is None
    metrics = MlflowClient(home.environment["MLFLOW_TRACKING_URI"]).get_run(run_id).data.metrics
    assert not [name for name in metrics if name.startswith("realised")]


def test_ids_are_found_in_an_encoder_in_any_order() -> None:
    dense = realised_recall._dense(np.array([[30, 10, -1], [20, 40, 30]]), np.array([20, 30, 10]))
    assert dense.tolist() == [[1, 2, -1], [0, -1, 1]]
