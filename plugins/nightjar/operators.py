"""Runs the tasks of the contract from a DAG: names and types are checked when it is parsed, values when a task runs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

from airflow.sdk import BaseOperator, Context, XComArg
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from pydantic import ValidationError

from nightjar.docker_settings import OUT_OF_MEMORY as REACHED_ITS_LIMIT
from nightjar.links import LINKS
from nightjar.params import problem_of, settings_of
from nightjar.process_runner import Ended, Try
from nightjar.runners import Runner, runner_of
from tasks.contracts import TASKS, Request, RunContext, Task, first_problem, inputs_model

TEMPORARY = 75
PERMANENT = range(64, 79)  # sysexits, but for the one above
OUT_OF_MEMORY = 137


@dataclass(frozen=True)
class Promise:
    """The artifact that a task of the DAG will hand on."""

    operator: "TaskOperator | MappedOperator"
    kind: Any
    """An artifact's class; list[class] for a mapped task."""

    @property
    def output(self) -> Any:
        """The XComArg; Any, because a @task's arguments have the types of what they resolve to."""
        return self.operator.output


def run_task(name: str, *, each: XComArg | None = None, called: str | None = None, **inputs: Promise) -> Promise:
    """Adds the task `name` of the contract to the DAG; refuses inputs that the contract does not name.

    each: a list of settings, {"shard": 0} and so on, that the DAG decides and not the trigger form; the task is mapped
    over it.  called: a template of what the UI calls each of them, of `task.settings`, `task.inputs`, `task.artifact`.
    """
    task = _checked(name, inputs)
    common: dict[str, Any] = {
        "task_id": name,
        "inputs": {key: promise.output for key, promise in inputs.items()},
        "queue": _queue(task),
        "execution_timeout": timedelta(hours=task.hours),
        "doc_md": _page(task),
    }
    if each is None:
        return Promise(TaskOperator(**common), task.output)
    mapped = TaskOperator.partial(**common, map_index_template=called).expand(settings=each)
    return Promise(mapped, list[task.output])  # type: ignore[name-defined]


def _page(task: Task) -> str:
    """The task's documentation in the UI."""
    inputs = ", ".join(f"`{key}`, {_named(kind)}" for key, kind in task.inputs.items()) or "no artifact"
    fields = ", ".join(f"`{name}`" for name in task.config.model_fields) or "none"
    return f"""{task.about}

- **reads** {inputs}
- **writes** {task.output.__name__}: {task.output.__doc__}
- **settings** {fields}
- **may take** {task.hours:g} h a try; runs in the image `{task.image}`{", on a GPU if there is one" * task.needs_gpu}

**When it is red**, the last line of its log says what went wrong, the value, what was expected and what to do. *No
retry helps*: correct the data and clear this task, or correct a setting and trigger anew. Otherwise it has been tried
three times: see to what did not answer, then clear it. Clearing repeats this task and those after it, none before.
"""


def _queue(task: Task) -> str:
    """Which workers take it, where there are workers; a LocalExecutor has no queues."""
    return "gpu" if task.needs_gpu else "cpu"


def _checked(name: str, inputs: Mapping[str, Promise]) -> Task:
    if name not in TASKS:
        raise ValueError(f"no task {name!r} in tasks/contracts.py; there are {', '.join(TASKS)}")
    task = TASKS[name]
    if inputs.keys() != task.inputs.keys():
        expected, given = (", ".join(sorted(keys)) or "nothing" for keys in (task.inputs, inputs))
        raise TypeError(f"{name} takes {expected}; the DAG gives it {given}")
    for key, kind in task.inputs.items():
        if inputs[key].kind != kind:
            raise TypeError(f"{name}: {key} is a {_named(kind)}; the DAG gives it a {_named(inputs[key].kind)}")
    return task


def _named(kind: Any) -> str:
    inner = get_args(kind)
    return f"list[{inner[0].__name__}]" if inner else str(kind.__name__)


