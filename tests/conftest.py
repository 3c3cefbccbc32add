"""A home of its own for each test, and input folders."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.world import EVENTS_HEADER, PROPERTIES_HEADER, TREE_HEADER, Home, MakeInput, Row, lines


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Home]:
    """Makes homes; MLflow makes the tables once, the others are copies."""
    from mlflow import MlflowClient

    template = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{template}", f"sqlite:///{template}").search_registered_models()

    def make() -> Home:
        home = Home(tmp_path_factory.mktemp("home"))
        (home.path / "mlflow").mkdir()
        shutil.copy(template, home.path / "mlflow" / "mlflow.db")
        return home

    return make


@pytest.fixture
def home(new_home: Callable[[], Home], monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home that is this test's own, and its environment."""
    home = new_home()
    for variable, value in home.environment.items():
        monkeypatch.setenv(variable, value)
    return home


@pytest.fixture
def make_input(tmp_path: Path) -> MakeInput:
    """Makes an input folder of rows."""

    def make(name: str, events: Iterable[Row], properties: Iterable[Row] = (), tree: Iterable[Row] = ()) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "events.csv").write_text(EVENTS_HEADER + lines(events))
        for file, header, rows in (
            ("item_properties.csv", PROPERTIES_HEADER, lines(properties)),
            ("category_tree.csv", TREE_HEADER, lines(tree)),
        ):
            if rows:
                (folder / file).write_text(header + rows)
        return folder

    return make
