"""The contract's own promises: what a config refuses, what a profile changes, what each task says of itself."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.contracts import PROFILES, TASKS, PrepareDataConfig, first_problem

REPO = Path(__file__).parents[1]


def refusal(**config: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        PrepareDataConfig.model_validate({"data": "folder", **config})
    return first_problem(refused.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"test_days": 5}, "test_days given: expected"),
        ({"first_cut": "2015-06-20T00:00:00Z", "test_days": 5}, "first_cut and test_days given: expected"),
        (
            {"first_cut": "2015-06-20", "second_cut": "2015-07-20", "test_days": 5},
            "first_cut and second_cut and test_days given",
        ),
        ({"first_quantile": 0.9}, "first_quantile = 0.9 and second_quantile = 0.85: expected the first before"),
        ({"first_cut": "2015-07-20", "second_cut": "2015-06-20"}, "expected the first before the second"),
        ({"as_of": "yesterday"}, "as_of = 'yesterday': expected an instant like 2015-08-30T00:00:00Z; correct"),
        ({"history_cap": 0}, "history_cap = 0: Input should be greater than or equal to 1; correct"),
        ({"data": ""}, "data = '': "),
    ],
)
def test_a_setting_that_is_wrong_is_named_with_what_was_expected(config: Mapping[str, Any], said: str) -> None:
    assert said in refusal(**config)


def test_cuts_may_be_chosen_in_one_way() -> None:
    for chosen in (
        {},
        {"validation_days": 7, "test_days": 3.5},
        {"first_cut": "2015-06-20", "second_cut": "2015-07-20"},
    ):
        PrepareDataConfig.model_validate({"data": "folder", **chosen})


def test_a_profile_holds_settings_that_exist_and_are_allowed() -> None:
    assert PROFILES["full"] == {}
    for name, value in PROFILES["small"].items():
        configs = [task.config for task in TASKS.values() if name in task.config.model_fields]
        assert configs, name
        for config in configs:
            needed = {"data": "folder"} if config is PrepareDataConfig else {}
            assert getattr(config.model_validate({**needed, name: value}), name) == value
            assert value != config.model_fields[name].default


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_about_what_its_verb_says(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((REPO / "tasks" / f"{name}.py").read_text(encoding="utf-8")))
    assert docstring is not None
    assert TASKS[name].about == docstring.splitlines()[0]
