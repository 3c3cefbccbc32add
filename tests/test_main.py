"""The entry point as the runner calls it: a real process, one JSON document in, one out, exit codes of sysexits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tasks.__main__ as entry
from tasks.contracts import Backup
from tests.world import Home

ROOT = Path(__file__).parents[1]
RUN = {"dag_id": "nightly_retraining", "run_id": "manual__1"}


def command(task: str, request: Any, folder: Path) -> list[str]:
    text = request if isinstance(request, str) else json.dumps(request)
    (folder / "request.json").write_text(text)
    return [sys.executable, "-m", "tasks", task, str(folder / "request.json"), str(folder / "answer.json")]


def call(task: str, request: Any, folder: Path, home: Home) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(task, request, folder),
        check=False,
        cwd=ROOT,
        env={**os.environ, **home.environment},
        capture_output=True,
        text=True,
    )


def last_line(ended: "subprocess.CompletedProcess[str]") -> str:
    return ended.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("task", "request_", "code", "said"),
    [
        ("no_such_task", {"inputs": {}, "config": {}, "run": RUN}, 64, "NAME one of prepare_data"),
        ("prepare_data", "{", 64, "no JSON document"),
        ("prepare_data", {"inputs": {}, "config": {}}, 64, "run is missing"),
        ("prepare_data", {"inputs": {}, "config": {}, "run": RUN}, 78, "data is missing"),
        (
            "prepare_data",
            {"inputs": {}, "config": {"data": "x", "first_quantile": 2}, "run": RUN},
            78,
            "first_quantile = 2",
        ),
        ("prepare_data", {"inputs": {}, "config": {"data": "x", "speed": 1}, "run": RUN}, 78, "speed = 1"),
        ("prepare_data", {"inputs": {}, "config": {"data": "/nowhere"}, "run": RUN}, 65, "/nowhere does not exist"),
        ("backup_mysql", {"inputs": {}, "config": {}, "run": RUN}, 99, "SQLite"),
    ],
)
def test_what_is_wrong_is_the_last_line_and_the_exit_code(
    home: Home, tmp_path: Path, task: str, request_: Any, code: int, said: str
) -> None:
    ended = call(task, request_, tmp_path, home)
    assert ended.returncode == code, ended.stderr
    assert said in last_line(ended)
    assert sorted(path.name for path in tmp_path.glob("answer*")) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device", "/data/x"), 74),
        (ConnectionRefusedError(111, "Connection refused"), 75),
        (TimeoutError("too slow"), 75),
        (ValueError("nobody thought of this"), 70),
    ],
)
def test_errors_have_their_class(error: Exception, code: int) -> None:
    assert entry._classify(error).exit_code == code


WAITING = """
import sys, time
sys.path.insert(0, {root!r})
import tasks.__main__ as entry
def wait(*_): time.sleep(60)
entry.run_task = wait
sys.exit(entry.main(sys.argv[1:]))
"""


def waiting(folder: Path, **options: Any) -> "subprocess.Popen[bytes]":
    """A task that would take a minute."""
    arguments = command("backup_mysql", {"inputs": {}, "config": {}, "run": RUN}, folder)[3:]
    code = WAITING.format(root=str(ROOT))
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], start_new_session=True, **options)
    time.sleep(1.5)
    assert process.poll() is None
    return process


def test_sigterm_ends_a_task_with_143(tmp_path: Path) -> None:
    process = waiting(tmp_path, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=5)
    assert process.returncode == 143
    assert said.decode().startswith("ended by SIGTERM")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["request.json"]


FAILING = """
import logging, sys, time
sys.path.insert(0, {root!r})
import tasks.__main__ as entry
entry.HEARTBEAT_SECONDS = 0.5
def fail(*_):
    time.sleep(2.2)
    raise ZeroDivisionError("nobody\\nexpected this")
entry.run_task = fail
sys.exit(entry.main(sys.argv[1:]))
"""


def test_a_silent_task_says_that_it_lives_and_what_nobody_expected_is_told_whole(tmp_path: Path) -> None:
    arguments = command("backup_mysql", {"inputs": {}, "config": {}, "run": RUN}, tmp_path)[3:]
    code = FAILING.format(root=str(ROOT))
    ended = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    assert ended.returncode == 70
    assert ended.stderr.count("still at work: ") in (1, 2)
    assert "Traceback" in ended.stderr
    assert last_line(ended) == "unexpected ZeroDivisionError: nobody expected this; the traceback is above"
    assert ended.stdout == ""


def test_a_task_ends_when_whoever_started_it_dies(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = waiting(tmp_path, pass_fds=[reading], env={**os.environ, entry.LIFELINE: str(reading)})
    os.close(reading)
    os.close(writing)
    assert process.wait(timeout=5) == 143


def test_an_answer_appears_whole(tmp_path: Path) -> None:
    answer = Backup(uri="runs:/1/b", digest="sha256:0", size=1, night="n", as_of=1, file="f")
    entry.write_answer(answer, tmp_path / "answer.json")
    assert Backup.model_validate_json((tmp_path / "answer.json").read_bytes()) == answer
    assert [path.name for path in tmp_path.iterdir()] == ["answer.json"]
