"""The process runner with the real entry point and throw-away verbs, each child a real process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from nightjar.process_runner import GRACE_SECONDS, Ended, ProcessRunner, Try, night_folder, write_whole
from tasks.contracts import Dataset

REPO = Path(__file__).parents[2]

VERB = """
import logging, os, signal, subprocess, sys, time
from pathlib import Path
from tasks.contracts import Dataset
from tasks.failures import BadData, Skipped, Unavailable

log = logging.getLogger("tasks")
COUNTS = dict.fromkeys(("size", "as_of", "first_cut", "second_cut", "events", "users", "items", "duplicates",
                        "rejected", "history_cap"), 1)
ANSWER = {"uri": "runs:/a/b", "digest": "d", "night": "n", "input_digest": "i", "ranker_cuts": [1], "suspect": [],
          "shards": 2}

def prepare_data(config, run):
    match config.data:
        case "slow lines":
            for number in range(3):
                log.info("line %d", number)
                time.sleep(0.4)
        case "bad data":
            raise BadData("events.csv: no column itemid")
        case "temporary":
            raise Unavailable("the store does not answer")
        case "skip":
            raise Skipped("nothing to do")
        case "malformed":
            Path(sys.argv[3]).write_text('{"uri": "runs:/a/b"}')
            os._exit(0)
        case "silent":
            os._exit(0)
        case "out of memory":
            os.kill(os.getpid(), signal.SIGKILL)
        case "half a line":
            sys.stderr.write("ends without a newline")
            sys.stderr.flush()
        case "memory":
            bytearray(b"x" * 300_000_000)
        case "where":
            log.info("%s | %s", os.getcwd(), [name for name in os.environ if name.startswith("AIRFLOW")])
        case "hang" | "stubborn" | "leftover":
            grandchild = subprocess.Popen(["sleep", "600"])
            if config.data == "stubborn":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            log.info("pids %d %d", os.getpid(), grandchild.pid)
            if config.data != "leftover":
                time.sleep(600)
    return Dataset.model_validate({name: value for name, value in (COUNTS | ANSWER).items()
                                   if name in Dataset.model_fields})
"""

TRACKING = """
from contextlib import contextmanager

class Run:
    def params(self, values): pass
    def metrics(self, values): pass

@contextmanager
def task_run(name, run, artifacts):
    yield Run()
"""

PARENT = """
import sys
from pathlib import Path
from nightjar.process_runner import ProcessRunner, Try
folder, request = sys.argv[1:]
runner = ProcessRunner(sys.executable, Try("prepare_data", -1, 1, Path(folder)), lambda answer: {})
runner.run(request, lambda line: print(line, flush=True))
"""


@pytest.fixture(autouse=True)
def entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real `python -m tasks` with a verb that misbehaves as its setting `data` says."""
    package = tmp_path / "package" / "tasks"
    package.mkdir(parents=True)
    for name in ("__init__", "__main__", "contracts", "failures", "memory"):
        shutil.copy(REPO / "tasks" / f"{name}.py", package)
    (package / "prepare_data.py").write_text(VERB)
    (package / "tracking.py").write_text(TRACKING)
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}{os.pathsep}{REPO / 'plugins'}")


@pytest.fixture
def runner(tmp_path: Path) -> ProcessRunner:
    this = Try.of(tmp_path, "manual__2026-01-01T00:00:00+00:00", "prepare_data", -1, 1)
    return ProcessRunner(sys.executable, this, check)


def check(answer: bytes) -> dict[str, Any]:
    return Dataset.model_validate_json(answer).model_dump(mode="json")


def request(behaviour: str) -> str:
    run = {"dag_id": "nightly_retraining", "run_id": "r"}
    return json.dumps({"inputs": {}, "config": {"data": behaviour}, "run": run})


def record(runner: ProcessRunner) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((runner.this.folder / "record.json").read_bytes())
    return found


def alive(pid: int) -> bool:
    """Whether the process still does something; a zombie that nobody has fetched yet does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pids: list[int], seconds: float = 2.0) -> bool:
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def pids_of(line: str) -> list[int]:
    return [int(word) for word in line.split()[1:]] if line.startswith("pids ") else []


class Watch:
    """Collects lines, and does something once the task says its pids."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.lines: list[str] = []
        self.times: list[float] = []
        self.pids: list[int] = []
        self._then = then

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self.times.append(time.monotonic())
        if pids := pids_of(line):
            self.pids = pids
            self._then()


