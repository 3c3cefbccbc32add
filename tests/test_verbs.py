"""The verbs one after another on a small shop: what belongs together, what repeats, what must not change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
from mlflow import MlflowClient

from tasks import dataset_files, fits, publication, registry, train_two_tower
from tasks.contracts import TASKS, Artifact, Dataset, Estimate
from tasks.demo_data import make_demo_data
from tasks.failures import BadConfig, BadData
from tasks.publish_recommendations import RECALL
from tasks.recsys.interactions import DAY
from tasks.recsys.metrics import Mean
from tasks.recsys.synthetic import DemoConfig
from tasks.tracking import RETRIEVER_MODEL
from tests.world import Home

AS_OF = "2015-09-10T00:00:00Z"
QUICK = {"max_epochs": 2, "resamples": 100, "max_trees": 10, "min_groups": 1, "users_per_shard": 1_000}
WORSE = Estimate(value=-0.02, low=-0.03, high=-0.01, n=400)


@dataclass(frozen=True)
class Night:
    """A home with one night in it."""

    home: Home
    artifacts: Mapping[str, Any]

    def publish(self, **changed: Any) -> Any:
        """Publishes the night again, with some of its artifacts changed."""
        names = ("dataset", "retriever", "report", "candidates", "ranker")
        return self.home.run(
            "publish_recommendations", {}, {name: self.artifacts[name] for name in names} | changed, run_id="m"
        )

    def digests(self) -> list[str]:
        """Of all that a repeated night makes again to the byte; the morning page holds durations."""
        every = [self.artifacts[name] for name in ("dataset", "retriever", "report", "ranker", "publication")]
        return [one.digest for one in [*every, *self.artifacts["candidates"]]]


BETTER = Estimate(value=0.02, low=0.01, high=0.03, n=400)


def run_night(home: Home, data: Path, after_minus_before: Estimate | None = None, **context: Any) -> Night:
    """Every verb, for real; settings that make it quick.

    Its ranker's gain lies within chance, so it steps aside, unless it is published with another `after_minus_before`.
    """

    def run(name: str, inputs: Mapping[str, Any], **settings: Any) -> Any:
        fields = TASKS[name].config.model_fields
        config = {key: value for key, value in (QUICK | settings).items() if key in fields}
        return home.run(name, config, inputs, **context)

    dataset: Dataset = run("prepare_data", {}, data=str(data), as_of=AS_OF)
    both = {"dataset": dataset, "retriever": run("train_two_tower", {"dataset": dataset})}
    report = run("evaluate_recall", both)
    candidates = [run("generate_candidates", both, shard=shard) for shard in range(dataset.shards)]
    ranker = run("train_lambdarank", {"dataset": dataset, "candidates": candidates})
    if after_minus_before:
        ranker = ranker.model_copy(update={"after_minus_before": after_minus_before})
    made = {**both, "report": report, "candidates": candidates, "ranker": ranker}
    made["publication"] = run("publish_recommendations", made)
    return Night(home, {**made, "page": run("write_report", made)})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "shop"
    make_demo_data(folder, DemoConfig(scale=0.003))
    return folder


@pytest.fixture(scope="module")
def night(new_home: Callable[[], Home], data: Path) -> Night:
    return run_night(new_home(), data)


@pytest.fixture(autouse=True)
def environment(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in night.home.environment.items():
        monkeypatch.setenv(variable, value)


def before(data: Path, folder: Path, instant: str) -> Path:
    """A copy of the data without a row at or after the instant."""
    folder.mkdir()
    (folder / "demo.json").write_bytes((data / "demo.json").read_bytes())
    cut = pl.lit(instant).str.to_datetime(time_zone="UTC").dt.epoch("ms")
    for path in data.glob("*.csv"):
        table = pl.read_csv(path, infer_schema=False)
        if "timestamp" in table.columns:
            table = table.filter(pl.col("timestamp").cast(pl.Int64) < cut)
        table.write_csv(folder / path.name)
    return folder


def test_an_earlier_as_of_is_the_same_night_whatever_came_later(
    night: Night, new_home: Callable[[], Home], data: Path, tmp_path: Path
) -> None:
    """Also the test that a night repeats: every artifact, to the byte, in another home."""
    again = run_night(new_home(), before(data, tmp_path / "early", AS_OF))
    assert again.artifacts["dataset"].input_digest != night.artifacts["dataset"].input_digest
    assert again.digests() == night.digests()
    lists = [publication.Store(one.home.path / "recommendations.db").read(None) for one in (night, again)]
    assert lists[0].equals(lists[1])


def test_everybody_known_gets_one_full_list_without_repeats(night: Night) -> None:
    dataset: Dataset = night.artifacts["dataset"]
    assert dataset.shards > 1
    rows = publication.store().read(None)
    per_visitor = rows.group_by("visitorid").agg(pl.len(), pl.col("rank").max(), pl.col("itemid").n_unique())
    assert per_visitor.height == dataset.users == night.artifacts["publication"].users
    assert (per_visitor["len"] == 50).all()
    assert (per_visitor["rank"] == 50).all()
    assert (per_visitor["itemid"] == 50).all()
    assert rows.height == night.artifacts["publication"].rows
    scores = rows.select(falls=(pl.col("score").diff().over("visitorid") <= 1e-6) | (pl.col("rank") == 1))
    assert scores["falls"].all()


def test_unavailable_items_are_not_recommended(night: Night) -> None:
    dataset: Dataset = night.artifacts["dataset"]
    folder = night.home.stored(dataset)
    table = dataset_files.read_items(folder, dataset.as_of)
    gone = table.filter(pl.col("available") == 0)["item"].to_numpy()
    ids = pl.read_parquet(folder / "items.parquet")["itemid"].to_numpy()[gone]
    assert len(ids)
    assert not set(ids.tolist()) & set(publication.store().read(None)["itemid"].to_list())


def test_the_ranker_and_the_recall_have_their_numbers(night: Night) -> None:
    report, ranker = night.artifacts["report"], night.artifacts["ranker"]
    assert report.blend.n == report.two_tower.n == report.best_baseline.n == ranker.ndcg_after.n > 0
    assert report.blend.low <= report.blend.value <= report.blend.high
    assert ranker.trees > 0


def test_the_morning_page_tells_what_the_tasks_have_measured(night: Night) -> None:
    page, report, ranker = (night.artifacts[name] for name in ("page", "report", "ranker"))
    assert page.left_out == ("Realised recall", "The nights before")
    text = (night.home.stored(page) / page.page).read_text(encoding="utf-8")
    for measured in (report.blend, report.best_baseline, ranker.ndcg_before, ranker.ndcg_after):
        assert f"{measured.value:.4f} [{measured.low:.4f}, {measured.high:.4f}]" in text
    assert all(f">{task}" in text.replace("<wbr>", "") for task in list(TASKS)[: list(TASKS).index("write_report")])


def test_a_backfill_is_kept_and_not_in_force(night: Night) -> None:
    names = ("dataset", "retriever", "report", "candidates", "ranker")
    inputs = {name: night.artifacts[name] for name in names}
    night.home.run("publish_recommendations", {}, inputs)  # a night's own second try changes nothing
    held = night.home.run("publish_recommendations", {}, inputs, run_type="backfill", run_id="b")
    assert held.in_force == night.artifacts["publication"].generation


def new_store(night: Night, tmp_path: Path) -> Home:
    """The night's home with nothing published in it."""
    return Home(night.home.path, {"NIGHTJAR_RECOMMENDATIONS": str(tmp_path / "new.db")})


