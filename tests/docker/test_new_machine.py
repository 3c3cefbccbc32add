"""README's way to a new machine: its own secrets, user id and empty volumes, and what was before in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import polars as pl
import pymysql
import pytest
from mlflow import MlflowClient

from tasks.publication import Generation, store
from tests.docker.stack import Stack

pytestmark = pytest.mark.docker

MODEL = "nightjar-retriever"
LISTS = pl.DataFrame({"list": [0, 1], "items": [[100, 2], [3]], "scores": [[0.5, 0.25], [0.125]]})
VISITORS = pl.DataFrame({"visitorid": [30, 10, 20], "list": [0, 1, 0]})
WEIGHTS = bytes(range(256)) * 4_000
DEFAULT = pl.DataFrame({"itemid": [7, 8], "score": [1.0, 0.5]})


def client(stack: Stack) -> MlflowClient:
    return MlflowClient(f"http://127.0.0.1:{stack.mlflow_port}")


def publish(stack: Stack, name: str, as_of: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A generation as a night publishes it: with MySQL's user, and secret, of the tasks."""
    monkeypatch.setenv("NIGHTJAR_RECOMMENDATIONS", f"mysql://nightjar@{stack.mysql_host}:3306/nightjar")
    monkeypatch.setenv("NIGHTJAR_RECOMMENDATIONS_PASSWORD_FILE", str(stack.secrets / "mysql_nightjar"))
    store().write(Generation(name, as_of, "night", "first", "ü 🐦 ' \\", "1", "1"), [LISTS], [VISITORS], DEFAULT)
    return store().switch(name)


def register(stack: Stack, file: Path) -> None:
    """A run with a figure and a file, and a version of a model that the alias `champion` names."""
    mlflow = client(stack)
    run = mlflow.create_run(mlflow.create_experiment("nightjar"), run_name="train_two_tower").info
    mlflow.log_metric(run.run_id, "recall_at_50", 0.5)
    mlflow.log_artifact(run.run_id, str(file), "retriever")
    mlflow.create_registered_model(MODEL)
    version = mlflow.create_model_version(MODEL, f"runs:/{run.run_id}/retriever", run.run_id)
    mlflow.set_registered_model_alias(MODEL, "champion", version.version)


def shop_reads(stack: Stack) -> list[list[tuple[Any, ...]]]:
    default = "SELECT default_items FROM generation JOIN in_force ON generation = name"
    return [stack.sql("SELECT * FROM recommendations ORDER BY visitorid"), stack.sql(default)]


def registry_says(stack: Stack) -> list[Any]:
    """The champion, its run, and the bytes of its file."""
    champion = client(stack).get_model_version_by_alias(MODEL, "champion")
    run_id = str(champion.run_id)
    # not by MlflowClient: it remembers a run's server, and would go on to ask the old one
    where = f"http://127.0.0.1:{stack.mlflow_port}/get-artifact?run_uuid={run_id}&path=retriever/weights.bin"
    with urlopen(where, timeout=30) as answer:
        return [dict(champion), client(stack).get_run(run_id).to_dictionary(), answer.read()]


@pytest.fixture
def machines(images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Stack]]:
    """The old machine with MySQL and MLflow, and the new one with MySQL alone: nothing in it, everything its own."""
    stacks = [Stack(tmp_path_factory.mktemp(name), images) for name in ("old", "new")]
    stacks[1].environment["AIRFLOW_UID"] = "50001"  # somebody else's machine
    try:
        stacks[0].up("mysql", "mlflow")
        stacks[1].up("mysql")
        yield stacks[0], stacks[1]
    finally:
        for stack in stacks:
            stack.down()


def test_a_backup_is_restored_on_a_new_machine(
    machines: tuple[Stack, Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = machines
    (tmp_path / "weights.bin").write_bytes(WEIGHTS)
    register(old, tmp_path / "weights.bin")
    assert publish(old, "a", 1, monkeypatch)
    shop, registry = shop_reads(old), registry_says(old)
    assert len(shop[0]) == 3 and registry[2] == WEIGHTS

    assert old.backup_script().returncode == 0
    carried = tmp_path / "carried"
    carried.mkdir()
    old.docker(
        *("run", "--rm", "--volume", f"{old.project}-backup:/b:ro", "--volume", f"{carried}:/to"),
        *("debian:bookworm-slim", "cp", "-a", "/b/.", "/to/"),
    )
    artifacts = f"{carried}/artifacts.tar.gz"
    old.attempt("sh", "-c", f"docker compose exec -T mlflow tar -C /artifacts -cz . > {artifacts}", check=True)
    old.compose("stop")
    (archive,) = carried.glob("nightjar-*.tar.gz")

    restored = new.attempt("make", "restore", f"BACKUP={archive}", check=True)
    assert "counts and checksums agree" in restored.stderr
    unpack = "docker compose run --rm -T --no-deps --entrypoint tar mlflow -C /artifacts -xz"
    new.attempt("sh", "-c", f"{unpack} < {artifacts}", check=True)
    new.up("mlflow")

    assert shop_reads(new) == shop
    assert registry_says(new) == registry
    old_password = {"host": new.mysql_host, "user": "shop", "password": old.secret("mysql_shop")}
    with pytest.raises(pymysql.OperationalError, match="Access denied"):
        pymysql.connect(**old_password)
    # and the nights go on: files and rows are the new machine's own
    run = client(new).create_run(registry[1]["info"]["experiment_id"]).info
    client(new).log_artifact(run.run_id, str(tmp_path / "weights.bin"), "retriever")
    assert publish(new, "b", 2, monkeypatch) and [row[-1] for row in shop_reads(new)[0]] == ["b"] * 3
    assert new.backup_script().returncode == 0
