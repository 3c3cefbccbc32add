"""The whole system in containers: a night by the REST API, its faults, its secrets."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tasks.contracts import TASKS
from tasks.tracking import PARENT, RANKER_MODEL, RETRIEVER_MODEL
from tests.docker.stack import REPO, Stack

pytestmark = pytest.mark.docker

SECRETS = ("mysql_nightjar", "mysql_backup", "mysql_root", "mysql_mlflow", "postgres", "airflow_admin", "airflow_jwt")


@pytest.fixture(scope="module")
def night(stack: Stack) -> str:
    """A night on demo data, ended."""
    run = stack.trigger()
    assert stack.wait(run) == "success", stack.told(run)
    return run


@pytest.fixture(scope="module")
def inspected() -> list[str]:
    """What the engine shows of task containers while they run."""
    return []


@pytest.fixture(scope="module")
def second(stack: Stack, night: str, inspected: list[str]) -> str:
    """Another night, in force when it has ended, whose MLflow goes away between two shards."""
    run = stack.trigger(profile="small", users_per_shard=2_000, force_reason="the first one is the same")
    inspected.append(stack.docker("inspect", stack.running_container("prepare_data")))
    end = time.monotonic() + 600
    while not [one for one in shards_of(stack, run) if one["state"] == "success"]:
        assert time.monotonic() < end, stack.told(run)
        time.sleep(0.5)
    stack.compose("stop", "--timeout", "5", "mlflow")
    inspected.append(stack.docker("inspect", stack.running_container("generate_candidates")))
    time.sleep(20)
    stack.compose("start", "mlflow")
    stack.wait(run)
    return run


def shards_of(stack: Stack, run: str) -> list[dict[str, object]]:
    return [one for one in stack.tasks(run) if one["task_id"] == "generate_candidates"]


def mlflow(stack: Stack) -> MlflowClient:
    return MlflowClient(f"http://127.0.0.1:{stack.mlflow_port}")


def runs_of(stack: Stack, night: str) -> list[Run]:
    return list(mlflow(stack).search_runs(["1"], f"tags.`airflow.run_id` = '{night}'"))


def in_force(stack: Stack) -> tuple[str, str]:
    """The name of the generation that the shop reads, and its retriever's version."""
    ((name, version),) = stack.sql("SELECT name, retriever_version FROM generation JOIN in_force ON generation = name")
    return name, version


def test_every_service_is_healthy_and_the_idle_stack_is_small(stack: Stack) -> None:
    listed = [json.loads(line) for line in stack.compose("ps", "--format", "json").splitlines()]
    assert {one["Service"]: one["Health"] for one in listed} == dict.fromkeys(
        (
            "postgres",
            "mysql",
            "mlflow",
            *(f"airflow-{s}" for s in ("apiserver", "scheduler", "dag-processor", "triggerer")),
        ),
        "healthy",
    )
    used = stack.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}")
    mine = [line for line in used.splitlines() if line.startswith(f"{stack.project}-")]
    units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "B": 1}
    total = sum(float(found[1]) * units[found[2]] for line in mine if (found := re.search(r" ([\d.]+)(\w+) / ", line)))
    print(f"idle: {total / 1e9:.2f} GB\n{used}")
    assert total < 2.5e9


def test_only_the_two_uis_are_published_and_on_loopback_alone(stack: Stack) -> None:
    ids = stack.compose("ps", "--quiet").split()
    shown = json.loads(stack.docker("inspect", *ids))
    bound = [one for c in shown for ports in (c["HostConfig"]["PortBindings"] or {}).values() for one in ports]
    assert {one["HostIp"] for one in bound} == {"127.0.0.1"}
    assert {int(one["HostPort"]) for one in bound} == {stack.airflow_port, stack.mlflow_port}


def test_every_service_is_hardened_and_one_alone_has_the_socket(stack: Stack) -> None:
    with_socket = set()
    for one in json.loads(stack.docker("inspect", *stack.compose("ps", "--quiet").split())):
        name, host = one["Config"]["Labels"]["com.docker.compose.service"], one["HostConfig"]
        assert not one["Config"]["User"].startswith("0:"), name
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and host["ReadonlyRootfs"], name
        assert "no-new-privileges:true" in host["SecurityOpt"] and host["Memory"] > 0, name
        assert host["LogConfig"]["Config"]["max-size"], name
        with_socket |= {name for mount in one["Mounts"] if mount["Destination"] == "/var/run/docker.sock"}
    assert with_socket == {"airflow-scheduler"}


