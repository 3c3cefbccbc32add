"""Days that are backfilled by Airflow's own scheduler: stopped, gone on with, and the same as one by hand."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.embedded.conftest import NIGHT_SECONDS, REPO, Home

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(900)]

SMALL = ["--settings", '{"profile": "small"}']
DAYS = ["--from", "2015-09-03", "--to", "2015-09-04"]


@pytest.fixture
def ports() -> Iterator[dict[str, str]]:
    """Two ports of loopback that nobody listens on."""
    with closing(socket.socket()) as one, closing(socket.socket()) as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        found = {"AIRFLOW_PORT": str(one.getsockname()[1]), "MLFLOW_PORT": str(other.getsockname()[1])}
    yield found


def backfill(home: Home, ports: Mapping[str, str], *arguments: str) -> "subprocess.Popen[str]":
    """Begins it as `make backfill` does."""
    return subprocess.Popen(
        [REPO / "bin" / "env", sys.executable, REPO / "bin" / "backfill", *arguments],
        env={**os.environ, **ports, "NIGHTJAR_HOME": str(home.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def digests(facts: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """Of all but the morning page, which holds durations."""
    tasks = [task for task in facts["tasks"] if task["digest"] and task["task"] != "write_report"]
    return {(task["task"], task["map_index"]): task["digest"] for task in tasks}


def in_force(home: Home) -> list[Any]:
    with closing(sqlite3.connect(home.path / "recommendations.db")) as store:
        return store.execute("SELECT * FROM in_force").fetchall()


def wait_for_a_task(home: Home, process: "subprocess.Popen[str]") -> None:
    while not list(home.path.glob("work/backfill__2015-09-03*/train_two_tower/try-1")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)


def test_days_stopped_and_gone_on_with_are_those_by_hand(home: Home, demo_data: Path, ports: Mapping[str, str]) -> None:
    asked = [*DAYS, *SMALL, "--data", str(demo_data)]
    stopped = backfill(home, ports, *asked)
    wait_for_a_task(home, stopped)
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=NIGHT_SECONDS)
    assert stopped.returncode == 130
    assert err.splitlines()[-1] == "backfill: stopped; the same command goes on with the days that are left"
    left = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    assert str(home.path) not in left, "a process of it still runs"

    out, err = (process := backfill(home, ports, *asked)).communicate(timeout=3 * NIGHT_SECONDS)
    assert process.returncode == 0, err
    assert "backfill: 2 nights, 2015-09-03 to 2015-09-04" in err
    first, second = nights = json.loads(Path(out.splitlines()[-1]).read_text())
    assert [night["as_of"] for night in nights] == ["2015-09-03T00:00:00.000Z", "2015-09-04T00:00:00.000Z"]
    assert [night["publication"]["verdict"] for night in nights] == ["held", "held"]
    assert first["realised"] is None
    assert second["realised"]["generation"] == first["publication"]["generation"]
    assert in_force(home) == [], "a backfill went into force"
    recall, baseline = (f"{first['headline'][at]['value']:.4f}" for at in (1, 2))
    assert first["headline"][1]["name"] == "recall@50, all sources blended"
    assert out.splitlines()[2].split()[4:6] == [recall, baseline]

    again = backfill(home, ports, *asked)
    _, err = again.communicate(timeout=NIGHT_SECONDS)
    assert again.returncode == 0 and "every day is green already" in err

    by_hand = home.night("--data", str(demo_data), "--as-of", "2015-09-04", *SMALL)
    assert by_hand.exit_code == 0, by_hand.err
    facts = json.loads(Path(by_hand.out[-1]).read_text())
    assert facts["publication"]["verdict"] == "first"
    assert digests(facts) == digests(second)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "yesterday", "--to", "2015-09-04"], "FROM=yesterday is no day; write it like 2015-08-01"),
        (["--from", "2015-09-03", "--to", "2015-09-31"], "TO=2015-09-31 is not in the calendar"),
        ([*DAYS, "--settings", "small"], "SETTINGS=small is no JSON object"),
        ([*DAYS, "--settings", '{"as_of": "2015-09-03"}'], "each night's is its own midnight"),
        ([*DAYS, "--data", "/nowhere"], "DATA=/nowhere is no folder"),
    ],
)
def test_what_cannot_start_says_so_in_one_line_at_once(
    home: Home, ports: Mapping[str, str], arguments: list[str], words: str
) -> None:
    process = backfill(home, ports, *arguments)
    _, err = process.communicate(timeout=NIGHT_SECONDS)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert words in line
