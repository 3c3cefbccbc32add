"""Whole nights: the real DAG by the real Airflow, each in a home of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[2]
NIGHT_SECONDS = 240


@dataclass(frozen=True)
class Night:
    """What one run of bin/night left."""

    home: Path
    exit_code: int
    out: list[str]
    err: list[str]

    @property
    def states(self) -> dict[str, str]:
        """State of the last try of each task; a mapped task's name carries its index."""
        records = [json.loads(path.read_bytes()) for path in self.home.glob("work/*/*/try-*/record.json")]
        records.sort(key=lambda record: int(record["try"]))
        return {self._label(record): record["state"] for record in records}

    @staticmethod
    def _label(record: dict[str, Any]) -> str:
        mapped = f"[{record['map_index']}]" if record["map_index"] >= 0 else ""
        return f"{record['task']}{mapped}"

    @property
    def log(self) -> str:
        (log,) = self.home.glob("nights/*/airflow.log")
        return log.read_text(encoding="utf-8")

    @property
    def published(self) -> bool:
        return (self.home / "recommendations.db").exists()


class Home:
    """A NIGHTJAR_HOME in which nights are run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begins a night as `make run` does."""
        return subprocess.Popen(
            [REPO / "bin" / "env", sys.executable, REPO / "bin" / "night", *arguments],
            env={**os.environ, "NIGHTJAR_HOME": str(self.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: "subprocess.Popen[str]") -> Night:
        out, err = process.communicate(timeout=NIGHT_SECONDS)
        return Night(self.path, process.returncode, out.splitlines(), err.splitlines())

    def night(self, *arguments: str) -> Night:
        return self.end(self.start(*arguments))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with something to learn."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    knobs = ["--scale", "0.005", "--noise", "0", "--seed", "7"]
    subprocess.run([sys.executable, "-m", "tasks.demo_data", str(folder), *knobs], cwd=REPO, check=True)
    return folder


@pytest.fixture
def spoilt(demo_data: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of the demo data with one file replaced."""

    def replace(name: str, content: str) -> Path:
        folder = tmp_path / "spoilt"
        folder.mkdir()
        for path in demo_data.iterdir():
            if path.name != name:
                (folder / path.name).symlink_to(path)
        (folder / name).write_text(content, encoding="utf-8")
        return folder

    return replace