@pytest.mark.parametrize(
    ("executor", "profiles", "services"),
    [
        ("", "", {"airflow-scheduler"}),
        ("LocalExecutor", "", {"airflow-scheduler"}),
        ("CeleryExecutor", "scale-out", {"airflow-worker-cpu", "airflow-worker-gpu"}),
    ],
)
def test_the_service_that_runs_tasks_alone_is_given_the_socket(
    tmp_path: Path, executor: str, profiles: str, services: set[str]
) -> None:
    stack = Stack(tmp_path, "test")
    stack.environment |= {"AIRFLOW_EXECUTOR": executor, "COMPOSE_PROFILES": profiles}
    stack.environment |= {"AIRFLOW_UID": "50000", "DOCKER_GID": "999"}
    given = json.loads(stack.compose("config", "--format", "json"))["services"]
    for rights in ("docker.sock", '"999"', "/run/secrets/mysql_backup"):
        asked = {name for name, service in given.items() if rights in json.dumps(service) and "airflow" in name}
        assert asked == services, rights


def test_secrets_are_for_their_owner_alone(stack: Stack) -> None:
    for path in stack.secrets.iterdir():
        assert path.name == "passwd" or path.stat().st_mode & 0o777 == 0o600, path
    assert stack.secrets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["cpu", "airflow", "mlflow", "mysql-backup", "object-store"])