def inputs_of(night: Night) -> dict[str, Any]:
    return {name: night.artifacts[name] for name in ("dataset", "retriever", "report", "candidates", "ranker")}


@pytest.mark.parametrize("serves", [True, False])
def test_the_lists_are_in_the_order_of_a_ranker_that_is_shown_to_be_better_only(
    night: Night, tmp_path: Path, serves: bool
) -> None:
    home, inputs = new_store(night, tmp_path), inputs_of(night)
    ranker, gain = inputs["ranker"], BETTER if serves else BETTER.model_copy(update={"low": -0.01})
    inputs["ranker"] = ranker.model_copy(update={"after_minus_before": gain})
    published = home.run("publish_recommendations", {}, inputs)
    store = publication.Store(tmp_path / "new.db")
    generation, rows = store.in_force(), store.read(None)
    assert generation and generation.ranker_version == (ranker.model_version if serves else None)
    assert ("the ranker steps aside" in published.reason) is not serves
    of_the_blend = np.allclose(rows["score"].to_numpy() * rows["rank"].to_numpy(), 1, atol=1e-3)
    assert of_the_blend is not serves


def test_a_backfill_into_an_empty_store_puts_nothing_in_force_unless_asked(night: Night, tmp_path: Path) -> None:
    home, inputs = new_store(night, tmp_path), inputs_of(night)
    held = home.run("publish_recommendations", {}, inputs, run_type="backfill")
    assert (held.verdict, held.in_force) == ("held", "")
    asked = home.run("publish_recommendations", {"publish": "always"}, inputs, run_type="backfill")
    assert (asked.verdict, asked.in_force) == ("first", asked.generation)


