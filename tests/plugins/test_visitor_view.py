"""The view One visitor, as Airflow's own application serves it: who may ask, for what, and what it shows."""

import json
from dataclasses import asdict
from typing import Any

import polars as pl
import pytest

from tasks.publication import Generation, Store
from tasks.recsys.explaining import Explained, Reason
from tasks.visitor import Did, Visitor
from tests.airflow_env import SERVED, in_airflow

HOSTILE = "<script>alert(1)</script>"
PATHS = ["", "?visitor=257597", "?visitor=%3Cscript%3Ealert(1)%3C%2Fscript%3E", "?visitor=-1", "?visitor=1%3Bls"]
AT = "/nightjar/visitor/"
REASON = Reason("place", HOSTILE, "from 1", 3.0, 0.5)
FOUND = Visitor(
    visitor=257597,
    generation=HOSTILE,
    in_force=True,
    as_of=1_442_016_000_000,
    known=True,
    history=[Did(11, "addtocart", 1_442_000_000_000)],
    length=50,
    listed=[Explained(77, 1.25, 3, {"own_history": 2}, (REASON, Reason("price", "price", "price", None, -0.25)))],
    missed=[Explained(88, 0.125, 60, {"popular": 9}, ())],
    differs="",
    default=[5],
)

ASK = f"""
{SERVED}
from nightjar.visitor_view import told
one = json.loads(os.environ["FOUND"])
found["told"], found["otherwise"] = told(one), told({{**one, "differs": "at rank 1"}})
del os.environ["NIGHTJAR_TASKS_PYTHON"]
found["elsewhere"] = ask("{AT}?visitor=257597", "admin")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a home in which one generation is in force that knows nobody."""
    home = tmp_path_factory.mktemp("airflow")
    store = Store(home / "recommendations.db")
    default = pl.DataFrame({"itemid": [4711, 4712], "score": [1.0, 0.5]})
    store.write(Generation("tonight", FOUND.as_of, "night", "first", "good", "1", None), [], [], default)
    store.switch("tonight")
    paths = json.dumps([f"{AT}{path}" for path in PATHS])
    found: dict[str, Any] = in_airflow(ASK, home, PATHS=paths, FOUND=json.dumps(asdict(FOUND)))
    return found


def test_a_stranger_is_refused(answers: dict[str, Any]) -> None:
    for path in PATHS:
        assert answers[f"nobody {AT}{path}"][0] == 401
        assert answers[f"forger {AT}{path}"][0] == 403
        assert "4711" not in answers[f"nobody {AT}{path}"][1] + answers[f"forger {AT}{path}"][1]


def test_it_asks_for_a_visitor(answers: dict[str, Any]) -> None:
    status, page, policy = answers[f"admin {AT}"]
    assert status == 200 and '<input name="visitor"' in page
    assert "default-src 'none'" in policy and "form-action 'self'" in policy


def test_a_visitor_is_looked_up_by_the_tasks(answers: dict[str, Any]) -> None:
    status, page, _ = answers[f"admin {AT}?visitor=257597"]
    assert status == 200
    assert "Generation tonight (in force), as of 2015-09-12 00:00 UTC." in page
    assert "Not known" in page and "Gets 4711, 4712" in page and 'value="257597"' in page


@pytest.mark.parametrize("path", PATHS[2:])
def test_an_id_that_is_no_whole_number_is_refused(answers: dict[str, Any], path: str) -> None:
    status, page, _ = answers[f"admin {AT}{path}"]
    assert status == 400 and "is a whole number" in page
    assert HOSTILE not in page


def test_a_known_visitor_s_list_has_sources_and_reasons(answers: dict[str, Any]) -> None:
    page = answers["told"]
    assert "<td>1</td><td>77</td><td>1.2500</td><td>3</td><td>own_history 2</td>" in page
    assert "<small>+0.5000 &lt;script&gt;alert(1)&lt;/script&gt;: 3 (from 1)</small>" in page
    assert "<small>-0.2500 price: missing</small>" in page
    assert "<td>51</td><td>88</td>" in page
    assert "<td>2015-09-11 19:33</td><td>addtocart</td><td>11</td>" in page
    assert "The same list as is published." in page and HOSTILE not in page


def test_another_list_than_the_published_one_is_said_loudly(answers: dict[str, Any]) -> None:
    assert "<strong>NOT THE PUBLISHED LIST: at rank 1</strong>" in answers["otherwise"]


def test_without_the_tasks_environment_it_names_the_command(answers: dict[str, Any]) -> None:
    status, page, _ = answers["elsewhere"]
    assert status == 200 and "<pre>docker compose run --rm tasks python -m tasks.visitor 257597</pre>" in page


def test_it_is_in_the_menu(answers: dict[str, Any]) -> None:
    views = {view["name"]: (view["destination"], view["href"]) for view in answers["views"]}
    assert views["One visitor"] == ("nav", AT)