def test_an_image_says_what_it_is_and_has_neither_root_nor_compiler(stack: Stack, images: str, name: str) -> None:
    (shown,) = json.loads(stack.docker("inspect", f"nightjar/{name}:{images}"))
    labels = shown["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == images
    assert re.fullmatch(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.title"] and shown["Config"]["User"] == "50000:0"
    tools = ("run", "--rm", "--entrypoint", "sh", f"nightjar/{name}:{images}", "-c", "command -v cc gcc c++ g++ || :")
    assert stack.docker(*tools) == ""


def test_without_the_secrets_nothing_starts(stack: Stack, tmp_path: Path) -> None:
    stack_env = {**stack.environment, "NIGHTJAR_SECRETS": str(tmp_path), "NIGHTJAR_PROJECT": "nightjar-none"}
    ran = subprocess.run(
        ["docker", "compose", "up", "--detach", "mysql"],
        cwd=REPO,
        env=stack_env,
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run(
        ["docker", "compose", "down", "--volumes"], cwd=REPO, env=stack_env, capture_output=True, check=False
    )
    assert ran.returncode != 0 and "mysql_" in ran.stderr


def test_a_whole_night_is_green(stack: Stack, night: str) -> None:
    states = {one["task_id"]: one["state"] for one in stack.tasks(night)}
    assert states == dict.fromkeys([*TASKS, "shards", "announce", "end"], "success")
    assert stack.task_containers(all_of_them=True) == [], "containers of a night that ended"


def test_the_shop_reads_recommendations_by_sql(stack: Stack, night: str) -> None:
    ((name, verdict, default),) = stack.sql(
        "SELECT name, verdict, default_items FROM generation JOIN in_force ON generation = name"
    )
    assert verdict == "first" and len(json.loads(default)) > 10
    ((visitors,),) = stack.sql("SELECT count(*) FROM recommendations")
    ((items, scores, generation),) = stack.sql("SELECT items, scores, generation FROM recommendations LIMIT 1")
    assert visitors > 1_000 and generation == name
    assert len(json.loads(items)) == len(json.loads(scores)) > 10


def test_mlflow_has_the_night_and_its_artifacts(stack: Stack, night: str) -> None:
    runs = runs_of(stack, night)
    assert len(runs) == len(TASKS) and {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.info.artifact_uri.startswith("mlflow-artifacts:/") for run in runs)


def test_mlflow_that_goes_away_between_shards_is_survived(stack: Stack, second: str) -> None:
    assert stack.state(second) == "success", stack.told(second)
    tries = [one["try_number"] for one in shards_of(stack, second)]
    assert len(tries) > 2 and tries[0] == 1, "a shard that was finished was made again"


def test_no_secret_is_shown_anywhere(stack: Stack, night: str, second: str, inspected: list[str]) -> None:
    tasks = [(run, one["task_id"], one["map_index"]) for run in (night, second) for one in stack.tasks(run)]
    ids = stack.compose("ps", "--all", "--quiet").split()
    images = [f"nightjar/{name}:test" for name in ("cpu", "airflow", "mlflow", "mysql-backup")]
    shown = {
        "logs": "".join(stack.log(run, task, 1, index) for run, task, index in tasks),
        "service logs": stack.compose("logs"),
        "inspect": stack.docker("inspect", *ids),
        "inspect of tasks": "".join(inspected),
        "images": stack.docker("inspect", *images) + "".join(stack.docker("history", "--no-trunc", i) for i in images),
        "processes": "".join(path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline")),
        "xcom": "".join(stack.xcom(run, task, index) for run, task, index in tasks),
        "mlflow": json.dumps([run.to_dictionary() for one in (night, second) for run in runs_of(stack, one)]),
    }
    assert "runs:/" in shown["xcom"] and "users_per_shard" in shown["mlflow"], "looked in the wrong place"
    assert "generate_candidates" in shown["inspect of tasks"]
    assert {(place, name) for place, text in shown.items() for name in SECRETS if stack.secret(name) in text} == set()


def test_a_rollback_puts_the_night_before_and_its_champions_in_force(stack: Stack, night: str, second: str) -> None:
    replaced, _ = in_force(stack)
    ran = stack.tool("python", "-m", "tasks.rollback")
    name, version = in_force(stack)
    assert ran.returncode == 0 and f"in force: {name}, in place of {replaced}" in ran.stdout, ran.stderr
    assert dict(stack.sql("SELECT name, verdict FROM generation")) == {name: "first", replaced: "rolled_back"}
    champion = mlflow(stack).get_model_version_by_alias(RETRIEVER_MODEL, "champion")
    assert champion.version == version
    assert mlflow(stack).get_run(str(champion.run_id)).data.tags["airflow.run_id"] == night
    ranker = dict(stack.sql("SELECT name, ranker_version FROM generation"))[name]  # none if it stepped aside
    assert mlflow(stack).get_registered_model(RANKER_MODEL).aliases.get("champion") == ranker
    nothing = stack.tool("python", "-m", "tasks.rollback")
    assert nothing.returncode == 78 and f"nothing was in force before {name}" in nothing.stderr
    assert stack.tool("python", "-m", "tasks.rollback", "--to", replaced).returncode == 0
    assert in_force(stack)[0] == replaced


def test_what_is_in_force_is_exported_to_a_file(stack: Stack, second: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    ran = stack.tool("python", "-m", "tasks.recommendations", "/out/recs.parquet", mount=f"{tmp_path}:/out")
    assert ran.returncode == 0, ran.stderr
    ((visitors,),) = stack.sql("SELECT count(*) FROM recommendations")
    assert pl.read_parquet(tmp_path / "recs.parquet")["visitorid"].n_unique() == visitors


@pytest.fixture
def training(stack: Stack, night: str) -> Iterator[tuple[str, str]]:
    """A night whose training takes long enough to be disturbed: its run id and the container."""
    run = stack.trigger(profile="small", max_epochs=60, patience=20)
    yield run, stack.running_container("train_two_tower")
    if stack.state(run) not in ("success", "failed"):
        stack.api("PATCH", f"/dags/nightly_retraining/dagRuns/{run}", {"state": "failed"})
        stack.wait(run)


def test_a_scheduler_that_is_killed_leaves_one_training(stack: Stack, training: tuple[str, str]) -> None:
    run, container = training
    stack.docker("kill", "--signal", "KILL", stack.compose("ps", "--quiet", "airflow-scheduler").strip())
    time.sleep(2)
    assert stack.task_containers("train_two_tower") == [container], "the training went with its scheduler"
    stack.compose("up", "--detach", "--no-recreate", "airflow-scheduler")
    seen: set[str] = set()
    end = time.monotonic() + 900
    while stack.state(run) not in ("success", "failed") and time.monotonic() < end:
        seen |= set(stack.task_containers("train_two_tower", all_of_them=True))
        time.sleep(1)
    assert stack.state(run) == "success", stack.told(run)
    assert seen == {container}, "a second training was started"
    (task,) = [one for one in stack.tasks(run) if one["task_id"] == "train_two_tower"]
    assert task["try_number"] == 2
    assert "found the container of try 1" in stack.log(run, "train_two_tower", 2)


def test_mark_failed_stops_the_container(stack: Stack, training: tuple[str, str]) -> None:
    run, _ = training
    stack.api(
        "PATCH",
        f"/dags/nightly_retraining/dagRuns/{run}/taskInstances/train_two_tower",
        {"new_state": "failed", "include_downstream": False},
    )
    end = time.monotonic() + 30
    while stack.task_containers("train_two_tower", all_of_them=True):
        assert time.monotonic() < end, "the container runs on"
        time.sleep(0.5)
    assert stack.wait(run) == "failed"
    states = {one["task_id"]: one["state"] for one in stack.tasks(run)}
    assert states["train_two_tower"] == "failed" and states["backup_mysql"] == "success"


def test_a_night_that_is_set_to_failed_before_it_begins_is_red(stack: Stack) -> None:
    run = stack.trigger()
    stack.api("PATCH", f"/dags/nightly_retraining/dagRuns/{run}", {"state": "failed"})
    assert stack.wait(run) == "failed"
    states = {one["task_id"]: one["state"] for one in stack.tasks(run)}
    assert (states.pop("backup_mysql"), states.pop("end")) == ("success", "failed")
    assert set(states.values()) == {"skipped"}


def test_a_training_that_is_killed_and_mysql_that_restarts_are_survived(
    stack: Stack, training: tuple[str, str]
) -> None:
    run, container = training
    stack.docker("kill", "--signal", "KILL", container)
    end = time.monotonic() + 120
    while stack.task_containers("train_two_tower") in ([], [container]):
        assert time.monotonic() < end, "no second try"
        time.sleep(0.5)
    stack.compose("restart", "--timeout", "10", "mysql")
    assert stack.wait(run) == "success", stack.told(run)
    (task,) = [one for one in stack.tasks(run) if one["task_id"] == "train_two_tower"]
    assert task["try_number"] == 2
    ((old,),) = stack.sql("SELECT count(*) FROM recommendations")
    assert old > 1_000


@pytest.mark.timeout(1_200)
@pytest.mark.skipif(
    "NIGHTJAR_RESTART_ENGINE" not in os.environ, reason="NIGHTJAR_RESTART_ENGINE: no command restarts the engine"
)
def test_a_reboot_of_the_machine_is_survived(stack: Stack, training: tuple[str, str]) -> None:
    run, container = training
    before = in_force(stack)
    subprocess.run(os.environ["NIGHTJAR_RESTART_ENGINE"], shell=True, check=True)
    assert stack.task_containers("train_two_tower") == [], "a task was started again by the engine"
    end = time.monotonic() + 300
    while True:
        try:
            stack.state(run)
            break
        except (OSError, AssertionError):
            assert time.monotonic() < end, "the services did not come back by themselves"
            time.sleep(2)
    assert in_force(stack) == before
    assert stack.wait(run) == "success", stack.told(run)
    (task,) = [one for one in stack.tasks(run) if one["task_id"] == "train_two_tower"]
    tries = [stack.log(run, "train_two_tower", number) for number in range(1, task["try_number"] + 1)]
    assert task["try_number"] == 2, tries
    assert container not in stack.task_containers(all_of_them=True)


def test_memory_that_runs_out_is_told_and_not_tried_again(stack: Stack) -> None:
    stack.environment["NIGHTJAR_MEMORY_CPU"] = "100m"
    stack.compose("up", "--detach", "--wait", "airflow-scheduler")
    try:
        run = stack.trigger()
        assert stack.wait(run) == "failed"
        states = {one["task_id"]: (one["state"], one["try_number"]) for one in stack.tasks(run)}
        assert states["prepare_data"] == ("failed", 1)
        log = stack.log(run, "prepare_data")
        assert "OOMKilled: prepare_data reached its limit of 0.10 GB" in log and "raise NIGHTJAR_MEMORY_CPU" in log
    finally:
        stack.environment["NIGHTJAR_MEMORY_CPU"] = "3g"
        stack.compose("up", "--detach", "--wait", "airflow-scheduler")


def test_prune_removes_the_files_of_old_nights_and_nothing_of_what_is_in_force(stack: Stack, night: str) -> None:
    with_files = {run.data.tags[PARENT] for run in artifacts_of(stack)}
    name, version = in_force(stack)
    prune = ("python", "-m", "tasks.prune", "--nights", "1", "--generations", "2")
    plan, done = stack.tool(*prune), stack.tool(*prune, "--yes")
    assert "nothing was removed" in plan.stdout and done.returncode == 0, plan.stderr + done.stderr
    assert plan.stdout.count("remove  night") > 0, plan.stdout
    left = {run.data.tags[PARENT] for run in artifacts_of(stack)}
    assert len(with_files) - len(left) == plan.stdout.count("remove  night")
    assert in_force(stack) == (name, version)
    made_by = mlflow(stack).get_model_version(RETRIEVER_MODEL, version).run_id
    assert mlflow(stack).get_run(str(made_by)).data.tags[PARENT] in left
    assert stack.sql("SELECT count(*) FROM recommendations") > [(1_000,)]


def artifacts_of(stack: Stack) -> list[Run]:
    """The tasks' runs that have files."""
    runs = mlflow(stack).search_runs(["1"], f"tags.`{PARENT}` != ''")
    return [run for run in runs if mlflow(stack).list_artifacts(run.info.run_id)]


def test_the_nights_backup_restores(stack: Stack, night: str) -> None:
    (task,) = [one for one in stack.tasks(night) if one["task_id"] == "backup_mysql"]
    found = re.search(r"(nightjar-\d{8}T\d{6}Z\.tar\.gz)", stack.log(night, "backup_mysql"))
    assert found and task["state"] == "success"
    stack.sql("DELETE FROM visitor", user="nightjar")
    ran = stack.backup_script("restore", found[1], "--over")
    assert ran.returncode == 0, ran.stderr
    ((visitors,),) = stack.sql("SELECT count(*) FROM recommendations")
    assert visitors > 1_000