def test_a_night_is_held_against_the_record_of_a_champion_until_a_person_forces_it(
    night: Night, tmp_path: Path
) -> None:
    """A champion of far better figures stands on record; the night's own versions are newer."""
    home, inputs = new_store(night, tmp_path), inputs_of(night)
    assert home.run("publish_recommendations", {}, inputs).verdict == "first"
    with home.task("train_two_tower", [inputs["dataset"]]) as run:
        version = run.client.get_model_version(RETRIEVER_MODEL, inputs["retriever"].model_version)
        newer = run.client.create_model_version(RETRIEVER_MODEL, str(version.source), version.run_id, tags=version.tags)
        best = {RECALL: Mean(0.9, 0.89, 0.91, 400)}
        registry.record(run.client, inputs["retriever"].model_version, best)
    inputs["retriever"] = inputs["retriever"].model_copy(update={"model_version": str(newer.version)})
    (tmp_path / "new.db").unlink()
    other = publication.Store(tmp_path / "new.db")
    default = pl.DataFrame({"itemid": [1], "score": [1.0]})
    other.write(publication.Generation("of before", 1, "", "first", "", "1", None), [], [], default)
    other.switch("of before")
    held = home.run("publish_recommendations", {}, inputs)
    assert held.verdict == "held" and "of champion version" in held.reason
    assert held.in_force == "of before"
    forced = home.run("publish_recommendations", {"force_reason": "the shop is another"}, inputs)
    assert forced.verdict == "forced" and forced.reason.startswith("the shop is another; ")
    assert "the gate would have held" in forced.reason
    champion = run.client.get_model_version_by_alias(RETRIEVER_MODEL, "champion")
    assert (str(champion.version), champion.tags["champion"]) == (str(newer.version), "forced")
    other.roll_back("of before")
    for _ in range(2):  # nor does a task that is run once more undo what a person did
        again = home.run("publish_recommendations", {}, inputs)
        assert (again.verdict, again.in_force) == ("held", "of before")
        assert "was rolled back" in again.reason


def test_a_second_try_keeps_what_the_first_one_decided(night: Night, tmp_path: Path) -> None:
    """The first publication is made whatever the gate says; a try that ended after the switch is not judged anew."""
    home, inputs = new_store(night, tmp_path), inputs_of(night)
    inputs["report"] = inputs["report"].model_copy(update={"blend_minus_baseline": WORSE})
    tries = [home.run("publish_recommendations", {}, inputs) for _ in range(2)]
    assert [one.verdict for one in tries] == ["first", "first"]
    assert "would have held" in tries[1].reason


