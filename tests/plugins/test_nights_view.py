"""The view Nights, as Airflow's own application serves it: who may see it, and what a real MLflow server has."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.airflow_env import SERVED, in_airflow
from tests.mlflow_server import serving
from tests.world import Home

HOSTILE = "<script>alert(1)</script>"
REALISED, SIMPLE = "recall_at_50", "own_history_then_popular.recall_at_50"


@pytest.fixture(scope="module")
def night(new_home: Callable[[], Home], tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    """A home with a night that has its page, and one without; the run of the first."""
    home, folder = new_home(), tmp_path_factory.mktemp("page") / "report"
    folder.mkdir()
    (folder / "report.html").write_text("good morning")
    with home.task("write_report", run_id="manual__1") as run:
        run.attach(folder, run_id=run.night)
        about = {"verdict": "held", "reason": HOSTILE, "as_of": "1442016000000", "report": "report/report.html"}
        run.tags(about, run_id=run.night)
        run.metrics({f"realised.{REALISED}": 0.25, f"realised.{SIMPLE}": 0.125}, run_id=run.night)
    with home.task("prepare_data", run_id="manual__2") as other:
        other.tags({"as_of": "1442102400000"}, run_id=other.night)
        other.metrics({f"realised.{REALISED}": 0.5, f"realised.{SIMPLE}": 0.25}, run_id=other.night)
    return home, run.night


@pytest.fixture(scope="module")
def mlflow(night: tuple[Home, str]) -> Iterator[str]:
    """The address of a real server on the home's store."""
    with serving(night[0].path) as address:
        yield address


@pytest.fixture(scope="module")
def answers(night: tuple[Home, str], mlflow: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    paths = [
        "/nightjar/nights/",
        f"/nightjar/nights/{night[1]}",
        "/nightjar/nights/..%2f..%2fetc",
        "/nightjar/nights/ab",
    ]
    port = mlflow.rpartition(":")[2]
    found: dict[str, Any] = in_airflow(
        f"{SERVED}\nprint(json.dumps(found))",
        tmp_path_factory.mktemp("airflow"),
        PATHS=json.dumps(paths),
        MLFLOW_PORT=port,
    )
    return found


def test_a_stranger_is_refused(answers: dict[str, Any]) -> None:
    refused = {"nobody": 401, "forger": 403}
    for question, answer in answers.items():
        who, _, path = question.partition(" ")
        if who in refused:
            assert answer[0] == (404 if "%2f" in path else refused[who]), question
            assert "morning" not in answer[1] and "held" not in answer[1]


def test_the_nights_are_listed_with_verdict_and_page(answers: dict[str, Any], night: tuple[Home, str]) -> None:
    status, page, policy = answers["admin /nightjar/nights/"]
    assert status == 200
    assert page.count("<tr>") == 3, "a head and two nights"
    assert "2015-09-12 00:00" in page and "<td>held</td>" in page
    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert page.count("morning page") == 1 and f'href="/nightjar/nights/{night[1]}"' in page
    assert "<td>0.2500</td>" in page and "<td>0.5000</td>" in page
    assert 'points="0.0,45.0 640.0,0.0"' in page, "the lists: half the way up, then the top"
    assert 'points="0.0,67.5 640.0,45.0"' in page, "the simple method, half as good"
    assert "default-src 'none'" in policy


def test_a_morning_page_opens_and_nothing_else_of_mlflow_does(answers: dict[str, Any], night: tuple[Home, str]) -> None:
    assert answers[f"admin /nightjar/nights/{night[1]}"][:2] == [200, "good morning"]
    assert answers["admin /nightjar/nights/ab"][0] == 404
    assert answers["admin /nightjar/nights/..%2f..%2fetc"][0] == 404


def test_it_is_in_the_menu(answers: dict[str, Any]) -> None:
    views = {view["name"]: (view["destination"], view["href"]) for view in answers["views"]}
    assert views["Nights"] == ("nav", "/nightjar/nights/")
