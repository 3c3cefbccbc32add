"""Who hears of a night that is red or held, by a real notifier of Airflow's kind."""

import json
from pathlib import Path

import pytest

from tests.airflow_env import in_airflow

NOTIFIER = """
from pathlib import Path
from airflow.sdk import BaseNotifier

class ToFile(BaseNotifier):
    template_fields = ("line",)

    def __init__(self, path, line):
        super().__init__()
        self.path, self.line = path, line

    def notify(self, context):
        Path(self.path).write_text(self.line)
"""

TELL = """
import json, sys, types
sys.path.insert(0, ".")
from nightjar import notifier

told = {"run_id": "r", "reason": "timed_out", "dag": None}
if WHERE:
    told["ti"] = types.SimpleNamespace(task_id=WHERE)
try:
    notifier.tell_failed(told)
    print(json.dumps("told"))
except ValueError as error:
    print(json.dumps(str(error)))
"""


def script(folder: Path, task: str) -> str:
    (folder / "to_file.py").write_text(NOTIFIER)
    return f"WHERE = {task!r}\nimport sys; sys.path.insert(0, {str(folder)!r})\n{TELL}"


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("train_two_tower", "nightjar: the night r is red: train_two_tower, its log says why"),
        ("", "nightjar: the night r is red (timed_out)"),
    ],
)
def test_the_chosen_notifier_is_told(tmp_path: Path, task: str, line: str) -> None:
    heard = tmp_path / "heard"
    chosen = {"class": "to_file.ToFile", "path": str(heard), "line": "nightjar: {{ message }}"}
    assert in_airflow(script(tmp_path, task), tmp_path / "home", NIGHTJAR_NOTIFIER=json.dumps(chosen)) == "told"
    assert heard.read_text() == line


def test_without_a_choice_it_is_logged(tmp_path: Path) -> None:
    assert in_airflow(script(tmp_path, "prepare_data"), tmp_path / "home", NIGHTJAR_NOTIFIER="") == "told"


@pytest.mark.parametrize("chosen", ["slack", "{}", '{"class": "nowhere.Nobody"}', '{"class": "to_file.ToFile"}'])
def test_a_choice_that_is_none_says_what_is_expected(tmp_path: Path, chosen: str) -> None:
    said = in_airflow(script(tmp_path, "prepare_data"), tmp_path / "home", NIGHTJAR_NOTIFIER=chosen)
    assert said.startswith(f"NIGHTJAR_NOTIFIER = {chosen}: ") and "expected a JSON object" in said
