"""Two machines: Celery workers that share no disk, artifacts and data in an object store."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1_800)]  # a night, and both machines before it

CELERY = {
    "AIRFLOW_EXECUTOR": "CeleryExecutor",
    "MLFLOW_ARTIFACTS": "s3://nightjar/artifacts",
    "AWS_ENDPOINT_URL": "http://object-store:8333",
}
SOCKET = "/var/run/docker.sock"
UPLOAD = """
import fsspec
files = fsspec.filesystem("s3")
files.makedirs("nightjar", exist_ok=True)
files.put("/data/demo/", "nightjar/demo/", recursive=True)
"""
STORED = """
import fsspec
print(*fsspec.filesystem("s3").find("nightjar/artifacts"), sep="\\n")
"""


@pytest.fixture(scope="module")
def first(stack: Stack) -> Iterator[Stack]:
    """The stack with a worker for the queue `cpu` alone; tasks in its scheduler no more."""
    stack.environment |= CELERY
    profiles = ("--profile", "scale-out", "--profile", "object-store")
    stack.compose(*profiles, "up", "--detach", "--wait", "--scale", "airflow-worker-gpu=0")
    yield stack
    for name in CELERY:
        stack.environment.pop(name)


@pytest.fixture(scope="module")
def second(first: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Another machine: the same .env and secrets, copied, and one worker, for the queue `gpu`; every volume its own."""
    folder = tmp_path_factory.mktemp("second")
    second = Stack(folder, first.environment["NIGHTJAR_VERSION"])
    second.environment |= CELERY | {"NIGHTJAR_NETWORK": first.project, "NIGHTJAR_NETWORK_IS_THERE": "true"}
    shutil.copyfile(first.environment["COMPOSE_ENV_FILES"], second.environment["COMPOSE_ENV_FILES"])
    copied(first.secrets, second.secrets)
    try:
        second.compose("--profile", "scale-out", "up", "--detach", "--wait", "--no-deps", "airflow-worker-gpu")
        yield second
    finally:
        second.down()


def copied(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to)
    for path in (to, *to.iterdir()):
        was = (folder / path.relative_to(to)).stat()
        shutil.chown(path, was.st_uid, was.st_gid)


def script(stack: Stack, code: str) -> str:
    """What a Python script says that has the key of the object store, and the data."""
    return stack.docker(
        *("run", "--rm", "--network", stack.project, "--user", "0", "--entrypoint", "python"),
        *("--volume", f"{stack.project}-data:/data:ro", "--volume", f"{stack.secrets}/object_store:/key:ro"),
        *("--env", f"AWS_ENDPOINT_URL={CELERY['AWS_ENDPOINT_URL']}", "--env", "AWS_SHARED_CREDENTIALS_FILE=/key"),
        *(f"nightjar/cpu:{stack.environment['NIGHTJAR_VERSION']}", "-c", code),
    )


def mounted(stack: Stack, containers: list[str]) -> dict[str, set[str]]:
    """Volumes and folders of containers, and the services that have each."""
    shown: list[dict[str, Any]] = json.loads(stack.docker("inspect", *containers))
    found: dict[str, set[str]] = {}
    for one in shown:
        for mount in one["Mounts"]:
            service = one["Config"]["Labels"].get("com.docker.compose.service", "a task")
            found.setdefault(mount["Source"], set()).add(service)
    return found


def test_a_night_on_two_workers_that_share_no_disk(first: Stack, second: Stack) -> None:
    script(first, UPLOAD)
    run = first.trigger(data="s3://nightjar/demo", profile="small", force_reason="the machines are new")
    here = mounted(first, [first.running_container("prepare_data"), *first.compose("ps", "--quiet").split()])
    there = mounted(first, [second.running_container("train_two_tower"), *second.compose("ps", "--quiet").split()])
    assert here.pop(SOCKET) == {"airflow-worker-cpu"} and there.pop(SOCKET) == {"airflow-worker-gpu"}
    assert len(here) > 10 and len(there) > 10 and not here.keys() & there.keys()
    assert first.wait(run) == "success", first.told(run)

    workers = {one["task_id"]: one["hostname"] for one in first.tasks(run)}
    assert workers.pop("train_two_tower") not in workers.values() and len(set(workers.values())) == 1
    assert "train_two_tower |" in first.log(run, "train_two_tower"), "the log of the other machine is not shown"
    stored = script(first, STORED).split()
    assert any(path.endswith(".faiss") for path in stored), stored
    ((name,),) = first.sql("SELECT generation FROM in_force")
    assert name in first.xcom(run, "publish_recommendations")
