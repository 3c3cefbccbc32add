"""What the trigger form refuses, and what a task reads of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts import PROFILES
from tests.airflow_env import in_airflow

ASK = """
import json, os
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError
from nightjar.params import problem_of, settings_of, trigger_form
from tasks.contracts import TASKS

said = []
for choice in json.loads(os.environ["CHOICES"]):
    try:
        form = ParamsDict(trigger_form())
        form.update(choice)
        params = form.validate()
    except ParamValidationError as error:
        said.append({"form": str(error).splitlines()[0]})
        continue
    found = {name: settings_of(task, params) for name, task in TASKS.items()}
    said.append({"problem": problem_of(params), "settings": found})
print(json.dumps(said))
"""

REFUSED = [
    ({"candidates": 5}, "Invalid input for param candidates: 5 is less than the minimum of 50"),
    ({"candidates": "many"}, "Invalid input for param candidates: 'many' is not of type 'integer'"),
    ({"index": "tree"}, "Invalid input for param index: 'tree' is not one of"),
    ({"profile": "tiny"}, "Invalid input for param profile: 'tiny' is not one of"),
    ({"data": ""}, "Invalid input for param data: '' should be non-empty"),
    ({"as_of": "yesterday"}, "prepare_data: as_of = 'yesterday': expected an instant like 2015-08-30T00:00:00Z"),
    ({"test_days": 5}, "prepare_data: test_days given: expected first_cut and second_cut, or"),
    ({"first_quantile": 0.9}, "prepare_data: first_quantile = 0.9 and second_quantile = 0.85: expected"),
    ({"candiates": 100}, "candiates is no setting (is candidates meant?)"),
]
ACCEPTED = [
    {},
    {"as_of": "2015-08-30T00:00:00Z", "top": 10},
    {"profile": "small"},
    {"profile": "small", "max_epochs": 2, "seed": 9},
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Any:
    choices = json.dumps([choice for choice, _ in REFUSED] + ACCEPTED)
    return in_airflow(ASK, tmp_path_factory.mktemp("home"), CHOICES=choices)


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_nonsense_is_refused_with_the_fields_name(said: Any, number: int) -> None:
    words = REFUSED[number][1]
    told = said[number].get("form") or said[number]["problem"]
    assert told is not None, "it was accepted"
    assert told.startswith(words)


def test_an_empty_field_is_no_choice(said: Any) -> None:
    usual, chosen, small, changed = said[len(REFUSED) :]
    assert [one["problem"] for one in (usual, chosen, small, changed)] == [None] * 4
    assert "as_of" not in usual["settings"]["prepare_data"]
    assert chosen["settings"]["prepare_data"]["as_of"] == "2015-08-30T00:00:00Z"
    assert chosen["settings"]["publish_recommendations"]["top"] == 10
    assert "shard" not in usual["settings"]["generate_candidates"]


def test_a_profile_replaces_what_was_left_at_its_default(said: Any) -> None:
    usual, _, small, changed = said[len(REFUSED) :]
    replaced = PROFILES["small"]
    for task, settings in small["settings"].items():
        assert settings == {name: replaced.get(name, value) for name, value in usual["settings"][task].items()}
    assert small != usual
    assert changed["settings"]["train_two_tower"]["max_epochs"] == 2
    assert changed["settings"]["train_two_tower"]["heads"] == replaced["heads"]
    assert changed["settings"]["train_lambdarank"]["seed"] == changed["settings"]["train_two_tower"]["seed"] == 9


def test_the_folder_of_the_installation_is_the_forms_default(tmp_path: Path) -> None:
    asked = in_airflow(ASK, tmp_path, CHOICES="[{}]", NIGHTJAR_DATA="/data/shop")
    assert asked[0]["settings"]["prepare_data"]["data"] == "/data/shop"
