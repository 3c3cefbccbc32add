"""Registered models: MLflow loads them, and they answer; aliases and the records of champions in a real store."""

import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from tasks import fits, ranker_files, registry, storage
from tasks.failures import BadData
from tasks.recsys.features import FEATURES
from tasks.recsys.metrics import Mean
from tasks.retriever_model import RetrieverModel
from tasks.tracking import RANKER_MODEL, RETRIEVER_MODEL, TaskRun
from tests.test_fits import write
from tests.test_ranker_files import booster
from tests.world import Home


def model(folder: Path) -> Path:
    written = write(folder / "fit", 1)
    registry.describe_retriever(written, "0123456789abcdef0123456789abcdef")
    return written


def test_the_retriever_answers_histories_of_itemids(tmp_path: Path) -> None:
    folder = model(tmp_path)
    loaded = mlflow.pyfunc.load_model(str(folder))
    known = storage.read_table(folder / fits.ENCODER)["itemid"].to_list()
    asked = pd.DataFrame(
        {"items": [known[:3], known[:3], [known[1], 987_654]], "events": [["view"] * 3] * 2 + [["view"] * 2]}
    )
    found = loaded.predict(asked, params={"k": 5})
    assert [len(row) for row in found["items"]] == [5, 5, 5]
    assert found["items"][0] == found["items"][1]
    assert set(found["items"][0]) <= set(known)
    assert found["items"][2][0] == 987_654, "newer than the fit, but a repeat"
    for scores in found["scores"]:
        assert list(scores) == sorted(scores, reverse=True)
    alone = loaded.predict(pd.DataFrame({"items": [known[1:2]], "events": [["view"]]}), params={"k": 5})
    assert set(found["items"][2][1:]) < set(alone["items"][0]), "and it is like nothing else"


def test_the_model_carries_its_code(tmp_path: Path) -> None:
    """In a process that finds no `tasks` of its own."""
    folder = model(tmp_path)
    script = (
        "import mlflow, pandas as pd; "
        f"m = mlflow.pyfunc.load_model({str(folder)!r}); "
        "print(len(m.predict(pd.DataFrame({'items': [[1]]}))))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "1", run.stderr


def test_the_same_fit_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (storage.folder_digest(model(tmp_path / name)) for name in ("one", "two"))
    assert first == second


@pytest.mark.parametrize(
    ("histories", "said"),
    [
        ({"item": [[1]]}, "expected items"),
        ({"items": [[1, 2]], "events": [["view"]]}, "history 0: events"),
        ({"items": [[1]], "events": [["click"]]}, "view, addtocart, transaction"),
    ],
)
def test_histories_of_another_form_are_refused(tmp_path: Path, histories: dict[str, list[object]], said: str) -> None:
    folder = write(tmp_path / "fit", 1)
    itemids = storage.read_table(folder / fits.ENCODER)["itemid"].to_numpy()
    with pytest.raises(BadData, match=said):
        RetrieverModel(fits.read_tower(folder), itemids).predict(pd.DataFrame(histories))


def test_the_ranker_scores_feature_columns(tmp_path: Path) -> None:
    made = booster(list(FEATURES))
    ranker_files.write_booster(tmp_path, made)
    registry.describe_ranker(tmp_path, ranker_files.BOOSTER, list(FEATURES))
    columns = np.random.default_rng(1).random((20, len(FEATURES))).astype(np.float32)
    loaded = mlflow.pyfunc.load_model(str(tmp_path))
    np.testing.assert_array_equal(loaded.predict(pd.DataFrame(columns, columns=list(FEATURES))), made.predict(columns))


def register(run: TaskRun, model: str, versions: int) -> list[str]:
    folder = run.work / model
    folder.mkdir()
    (folder / "weights").write_text("1")
    written = run.store(folder, 1_440_000_000_000)
    return [run.register(model, written) for _ in range(versions)]


def test_a_champion_leaves_a_record_until_it_is_withdrawn(home: Home) -> None:
    reached = {"recall@50": Mean(0.3, 0.2, 0.4, 100), "NDCG@10": Mean(None, None, None, 0)}
    with home.task("train_two_tower") as run:
        one, two, three, four = register(run, RETRIEVER_MODEL, 4)
        for version in (one, two, three, four):
            registry.record(run.client, version, reached)
        assert registry.champions(run.client, before=four) == []
        for version, verdict in {one: "first", two: "promoted", three: "forced"}.items():
            registry.enthrone(run.client, {RETRIEVER_MODEL: version}, verdict)
        found = registry.champions(run.client, before=four)
        assert [(record.name, record.forced) for record in found] == [
            ("version 3", True),
            ("version 2", False),
            ("version 1", False),
        ]
        assert all(record.figures == reached and record.as_of == 1_440_000_000_000 for record in found)
        assert [record.name for record in registry.champions(run.client, before=three)] == ["version 2", "version 1"]
        registry.enthrone(run.client, {RETRIEVER_MODEL: one}, "first", withdrawn=[two])
        assert [record.name for record in registry.champions(run.client, before=four)] == ["version 3", "version 1"]


def test_aliases_move_together_and_a_model_without_a_version_loses_its_alias(home: Home) -> None:
    with home.task("train_two_tower") as run:
        (retriever,) = register(run, RETRIEVER_MODEL, 1)
        registry.point(run.client, "champion", {RETRIEVER_MODEL: retriever, RANKER_MODEL: None})
        (ranker,) = register(run, RANKER_MODEL, 1)
        registry.point(run.client, "champion", {RETRIEVER_MODEL: retriever, RANKER_MODEL: ranker})
        assert str(run.client.get_model_version_by_alias(RANKER_MODEL, "champion").version) == ranker
        registry.point(run.client, "champion", {RETRIEVER_MODEL: retriever, RANKER_MODEL: None})
        assert run.client.get_registered_model(RANKER_MODEL).aliases == {}
        assert str(run.client.get_model_version_by_alias(RETRIEVER_MODEL, "champion").version) == retriever
