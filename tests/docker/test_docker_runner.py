"""The docker runner with the real engine, the real image and its entry point, and throw-away verbs."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest

from nightjar.docker_container import labels_of
from nightjar.docker_runner import DockerRunner
from nightjar.docker_settings import BadSetting, Settings, settings_of
from nightjar.process_runner import Try
from tasks.contracts import Dataset
from tests.docker.stack import REPO

pytestmark = pytest.mark.docker

NO_GPU = "GPU-00000000-0000-0000-0000-000000000000"

VERB = """
import logging, os, signal, sys, time
from pathlib import Path
from tasks.contracts import Dataset
from tasks.failures import BadData, Skipped, Unavailable

log = logging.getLogger("tasks")
COUNTS = dict.fromkeys(("size", "as_of", "first_cut", "second_cut", "events", "users", "items", "duplicates",
                        "rejected", "history_cap"), 1)
ANSWER = {"uri": "runs:/a/b", "digest": "d", "night": "n", "input_digest": "i", "ranker_cuts": [1], "suspect": [],
          "shards": 2}

def prepare_data(config, run):
    log.info("try %d begins", run.try_number)
    match config.data.split():
        case ["lines", count, pause]:
            for number in range(int(count)):
                log.info("line %d", number)
                time.sleep(float(pause))
        case ["bad"]:
            raise BadData("events.csv: no column itemid")
        case ["temporary"]:
            raise Unavailable("the store does not answer")
        case ["skip"]:
            raise Skipped("nothing to do")
        case ["malformed"]:
            Path(sys.argv[3]).write_text('{"uri": "runs:/a/b"}')
            os._exit(0)
        case ["folder"]:
            Path(sys.argv[3]).mkdir()
            os._exit(0)
        case ["silent"]:
            os._exit(0)
        case ["memory"]:
            held = [bytearray(b"x" * 10_000_000) for _ in range(200)]
        case ["stubborn"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            log.info("deaf")
            time.sleep(600)
        case ["green on kill"] | ["green"]:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
            log.info("trapped")
            time.sleep(600)
        case ["secret"]:
            log.info("secret of %d characters", len(Path("/scratch/secrets/mysql_nightjar").read_text()))
        case ["rights"]:
            for place in ("/", "/opt/nightjar", "/data"):
                try:
                    Path(place, "x").touch()
                    log.info("%s can be written", place)
                except OSError as error:
                    log.info("%s: %s", place, error.strerror)
            status = Path("/proc/self/status").read_text().splitlines()
            log.info("%s %s", os.getuid(), [line for line in status if line.startswith(("CapEff", "NoNewPrivs"))])
    return Dataset.model_validate({name: value for name, value in (COUNTS | ANSWER).items()
                                   if name in Dataset.model_fields})
"""

TRACKING = """
from contextlib import contextmanager

class Run:
    def __init__(self, context):
        self.try_number = context.try_number
    def params(self, values): pass

@contextmanager
def task_run(name, run, artifacts):
    yield Run(run)
"""

PARENT = """
import json, sys
from pathlib import Path
from nightjar.docker_runner import DockerRunner
from nightjar.docker_settings import settings_of
from nightjar.process_runner import Try
folder, request = sys.argv[1:]
runner = DockerRunner(settings_of("cpu", False), Try("prepare_data", -1, 1, Path(folder)), json.loads)
runner.run(request, lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="module")
def misbehaving(images: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real image with a verb that misbehaves as its setting `data` says."""
    context = tmp_path_factory.mktemp("context")
    (context / "prepare_data.py").write_text(VERB)
    (context / "tracking.py").write_text(TRACKING)
    (context / "Dockerfile").write_text(f"FROM nightjar/cpu:{images}\nCOPY *.py /opt/nightjar/tasks/\n")
    subprocess.run(["docker", "build", "--quiet", "--tag", "nightjar/misbehaving", str(context)], check=True)
    return "nightjar/misbehaving"


@pytest.fixture
def env(misbehaving: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The variables that compose would set; whatever the test leaves on the engine goes."""
    (tmp_path / "mysql_nightjar").write_text("planted-secret")
    project = f"test-{os.getpid()}-{time.monotonic_ns()}"
    yield {
        "NIGHTJAR_PROJECT": project,
        "NIGHTJAR_IMAGE_CPU": misbehaving,
        "NIGHTJAR_IMAGE_GPU": misbehaving,
        "NIGHTJAR_MEMORY_CPU": "1g",
        "NIGHTJAR_MEMORY_GPU": "1g",
        "NIGHTJAR_TASK_USER": "1234:0",
        "NIGHTJAR_FILES_CPU": "mysql_nightjar",
        "NIGHTJAR_SECRETS_FROM": str(tmp_path),
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    }
    client = docker.APIClient(version="auto")
    for left in containers(project):
        client.remove_container(left["Id"], force=True, v=True)


def containers(project: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = docker.APIClient(version="auto").containers(
        all=True, filters={"label": f"nightjar.project={project}"}
    )
    return found


def request(behaviour: str, run_id: str = "r", number: int = 1) -> str:
    run = {"dag_id": "nightly_retraining", "run_id": run_id, "try_number": number}
    return json.dumps({"inputs": {}, "config": {"data": behaviour}, "run": run})


def check(answer: bytes) -> dict[str, Any]:
    return Dataset.model_validate_json(answer).model_dump(mode="json")


class Tried:
    """Makes runners, and collects what they say."""

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self.env, self.home = env, home
        self.lines: list[str] = []

    @property
    def settings(self) -> Settings:
        return settings_of("cpu", False, self.env)

    def runner(self, settings: Settings | None = None) -> DockerRunner:
        return DockerRunner(settings or self.settings, Try.of(self.home, "r", "prepare_data", -1, 1), check)

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.runner().this.folder / "record.json").read_bytes())
        return found

    def on_line(self, word: str, then: Callable[[], object]) -> Callable[[str], None]:
        """Collects lines, and does something when one begins with the word."""

        def take(line: str) -> None:
            self.lines.append(line)
            if line.startswith(word):
                then()

        return take


@pytest.fixture
def tried(env: dict[str, str], home: Path) -> Tried:
    return Tried(env, home)


def test_lines_come_as_they_are_written_and_the_answer_by_file(tried: Tried) -> None:
    times: list[float] = []
    ended = tried.runner().run(request("lines 3 0.7"), tried.on_line("line", lambda: times.append(time.monotonic())))
    assert tried.lines == ["try 1 begins", "line 0", "line 1", "line 2"]
    assert times[2] - times[0] > 0.8, "the lines came in one lump at the end"
    assert ended.state == "success" and ended.answer is not None and ended.answer["uri"] == "runs:/a/b"
    assert ended.peak_memory_bytes > 20e6 and ended.cpu_seconds > 0
    assert tried.record()["answer"] == ended.answer
    assert containers(tried.env["NIGHTJAR_PROJECT"]) == [], "a container that was read stays behind"


@pytest.mark.parametrize(
    ("behaviour", "state", "exit_code", "last_line"),
    [
        ("bad", "failed", 65, "events.csv: no column itemid"),
        ("temporary", "failed", 75, "the store does not answer"),
        ("skip", "skipped", 99, "nothing to do"),
        ("silent", "failed", 0, "its answer is no answer: there is none"),
        ("malformed", "failed", 0, "its answer is no answer"),
        ("folder", "failed", 0, "its answer is no answer: expected a file"),
    ],
)
def test_every_end_has_its_state_and_its_last_line(
    tried: Tried, behaviour: str, state: str, exit_code: int, last_line: str
) -> None:
    ended = tried.runner().run(request(behaviour), tried.lines.append)
    assert (ended.state, ended.exit_code) == (state, exit_code)
    assert last_line in ended.last_line and "\n" not in ended.last_line
    assert ended.answer is None
    assert containers(tried.env["NIGHTJAR_PROJECT"]) == []


def test_memory_that_runs_out_is_told_with_the_limit_and_what_to_raise(tried: Tried) -> None:
    tried.env = {**tried.env, "NIGHTJAR_MEMORY_CPU": "400m"}
    ended = tried.runner().run(request("memory"), tried.lines.append)
    assert (ended.state, ended.exit_code) == ("killed", 137)
    assert ended.last_line.startswith("OOMKilled: prepare_data reached its limit of 0.42 GB")
    assert "raise NIGHTJAR_MEMORY_CPU" in ended.last_line


@pytest.mark.parametrize("behaviour", ["stubborn", "green"])
def test_kill_stops_and_removes_and_is_never_green(tried: Tried, behaviour: str) -> None:
    runner = tried.runner()
    killed_at: list[float] = []

    def kill() -> None:
        runner.kill()
        killed_at.append(time.monotonic())

    word = "deaf" if behaviour == "stubborn" else "trapped"
    ended = runner.run(request(behaviour), tried.on_line(word, kill))
    assert ended.state == "killed" and ended.answer is None
    assert time.monotonic() - killed_at[0] < 5, "Airflow gives five seconds"
    assert containers(tried.env["NIGHTJAR_PROJECT"]) == []


def test_a_time_out_removes_the_container(tried: Tried) -> None:
    class TimeOut(Exception):
        pass

    def raise_it() -> None:
        raise TimeOut

    with pytest.raises(TimeOut):
        tried.runner().run(request("stubborn"), tried.on_line("deaf", raise_it))
    assert containers(tried.env["NIGHTJAR_PROJECT"]) == []
    assert tried.record()["state"] == "killed"


def start_and_kill(tried: Tried, behaviour: str) -> None:
    """A runner that is killed outright while its task runs."""
    path = os.pathsep.join([str(REPO), str(REPO / "plugins")])
    command = [sys.executable, "-c", PARENT, str(tried.home / "other"), request(behaviour)]
    with subprocess.Popen(
        command, env={**os.environ, **tried.env, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert any("line 0" in line for line in parent.stdout)
        parent.send_signal(signal.SIGKILL)


def test_a_retry_goes_on_with_the_container_that_runs(tried: Tried) -> None:
    start_and_kill(tried, "lines 8 1")
    (before,) = containers(tried.env["NIGHTJAR_PROJECT"])
    seen: list[str] = []
    ended = tried.runner().run(
        request("lines 8 1", number=2),
        tried.on_line("line 7", lambda: seen.extend(c["Id"] for c in containers(tried.env["NIGHTJAR_PROJECT"]))),
    )
    assert ended.state == "success"
    assert seen == [before["Id"]], "a second container was started beside the first"
    assert tried.lines[0].startswith("found the container of try 1, running")
    assert tried.lines[1:3] == ["try 1 begins", "line 0"] and tried.lines[-1] == "line 7"


def test_a_retry_adopts_the_answer_of_a_container_that_ended_meanwhile(tried: Tried) -> None:
    start_and_kill(tried, "lines 2 0.5")
    while containers(tried.env["NIGHTJAR_PROJECT"])[0]["State"] != "exited":
        time.sleep(0.2)
    ended = tried.runner().run(request("lines 2 0.5", number=2), tried.lines.append)
    assert ended.state == "success" and ended.answer is not None
    assert "try 2 begins" not in tried.lines
    assert containers(tried.env["NIGHTJAR_PROJECT"]) == []


def test_the_answer_to_another_request_is_not_adopted(tried: Tried) -> None:
    start_and_kill(tried, "lines 600 1")
    ended = tried.runner().run(request("lines 1 0", number=2), tried.lines.append)
    assert ended.state == "success"
    assert tried.lines[0].startswith("removed the container of try 1, running") and "try 2 begins" in tried.lines


def test_a_secret_is_in_the_task_and_in_nothing_that_the_engine_shows(tried: Tried) -> None:
    shown: list[str] = []

    def look() -> None:
        (one,) = containers(tried.env["NIGHTJAR_PROJECT"])
        shown.append(json.dumps(docker.APIClient(version="auto").inspect_container(one["Id"])))

    ended = tried.runner().run(request("secret"), tried.on_line("try", look))
    assert ended.state == "success" and tried.lines[-1] == "secret of 14 characters"
    assert "MLFLOW_TRACKING_URI" in shown[0] and "planted-secret" not in shown[0]


def test_a_task_can_write_to_its_own_folder_alone(tried: Tried) -> None:
    tried.runner().run(request("rights"), tried.lines.append)
    assert "/: Read-only file system" in tried.lines and "/opt/nightjar: Read-only file system" in tried.lines
    assert tried.lines[-1] == "1234 ['CapEff:\\t0000000000000000', 'NoNewPrivs:\\t1']"


def test_a_gpu_that_is_demanded_and_not_there_fails_at_once(tried: Tried) -> None:
    # A device that no machine has: refused by an engine with NVIDIA's runtime as well as by one without.
    settings = settings_of("gpu", True, {**tried.env, "NIGHTJAR_GPU": NO_GPU})
    ended = tried.runner(settings).run(request("lines 1 0"), tried.lines.append)
    assert (ended.state, ended.exit_code) == ("failed", 78)
    assert f"NIGHTJAR_GPU={NO_GPU} demands a GPU" in ended.last_line and "container toolkit" in ended.last_line
    assert containers(tried.env["NIGHTJAR_PROJECT"]) == []


def test_an_image_that_is_not_there_is_told(tried: Tried) -> None:
    tried.env = {**tried.env, "NIGHTJAR_IMAGE_CPU": "nightjar/nowhere:1"}
    ended = tried.runner().run(request("lines 1 0"), tried.lines.append)
    assert (ended.state, ended.exit_code) == ("failed", 78)
    assert "nightjar/nowhere:1" in ended.last_line and "make compose-up" in ended.last_line


class CuttingProxy:
    """Passes connections on to the engine's socket and cuts every one of them after a while, as proxies do."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.cuts = seconds, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect("/var/run/docker.sock")
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()
            threading.Timer(self.seconds, self._cut, (near, far)).start()

    def _cut(self, *ends: Any) -> None:
        self.cuts += 1
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _pump(one: Any, other: Any) -> None:
        with suppress(OSError), one:
            while data := one.recv(65536):
                other.sendall(data)


def test_a_log_that_is_cut_goes_on_where_it_was(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = CuttingProxy(seconds=1.3)
    monkeypatch.setenv("DOCKER_HOST", proxy.url)
    ended = tried.runner().run(request("lines 40 0.15"), tried.lines.append)
    monkeypatch.delenv("DOCKER_HOST")
    assert proxy.cuts >= 3
    assert ended.state == "success"
    assert tried.lines == ["try 1 begins", *(f"line {number}" for number in range(40))], "lines lost or told twice"


def test_tries_of_one_request_have_one_digest_and_others_have_others() -> None:
    one, retry, other = (labels_of("p", "t", text) for text in (request("a"), request("a", number=2), request("b")))
    assert one["nightjar.request"] == retry["nightjar.request"] != other["nightjar.request"]
    assert (one["nightjar.try"], retry["nightjar.try"]) == ("1", "2")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NIGHTJAR_IMAGE_CPU", "", "NIGHTJAR_IMAGE_CPU is not set: expected the name of an image"),
        ("NIGHTJAR_MEMORY_CPU", "much", "NIGHTJAR_MEMORY_CPU=much: expected a size like 512m or 8g"),
        ("NIGHTJAR_FILES_CPU", "nowhere", "NIGHTJAR_FILES_CPU names nowhere"),
    ],
)
def test_a_setting_that_is_none_is_told(env: dict[str, str], name: str, value: str, words: str) -> None:
    with pytest.raises(BadSetting, match=words):
        settings_of("cpu", False, {**env, name: value})
