"""A night that is whole, one with a task that fails, one with a task that is killed, one that a person stops."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tasks.contracts import TASKS
from tests.embedded.conftest import Home

pytestmark = pytest.mark.embedded


def processes(home: Path, words: str) -> list[int]:
    """Processes whose command line holds the words and a path below this home."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if words in line and str(home) in line]


def the_failure(lines: list[str]) -> str:
    (line,) = [line for line in lines if line.startswith("night: failed")]
    return line


def test_a_whole_night(home: Home, demo_data: Path) -> None:
    night = home.night("--data", str(demo_data))
    assert night.exit_code == 0, night.err
    states = night.states
    assert states.pop("backup_mysql") == "skipped"
    assert {name.split("[")[0] for name in states} == TASKS.keys() - {"backup_mysql"}
    assert set(states.values()) == {"success"}
    summary = Path(night.out[-1])
    assert summary.name == "summary.json" and summary.is_relative_to(home.path)
    assert night.published
    assert "Nightjar: the night as of" in (summary.parent / "report.html").read_text(encoding="utf-8")
    assert any(line.startswith("train_two_tower | ") for line in night.err), "the tasks' lines were not shown"
    assert not any("[airflow" in line for line in night.err), "Airflow's own lines were shown"


def test_a_task_that_fails(home: Home, spoilt: Callable[[str, str], Path]) -> None:
    data = spoilt("events.csv", "timestamp,visitorid,event\n1433221332117,257597,view\n")
    night = home.night("--data", str(data))
    assert night.exit_code != 0
    assert night.states == {"prepare_data": "failed", "backup_mysql": "skipped"}
    failure = the_failure(night.err)
    assert "prepare_data" in failure and "exit code 65" in failure and "itemid" in failure
    assert "airflow.log" in failure
    assert night.log.count("[DAG TEST] starting task_id=prepare_data") == 1, "bad data was tried again"
    assert not night.published


def test_a_task_that_is_killed_at_every_try(home: Home, demo_data: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        while process.poll() is None:
            for pid in processes(home.path, "-m tasks train_two_tower"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.1)

    process = home.start("--data", str(demo_data))
    killer = threading.Thread(target=kill)
    killer.start()
    night = home.end(process)
    killer.join()
    assert len(set(killed)) == 3, "one try and two retries"
    assert night.exit_code != 0
    assert night.states == {"prepare_data": "success", "train_two_tower": "killed", "backup_mysql": "skipped"}
    assert "train_two_tower (killed, exit code 137)" in the_failure(night.err)
    assert not night.published


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_night_that_a_person_stops_leaves_no_process(home: Home, demo_data: Path, signum: signal.Signals) -> None:
    process = home.start("--data", str(demo_data))
    while not processes(home.path, "-m tasks "):
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.05)
    process.send_signal(signum)
    night = home.end(process)
    assert night.exit_code == 128 + signum
    assert night.err[-1].startswith(f"night: stopped by {signum.name}")
    assert not processes(home.path, "")
    assert set(night.states.values()) == {"killed"}
    assert not night.published


def test_two_nights_in_one_home_do_not_meet(home: Home, demo_data: Path) -> None:
    first = home.start("--data", str(demo_data))
    while not (home.path / "night.lock").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    second = home.night("--data", str(demo_data))
    first.terminate()
    home.end(first)
    assert second.exit_code == 1
    (line,) = second.err
    assert "another night is running" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "/nowhere"], "DATA=/nowhere is no folder"),
        (["--as-of", "yesterday"], "AS_OF=yesterday is no instant"),
    ],
)
def test_what_cannot_start_says_so_in_one_line_at_once(home: Home, arguments: list[str], words: str) -> None:
    night = home.night(*arguments)
    assert night.exit_code == 1
    (line,) = night.err
    assert words in line
