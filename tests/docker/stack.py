"""The compose stack as a test sees it: docker compose, Airflow's REST API, SQL."""

import json
import os
import secrets
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pymysql

REPO = Path(__file__).parents[2]
DAG = "nightly_retraining"
NIGHT_SECONDS = 900


class Stack:
    """One project of docker-compose.yml with secrets, ports and volumes of its own."""

    def __init__(self, folder: Path, tag: str) -> None:
        self.project = f"nightjar-{secrets.token_hex(3)}"
        self.secrets = folder / "secrets"
        self.airflow_port, self.mlflow_port = _free_port(), _free_port()
        self.environment = {
            **os.environ,
            "COMPOSE_ENV_FILES": str(folder / "env"),
            "COMPOSE_FILE": "docker-compose.yml:tests/docker/no-schedule.yml",
            "NIGHTJAR_PROJECT": self.project,
            "NIGHTJAR_VERSION": tag,
            "NIGHTJAR_SECRETS": str(self.secrets),
            "NIGHTJAR_DEMO_SCALE": "0.005",
            "NIGHTJAR_MEMORY_CPU": "3g",
            "NIGHTJAR_MEMORY_GPU": "3g",
            "NIGHTJAR_NO_BUILD": "1",
            "AIRFLOW_PORT": str(self.airflow_port),
            "MLFLOW_PORT": str(self.mlflow_port),
        }
        (folder / "env").touch()

    # --- docker ---------------------------------------------------------------------------------------------------

    def up(self, *services: str) -> str:
        return self.attempt(REPO / "bin" / "compose-up", *services, check=True).stdout

    def down(self) -> None:
        for container in self.task_containers(all_of_them=True):
            self.docker("rm", "--force", "--volumes", container, check=False)
        filled = {"AIRFLOW_UID": "50000", "DOCKER_GID": "0", **self.environment}
        command = ["docker", "compose", "--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5"]
        subprocess.run(command, cwd=REPO, env=filled, check=False, capture_output=True)

    def compose(self, *arguments: str, check: bool = True) -> str:
        return self.attempt("docker", "compose", *arguments, check=check).stdout

    def docker(self, *arguments: str, check: bool = True) -> str:
        return self.attempt("docker", *arguments, check=check).stdout

    def task_containers(self, task: str = "", *, all_of_them: bool = False) -> list[str]:
        """Ids of this stack's task containers that run, or of all."""
        filters = ["--filter", f"label=nightjar.project={self.project}"]
        filters += ["--filter", f"label=nightjar.task={task}"] if task else []
        return self.docker("ps", "--quiet", "--no-trunc", *filters, *(["--all"] if all_of_them else [])).split()

    def backup_script(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.attempt(REPO / "backup_mysql.sh", *arguments)

    def tool(self, *command: str, mount: str = "") -> "subprocess.CompletedProcess[str]":
        """A command of a person in the service `tasks`."""
        mounts = ["--volume", mount] if mount else []
        return self.attempt("docker", "compose", "run", "--rm", "-T", *mounts, "tasks", *command)

    def backup_shell(self, command: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """A shell command in the image of the backup, as the stack runs it, with the backup volume at /backup."""
        run = ("docker", "compose", "--profile", "tools", "run", "--rm", "-T", "--entrypoint", "sh")
        return self.attempt(*run, *options, "mysql-backup", "-ec", command)

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def attempt(self, *command: str | Path, check: bool = False) -> "subprocess.CompletedProcess[str]":
        """Runs a command where the stack's own variables are set."""
        ran = subprocess.run(command, cwd=REPO, env=self.environment, text=True, capture_output=True, check=False)
        assert not check or ran.returncode == 0, f"{command}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    # --- Airflow --------------------------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One call of Airflow's REST API."""
        call = {"username": "admin", "password": self.secret("airflow_admin")}
        token = self._http("POST", "/auth/token", call, {})["access_token"]
        return self._http(method, f"/api/v2{path}", body, {"Authorization": f"Bearer {token}"})

    def _http(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.airflow_port}{path}"
        request = Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
        try:
            with urlopen(request, timeout=30) as answer:
                content = answer.read()
        except HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from None
        return json.loads(content) if content else None

    def trigger(self, **conf: Any) -> str:
        """Starts a night; returns its run id."""
        run = self.api("POST", f"/dags/{DAG}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def open_for_nights(self) -> None:
        """Switches the DAG on; it has no schedule here (no-schedule.yml)."""
        self.api("PATCH", f"/dags/{DAG}", {"is_paused": False})

    def tasks(self, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("GET", f"/dags/{DAG}/dagRuns/{run}/taskInstances")["task_instances"]
        return found

    def state(self, run: str) -> str:
        return str(self.api("GET", f"/dags/{DAG}/dagRuns/{run}")["state"])

    def wait(self, run: str, seconds: float = NIGHT_SECONDS) -> str:
        """The state in which a night ends."""
        end = time.monotonic() + seconds
        while (state := self.state(run)) not in ("success", "failed"):
            assert time.monotonic() < end, f"{run} is {state} after {seconds} s: {self.told(run)}"
            time.sleep(2)
        return state

    def told(self, run: str) -> dict[str, str]:
        return {
            f"{one['task_id']}[{one['map_index']}]": f"{one['state']}/{one['try_number']}" for one in self.tasks(run)
        }

    def log(self, run: str, task: str, number: int = 1, map_index: int = -1) -> str:
        path = f"/dags/{DAG}/dagRuns/{run}/taskInstances/{task}/logs/{number}?full_content=true&map_index={map_index}"
        return json.dumps(self.api("GET", path))

    def xcom(self, run: str, task: str, map_index: int = -1) -> str:
        """What a task handed on, as Airflow shows it."""
        path = f"/dags/{DAG}/dagRuns/{run}/taskInstances/{task}/xcomEntries"
        keys = [one["key"] for one in self.api("GET", f"{path}?map_index={map_index}")["xcom_entries"]]
        return json.dumps([self.api("GET", f"{path}/{key}?map_index={map_index}") for key in keys])

    def running_container(self, task: str, seconds: float = 300) -> str:
        """Id of the task's container once it runs."""
        end = time.monotonic() + seconds
        while not (found := self.task_containers(task)):
            assert time.monotonic() < end, f"no container of {task} after {seconds} s"
            time.sleep(0.3)
        (container,) = found
        return container

    # --- MySQL ----------------------------------------------------------------------------------------------------

    @property
    def mysql_host(self) -> str:
        """Its address on the stack's network: reachable from the machine of a Linux engine, published nowhere."""
        where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.docker("inspect", "--format", where, self.compose("ps", "--quiet", "mysql").strip()).strip()

    def sql(self, statement: str, user: str = "shop", database: str = "nightjar") -> list[tuple[Any, ...]]:
        connection = pymysql.connect(
            host=self.mysql_host, user=user, password=self.secret(f"mysql_{user}"), database=database, autocommit=True
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())


def _free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
