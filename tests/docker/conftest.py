"""The docker tier: collected only with NIGHTJAR_DOCKER=1.  Real engine, images built from the repo."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.stack import REPO, Stack

collect_ignore_glob = [] if os.environ.get("NIGHTJAR_DOCKER") else ["*"]
TAG = "test"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "docker: needs a Docker engine")


@pytest.fixture(scope="session")
def images() -> str:
    """Builds every image of this tree; returns their tag."""
    chosen = {"NIGHTJAR_VERSION": TAG, "COMPOSE_PROFILES": "object-store"}
    subprocess.run([REPO / "bin" / "images"], env={**os.environ, **chosen}, check=True)
    return TAG


@pytest.fixture(scope="session")
def stack(images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The compose stack, healthy, beside whatever else runs on this engine; gone afterwards, volumes and all."""
    stack = Stack(tmp_path_factory.mktemp("stack"), images)
    stack.down()
    try:
        stack.up()
        stack.open_for_nights()
        yield stack
    except BaseException:
        print(stack.compose("ps", "--all", check=False), stack.compose("logs", "--tail", "60", check=False))
        raise
    finally:
        stack.down()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for what the runner records."""
    return tmp_path / "home"
