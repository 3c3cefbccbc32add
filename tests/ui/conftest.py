"""The ui tier: collected only with NIGHTJAR_UI=1.  The real Airflow and MLflow of `make up`, a real Chromium.

NIGHTJAR_SCREENSHOTS names a folder for pictures of what was seen.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[2]
UI = bool(os.environ.get("NIGHTJAR_UI"))
if UI:
    from playwright.sync_api import Browser, Page, expect, sync_playwright

    from tests.ui import airflow_ui

collect_ignore_glob = [] if UI else ["*"]
PATIENCE_MS = 60_000.0
"""A busy machine draws a page slowly."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ui: needs Chromium")


@dataclass(frozen=True)
class World:
    """A home with Airflow and MLflow up."""

    home: Path
    airflow: str
    mlflow: str
    screenshots: Path

    @property
    def password(self) -> str:
        return str(json.loads((self.home / "secrets" / "passwords.json").read_text())["admin"])

    def rest(self, path: str, body: Any, method: str = "POST", token: str = "") -> Any:
        """Airflow's answer to a request, before anybody has a browser."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.airflow}{path}", data, headers, method=method)
        ) as answer:
            return json.load(answer)


def _ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Up, with small demo data and the DAG switched on; down afterwards."""
    home, data = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("demo") / "data"
    knobs = ["--scale", "0.005", "--noise", "0", "--seed", "7"]
    subprocess.run([sys.executable, "-m", "tasks.demo_data", str(data), *knobs], cwd=REPO, check=True)
    airflow, mlflow = _ports(2)
    where = {"NIGHTJAR_HOME": str(home), "AIRFLOW_PORT": str(airflow), "MLFLOW_PORT": str(mlflow), "DATA": str(data)}
    # No schedule: a backfill lets Airflow catch the last midnight up, decades after the demo data.
    environment = {**os.environ, **where, "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"}
    screenshots = Path(os.environ.get("NIGHTJAR_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    try:
        subprocess.run([REPO / "bin" / "up"], env=environment, check=True)
        world = World(home, f"http://127.0.0.1:{airflow}", f"http://127.0.0.1:{mlflow}", screenshots)
        _switch_on(world)
        yield world
    finally:
        subprocess.run([REPO / "bin" / "down"], env=environment, check=True)


def _switch_on(world: World) -> None:
    token = world.rest("/auth/token", {"username": "admin", "password": world.password})["access_token"]
    world.rest(f"/api/v2{airflow_ui.DAG}?update_mask=is_paused", {"is_paused": False}, "PATCH", token)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Debian calls it chromium, others by other names; CHROMIUM names it."""
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    assert path, "no Chromium: apt-get install chromium, or name it: CHROMIUM=/path"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # A container's root has no sandbox to offer; the only pages are this repository's own.
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture
def stranger(world: World, browser: "Browser", request: pytest.FixtureRequest) -> "Iterator[Page]":
    """A fresh browser window; what it shows at the end of the test is kept."""
    context = browser.new_context(base_url=world.airflow, viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    yield page
    airflow_ui.shoot(page, world.screenshots, f"end-of-{request.node.name}")
    context.close()


@pytest.fixture
def page(world: World, stranger: "Page") -> "Page":
    """A window in which admin is logged in."""
    airflow_ui.log_in(stranger, world.password)
    expect(stranger.get_by_role("link", name="Dags", exact=True)).to_be_visible()
    return stranger
