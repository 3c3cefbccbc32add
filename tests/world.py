"""What tests share that is no fixture: a home with a real MLflow store, verbs that run for real, rows as CSV."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts import TASKS, Artifact, RunContext
from tasks.tracking import TaskRun, task_run

EVENTS_HEADER = "timestamp,visitorid,event,itemid,transactionid\n"
PROPERTIES_HEADER = "timestamp,itemid,property,value\n"
TREE_HEADER = "categoryid,parentid\n"

Row = Sequence[object]


@dataclass(frozen=True)
class Home:
    """A NIGHTJAR_HOME: an MLflow store on SQLite and a place for what is published."""

    path: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """what its environment has otherwise than usual"""

    @property
    def environment(self) -> Mapping[str, str]:
        """What bin/env sets for the tasks."""
        return {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.path}/mlflow/mlflow.db",
            "NIGHTJAR_RECOMMENDATIONS": f"{self.path}/recommendations.db",
            **self.settings,
        }

    @contextmanager
    def task(self, name: str, inputs: Sequence[Artifact] = (), **context: Any) -> Iterator[TaskRun]:
        """The MLflow run of a task of the night `run_id`."""
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in self.environment.items():
                patch.setenv(variable, value)
            about = RunContext(**{"dag_id": "nightly_retraining", "run_id": "manual__1", **context})
            with task_run(name, about, inputs) as run:
                yield run

    def run(self, name: str, config: Mapping[str, Any], inputs: Mapping[str, Any] | None = None, **context: Any) -> Any:
        """Runs a verb as `python -m tasks` does, and returns its artifact."""
        inputs = inputs or {}
        artifacts = [one for value in inputs.values() for one in (value if isinstance(value, list) else [value])]
        verb: Callable[..., Artifact] = getattr(import_module(f"tasks.{name}"), name)
        settings = TASKS[name].config(**config)
        with self.task(name, artifacts, **context) as run:
            run.params(settings.model_dump(mode="json"))
            return verb(**inputs, config=settings, run=run)

    def stored(self, artifact: Artifact) -> Path:
        """Where MLflow's files of an artifact lie."""
        run_id, folder = artifact.uri.removeprefix("runs:/").split("/", 1)
        (path,) = (self.path / "mlflow" / "artifacts").glob(f"{run_id}/artifacts/{folder}")
        return path

    @property
    def artifacts(self) -> set[str]:
        """Names of all artifacts that were stored."""
        return {path.name for path in (self.path / "mlflow" / "artifacts").glob("*/artifacts/*")}


MakeInput = Callable[..., Path]


def lines(rows: Iterable[Row]) -> str:
    """Rows as CSV."""
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def ms(text: str) -> int:
    """An instant like 2015-08-30, UTC ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