@pytest.fixture
def on_term_nothing() -> Iterator[None]:
    """Restores the handlers that a test sets."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_lines_arrive_as_they_come_and_the_answer_by_file(runner: ProcessRunner) -> None:
    watch = Watch()
    ended = runner.run(request("slow lines"), watch)
    assert watch.lines == ["line 0", "line 1", "line 2"]
    assert watch.times[2] - watch.times[0] > 0.6, "the lines came in one lump at the end"
    assert ended.state == "success"
    assert ended.answer is not None and ended.answer["uri"] == "runs:/a/b"
    assert {"task": "prepare_data", "map_index": -1, "try": 1, "state": "success"}.items() <= record(runner).items()
    assert record(runner)["answer"] == ended.answer
    assert 1.2 < ended.seconds < 30 and 0 < ended.cpu_seconds < ended.seconds


@pytest.mark.parametrize(
    ("behaviour", "state", "exit_code", "last_line"),
    [
        ("bad data", "failed", 65, "events.csv: no column itemid"),
        ("temporary", "failed", 75, "the store does not answer"),
        ("skip", "skipped", 99, "nothing to do"),
        ("out of memory", "killed", 137, ""),
        ("half a line", "success", 0, "ends without a newline"),
    ],
)
def test_every_end_has_its_state_and_its_last_line(
    runner: ProcessRunner, behaviour: str, state: str, exit_code: int, last_line: str
) -> None:
    ended = runner.run(request(behaviour), lambda line: None)
    assert (ended.state, ended.exit_code, ended.last_line) == (state, exit_code, last_line)
    assert record(runner)["state"] == state


@pytest.mark.parametrize("behaviour", ["silent", "malformed"])
def test_exit_code_0_without_a_valid_answer_is_a_failure(runner: ProcessRunner, behaviour: str) -> None:
    ended = runner.run(request(behaviour), lambda line: None)
    assert (ended.state, ended.exit_code, ended.answer) == ("failed", 0, None)
    assert "its answer is no answer" in ended.last_line and "\n" not in ended.last_line


def test_an_answer_of_an_earlier_try_does_not_count(runner: ProcessRunner) -> None:
    assert runner.run(request("fine"), lambda line: None).state == "success"
    assert runner.run(request("silent"), lambda line: None).state == "failed"


def test_kill_reaches_the_whole_group_and_is_never_green(runner: ProcessRunner) -> None:
    watch = Watch(then=lambda: threading.Timer(0.1, runner.kill).start())
    ended = runner.run(request("hang"), watch)
    assert (ended.state, ended.exit_code) == ("killed", 143)
    assert gone(watch.pids) and len(watch.pids) == 2


def test_a_task_that_ignores_term_is_killed_after_the_grace(runner: ProcessRunner) -> None:
    watch = Watch(then=runner.kill)
    ended = runner.run(request("stubborn"), watch)
    assert (ended.state, ended.exit_code) == ("killed", 137)
    assert GRACE_SECONDS <= time.monotonic() - watch.times[-1] < GRACE_SECONDS + 2
    assert gone(watch.pids)


def test_a_kill_that_comes_as_the_task_succeeds_is_not_green(runner: ProcessRunner) -> None:
    runner.kill()  # before it has begun; the child then finds TERM waiting, or ends with 0 first
    assert runner.run(request("fine"), lambda line: None).state == "killed"


def test_nothing_that_the_task_leaves_behind_lives_on(runner: ProcessRunner) -> None:
    watch = Watch()
    started = time.monotonic()
    assert runner.run(request("leftover"), watch).state == "success"
    assert time.monotonic() - started < 30, "waited for a grandchild that holds the pipe"
    assert gone(watch.pids)


@pytest.mark.usefixtures("on_term_nothing")
def test_a_time_out_ends_the_whole_group(runner: ProcessRunner) -> None:
    class TimeOut(Exception):
        pass

    def raise_it(signum: int, frame: FrameType | None) -> NoReturn:
        raise TimeOut

    signal.signal(signal.SIGUSR1, raise_it)
    watch = Watch(then=lambda: threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start())
    with pytest.raises(TimeOut):
        runner.run(request("hang"), watch)
    assert gone(watch.pids)
    assert record(runner)["state"] == "killed"


def test_a_parent_that_is_killed_outright_takes_the_task_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "try-1"
    command = [sys.executable, "-c", PARENT, str(folder), request("hang")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = next(found for line in parent.stdout if (found := pids_of(line)))
        parent.kill()
        assert gone(pids, seconds=8.0)


def test_the_task_sees_its_folder_and_none_of_airflows_settings(
    runner: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "secret")
    ended = runner.run(request("where"), lambda line: None)
    assert ended.last_line == f"{runner.this.folder} | []"


def test_peak_memory_is_the_tasks_own(runner: ProcessRunner) -> None:
    ended: Ended = runner.run(request("memory"), lambda line: None)
    assert 300e6 < ended.peak_memory_bytes < 1e9


def test_two_writers_leave_one_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    texts = [letter * 200_000 for letter in "abcd"]

    def write(text: str) -> None:
        for _ in range(20):
            write_whole(target, text)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if target.exists():
            assert target.read_text() in texts
    assert target.read_text() in texts
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["record.json"]


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    one = night_folder(tmp_path, "manual__2026-01-01T00:00:00+00:00")
    other = night_folder(tmp_path, "manual__2026-01-01T00:00:01+00:00")
    assert one != other and one.parent == other.parent == tmp_path / "work"
    assert Try.of(tmp_path, "r", "t", 3, 2).folder == tmp_path / "work" / "r" / "t.3" / "try-2"