def test_what_was_published_before_is_scored_and_changes_no_digest(night: Night, tmp_path: Path) -> None:
    store = publication.Store(tmp_path / "new.db")
    home = Home(night.home.path, {"NIGHTJAR_RECOMMENDATIONS": str(store.path)})
    names = ("dataset", "retriever", "report", "candidates", "ranker")
    tonight = night.artifacts["publication"]
    earlier = publication.Generation("earlier", tonight.as_of - DAY, "night", "held", "why", "1", None)
    store.write(earlier, [], [], pl.DataFrame({"itemid": [1], "score": [1.0]}))
    again = home.run("publish_recommendations", {}, {name: night.artifacts[name] for name in names})
    assert tonight.realised is None
    assert again.realised.generation == "earlier"
    assert again.realised.recall.n > 0
    assert again.digest == tonight.digest


def test_artifacts_of_another_night_are_refused(night: Night) -> None:
    other = night.artifacts["ranker"].model_copy(update={"dataset_digest": "sha256:other"})
    with pytest.raises(BadData, match="sha256:other"):
        night.publish(ranker=other)


def test_a_missing_shard_is_refused(night: Night) -> None:
    with pytest.raises(BadData, match="candidates of shards"):
        night.publish(candidates=night.artifacts["candidates"][:-1])


def test_a_shard_that_does_not_exist_is_a_setting_to_correct(night: Night) -> None:
    inputs = {name: night.artifacts[name] for name in ("dataset", "retriever")}
    with pytest.raises(BadConfig, match="numbered from 0"):
        night.home.run("generate_candidates", {"shard": 99}, inputs)


def test_a_changed_shard_is_refused(night: Night) -> None:
    shard: Artifact = night.artifacts["candidates"][0]
    path = night.home.stored(shard) / "users.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    try:
        with pytest.raises(BadData, match="its producer recorded"):
            night.publish()
    finally:
        path.write_bytes(whole)


def test_the_champion_answers_by_itself(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in night.home.environment.items():
        monkeypatch.setenv(variable, value)
    mlflow.set_tracking_uri(night.home.environment["MLFLOW_TRACKING_URI"])
    model = mlflow.pyfunc.load_model(f"models:/{RETRIEVER_MODEL}@champion")
    folder = night.home.stored(night.artifacts["dataset"])
    ids = dataset_files.read_item_ids(folder).tolist()
    found = model.predict(pd.DataFrame({"items": [ids[:2], [ids[5]]], "events": [["view", "addtocart"], ["view"]]}))
    assert [len(row) for row in found["items"]] == [300, 300]
    assert set(found["items"][0]) <= set(ids)


@pytest.mark.parametrize("max_epochs", [1, 5])
def test_fits_made_side_by_side_are_those_made_one_after_another(
    night: Night, monkeypatch: pytest.MonkeyPatch, max_epochs: int
) -> None:
    inputs = {"dataset": night.artifacts["dataset"]}
    config = {"max_epochs": max_epochs, "patience": 1, "learning_rate": 0.2, "heads": 1}
    one_by_one = night.home.run("train_two_tower", config, inputs)
    assert (one_by_one.epochs < max_epochs) == (max_epochs > 1), "of five passes the last must not be the best"
    monkeypatch.setattr(train_two_tower, "WORTH_PROCESSES", 0)
    assert night.home.run("train_two_tower", config, inputs).digest == one_by_one.digest


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_approximate_index_is_measured_and_serves(night: Night, kind: str) -> None:
    dataset = night.artifacts["dataset"]
    config = {"index": kind, "max_epochs": 1, "heads": 1}
    retriever = night.home.run("train_two_tower", config, {"dataset": dataset})
    run = MlflowClient(night.home.environment["MLFLOW_TRACKING_URI"]).get_run(retriever.run_id)
    assert 0.5 < run.data.metrics["index_recall_to_exact_at_300"] <= 1
    tower = fits.read_tower(night.home.stored(retriever) / str(dataset.as_of))
    assert type(tower.index).__name__ == {"hnsw": "IndexHNSWFlat", "ivf": "IndexIVFFlat"}[kind]