class TaskOperator(BaseOperator):
    """Runs one task of the contract: a local process in the tasks' own environment, or a container."""

    template_fields: Sequence[str] = ("inputs", "settings")
    operator_extra_links = LINKS
    ui_color = "#e8f0fe"

    def __init__(self, *, inputs: Mapping[str, Any], settings: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inputs = inputs
        self.settings = settings
        self.artifact: dict[str, Any] | None = None
        """What it has written; the links and the name in the UI read it."""
        self.night = ""
        """The MLflow run of the night, where an input tells it."""
        self._runner: Runner | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the task and returns its artifact, the one thing that it hands on."""
        task = TASKS[self.task_id]
        instance = context["ti"]
        request = self._request(task, context)
        this = Try.of(
            *(Path(os.environ["NIGHTJAR_HOME"]), request.run.run_id, task.name),
            *(request.run.map_index, instance.try_number),
        )
        try:
            self._runner = runner_of(
                task, this, check=lambda answer: task.output.model_validate_json(answer).model_dump(mode="json")
            )
        except ValueError as error:  # a setting of the installation: the same at the next try
            raise AirflowFailException(f"{task.name}: {error}") from None
        label = task.name if this.map_index < 0 else f"{task.name}[{this.map_index}]"
        ended = self._runner.run(request.model_dump_json(), lambda line: self.log.info("%s | %s", label, line))
        self.artifact = _answer_of(ended, label)
        return self.artifact

    def on_kill(self) -> None:
        """Airflow's word that the task must end; `execute` then raises, whatever the task has answered."""
        if self._runner:
            self._runner.kill()

    def _request(self, task: Task, context: Context) -> Request:
        """What the task is started with, checked against the contract."""
        inputs = {
            key: value[:] if isinstance(value, Sequence) else value  # a slice is one request; iterating is one an item
            for key, value in self.inputs.items()
        }
        self.night = next((one["night"] for one in inputs.values() if isinstance(one, Mapping)), "")
        params = dict(context["params"])
        if not self.upstream_task_ids and (problem := problem_of(params)):  # the first task: in seconds, for them all
            raise AirflowFailException(problem)
        config = settings_of(task, params) | dict(self.settings or {})
        try:
            inputs_model(task.name).model_validate(inputs)
            task.config.model_validate(config)
        except ValidationError as error:
            raise AirflowFailException(f"{task.name}: {first_problem(error)}") from None
        return Request(inputs=inputs, config=config, run=run_context(context))


def run_context(context: Context) -> RunContext:
    """Which try of which run this is.  A manual run's logical date is no choice of anybody's and stays behind."""
    instance, run = context["ti"], context["dag_run"]
    kind = str(getattr(run.run_type, "value", run.run_type))
    dated = kind in ("scheduled", "backfill")
    return RunContext.model_validate(
        {
            "dag_id": instance.dag_id,
            "run_id": instance.run_id,
            "run_type": kind if dated or kind == "asset_triggered" else "manual",
            "logical_date": run.logical_date if dated else None,
            "try_number": instance.try_number,
            "map_index": -1 if instance.map_index is None else instance.map_index,
        }
    )


def _answer_of(ended: Ended, label: str) -> dict[str, Any]:
    """The artifact, or the exception that makes Airflow fail, retry or skip."""
    if ended.state == "success" and ended.answer is not None:
        return ended.answer
    said = f"{label}: {ended.last_line or 'it said nothing'}"
    if ended.state == "skipped":
        raise AirflowSkipException(said)
    if ended.last_line.startswith(REACHED_ITS_LIMIT):
        raise AirflowFailException(f"{label}: {ended.last_line}")  # the same again at the next try
    if ended.state == "killed":
        signum = ended.exit_code - 128 if ended.exit_code > 128 else 15
        guess = " (out of memory?)" if ended.exit_code == OUT_OF_MEMORY else ""
        raise AirflowException(f"{label} was killed by signal {signum}{guess}; its last line: {ended.last_line}")
    if ended.exit_code == 0 or (ended.exit_code in PERMANENT and ended.exit_code != TEMPORARY):
        raise AirflowFailException(f"{said} (exit code {ended.exit_code}: no retry helps)")
    raise AirflowException(f"{said} (exit code {ended.exit_code})")
