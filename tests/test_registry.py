"""Registered models are usable by themselves: MLflow loads them, and they answer."""

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
from tasks.retriever_model import RetrieverModel
from tests.test_fits import write
from tests.test_ranker_files import booster


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
    for scores in found["scores"]:
        assert list(scores) == sorted(scores, reverse=True)
    alone = loaded.predict(pd.DataFrame({"items": [known[1:2]], "events": [["view"]]}), params={"k": 5})
    assert found["items"][2] == alone["items"][0], "an unknown item is skipped"


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
    made.best_iteration = made.num_trees()
    ranker_files.write_booster(tmp_path, made)
    registry.describe_ranker(tmp_path, ranker_files.BOOSTER, list(FEATURES))
    columns = np.random.default_rng(1).random((20, len(FEATURES))).astype(np.float32)
    loaded = mlflow.pyfunc.load_model(str(tmp_path))
    np.testing.assert_array_equal(loaded.predict(pd.DataFrame(columns, columns=list(FEATURES))), made.predict(columns))
