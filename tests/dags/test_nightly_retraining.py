"""The DAG as Airflow parses it, in Airflow's own environment."""

import json
from typing import Any

import pytest

from tasks.contracts import TASKS
from tests.airflow_env import REPO, in_airflow

FACTS = """
import json, os, warnings
from airflow.dag_processing.dagbag import DagBag

bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"], known_pools={"nightjar"})
dag = bag.dags["nightly_retraining"]
print(json.dumps({
    "dags": list(bag.dags),
    "errors": [str(error) for error in bag.import_errors.values()],
    "warnings": [str(one) for one in (*bag.dag_warnings, *bag.captured_warnings.values())],
    "schedule": dag.timetable.expression, "catchup": dag.catchup, "max_active_runs": dag.max_active_runs,
    "doc": dag.doc_md, "tells": bool(dag.on_failure_callback),
    "params": {name: {"default": dag.params.get_param(name).value, **dag.params.get_param(name).schema,
                      "description": dag.params.get_param(name).description} for name in dag.params},
    "tasks": {
        task.task_id: {
            "upstream": sorted(task.upstream_task_ids), "mapped": task.is_mapped, "pool": task.pool,
            "teardown": task.is_teardown, "fails_the_run": getattr(task, "on_failure_fail_dagrun", False),
            "doc": task.doc_md,
            "hours": task.execution_timeout and task.execution_timeout.total_seconds() / 3600,
            "links": sorted(link.name for link in task.operator_extra_links),
            "outlets": [asset.name for asset in task.outlets],
            "retries": task.retries, "trigger_rule": str(task.trigger_rule.value), "owner": task.owner,
        } for task in dag.tasks
    },
}))
"""

WRONG_WIRING = """
import json
from datetime import datetime
from airflow.sdk import DAG
from nightjar.operators import run_task

def unknown_task():
    run_task("train_three_tower")

def unknown_input():
    dataset = run_task("prepare_data")
    run_task("train_two_tower", dataset=dataset, retriever=dataset)

def missing_input():
    run_task("train_two_tower")

def wrong_artifact():
    dataset = run_task("prepare_data")
    run_task("evaluate_recall", dataset=dataset, retriever=dataset)

def one_for_a_list():
    dataset = run_task("prepare_data")
    retriever = run_task("train_two_tower", dataset=dataset)
    candidates = run_task("generate_candidates", dataset=dataset, retriever=retriever)
    run_task("train_lambdarank", dataset=dataset, candidates=candidates)

said = {}
for wiring in (unknown_task, unknown_input, missing_input, wrong_artifact, one_for_a_list):
    with DAG(wiring.__name__, schedule=None, start_date=datetime(2015, 1, 1)):
        try:
            wiring()
        except (TypeError, ValueError) as error:
            said[wiring.__name__] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return in_airflow(FACTS, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return in_airflow(WRONG_WIRING, tmp_path_factory.mktemp("home"))


def test_the_folder_holds_this_dag_alone_and_parses_without_a_word(dag: Any) -> None:
    assert dag["dags"] == ["nightly_retraining"]
    assert dag["errors"] == []
    assert dag["warnings"] == []


def test_every_task_of_the_contract_is_wired_as_its_inputs_say(dag: Any) -> None:
    upstream = {name: set(task["upstream"]) for name, task in dag["tasks"].items()}
    assert upstream == {
        "prepare_data": set(),
        "train_two_tower": {"prepare_data"},
        "evaluate_recall": {"prepare_data", "train_two_tower"},
        "shards": {"prepare_data"},
        "generate_candidates": {"prepare_data", "train_two_tower", "shards"},
        "train_lambdarank": {"prepare_data", "generate_candidates"},
        "publish_recommendations": {
            *("prepare_data", "train_two_tower", "evaluate_recall", "generate_candidates", "train_lambdarank")
        },
        "write_report": {
            *("prepare_data", "train_two_tower", "evaluate_recall", "generate_candidates", "train_lambdarank"),
            "publish_recommendations",
        },
        "announce": {"publish_recommendations", "write_report"},
        "prune_nights": {"publish_recommendations", "write_report"},
        "backup_mysql": {"write_report"},
        "end": {"write_report"},
    }
    assert TASKS.keys() <= upstream.keys()
    assert [name for name, task in dag["tasks"].items() if task["mapped"]] == ["generate_candidates"]


def test_the_backup_always_runs_and_neither_hides_nor_survives_a_failure(dag: Any) -> None:
    tasks = dag["tasks"]
    assert [name for name, task in tasks.items() if task["teardown"]] == ["backup_mysql", "end"]
    assert tasks["backup_mysql"]["fails_the_run"] and tasks["end"]["fails_the_run"]
    assert tasks["announce"]["trigger_rule"] == "all_success"
    assert "write_report" in tasks["announce"]["upstream"], "without a plain leaf after it, its failure would be green"
    assert dag["tells"], "nobody hears of a red night"


def test_nights_come_one_by_one_at_midnight(dag: Any) -> None:
    assert (dag["schedule"], dag["catchup"], dag["max_active_runs"]) == ("0 0 * * *", False, 1)
    assert {task["pool"] for task in dag["tasks"].values()} == {"nightjar"}
    assert {task["retries"] for task in dag["tasks"].values()} == {2}
    assert {task["owner"] for task in dag["tasks"].values()} == {"nightjar"}


def test_the_pool_is_made_from_the_file_beside_the_operator() -> None:
    pools = json.loads((REPO / "plugins" / "nightjar" / "pools.json").read_text())
    assert pools["nightjar"]["slots"] == 1


def test_the_trigger_form_has_every_setting_with_its_range_and_reason(dag: Any) -> None:
    settings = {name for task in TASKS.values() for name in task.config.model_fields}
    assert dag["params"].keys() == settings - {"shard"} | {"profile"}
    assert all(field["description"] and field["section"] in {*TASKS, "This night"} for field in dag["params"].values())
    this_night = [name for name, field in dag["params"].items() if field["section"] == "This night"]
    assert this_night == list(dag["params"])[:5] == ["as_of", "data", "profile", "publish", "force_reason"]
    assert dag["params"]["force_reason"]["type"] == ["null", "string"], "the form wants one from everybody"
    assert (dag["params"]["profile"]["default"], dag["params"]["profile"]["enum"]) == ("full", ["full", "small"])
    as_of = dag["params"]["as_of"]
    assert (as_of["default"], as_of["type"], as_of["format"]) == (None, ["null", "string"], "date-time")
    candidates = dag["params"]["candidates"]
    assert (candidates["type"], candidates["minimum"], candidates["maximum"]) == ("integer", 50, 1000)
    assert candidates["description"].endswith("(50 to 1,000)")
    assert candidates["default"] == TASKS["generate_candidates"].config.model_fields["candidates"].default
    assert dag["params"]["data"]["default"].endswith("/demo/default")


def test_the_pages_in_the_ui_say_what_each_thing_is_and_what_to_do_when_it_is_red(dag: Any) -> None:
    assert "When it is red" in dag["doc"]
    this_night = [name for name, field in dag["params"].items() if field["section"] == "This night"]
    assert all(f"- `{name}`:" in dag["doc"] for name in this_night)
    for name, task in TASKS.items():
        page = dag["tasks"][name]["doc"]
        assert page.startswith(task.about) and "When it is red" in page
        assert all(f"`{field}`" in page for field in (*task.inputs, *task.config.model_fields))


def test_every_task_of_the_contract_ends_in_time_and_links_what_it_left(dag: Any) -> None:
    assert {name: dag["tasks"][name]["hours"] for name in TASKS} == {name: task.hours for name, task in TASKS.items()}
    assert all(dag["tasks"][name]["links"] == ["Artifact", "MLflow run", "Report"] for name in TASKS)


def test_a_publication_is_an_asset_that_other_dags_wait_for(dag: Any) -> None:
    assert {name: task["outlets"] for name, task in dag["tasks"].items() if task["outlets"]} == {
        "announce": ["nightjar_publication"]
    }


@pytest.mark.parametrize(
    ("wiring", "words"),
    [
        ("unknown_task", ["train_three_tower", "train_two_tower"]),
        ("unknown_input", ["train_two_tower takes dataset", "retriever"]),
        ("missing_input", ["train_two_tower takes dataset", "nothing"]),
        ("wrong_artifact", ["evaluate_recall", "retriever is a Retriever", "Dataset"]),
        ("one_for_a_list", ["train_lambdarank", "candidates is a list[Candidates]", "gives it a Candidates"]),
    ],
)
def test_a_wrong_wiring_is_refused_when_the_dag_is_parsed(refusals: Any, wiring: str, words: list[str]) -> None:
    assert wiring in refusals, "it was accepted"
    assert all(word in refusals[wiring] for word in words), refusals[wiring]
