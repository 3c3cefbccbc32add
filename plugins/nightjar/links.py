"""Links of a task instance to what it left in MLflow, on its page in the UI; an empty one is not shown.

NIGHTJAR_MLFLOW_UI is MLflow's address as a person's browser has it.  A link is fixed when the task ends.
"""

import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class MlflowRunLink(BaseOperatorLink):
    """The task's MLflow run; that of the whole night, which lists it, when the task has failed."""

    name = "MLflow run"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:
        """The address, or an empty text."""
        run_id = _uri(operator).partition("/")[0] or getattr(operator, "night", "")
        return _page(f"runs/{run_id}") if run_id else ""


class ArtifactLink(BaseOperatorLink):
    """The files of the artifact that the task wrote."""

    name = "Artifact"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:
        """The address, or an empty text."""
        run_id, _, folder = _uri(operator).partition("/")
        # The run's own id finds it, whatever stands in the experiment's place.
        return _page(f"experiments/0/runs/{run_id}/artifacts/{folder}") if run_id else ""


class ReportLink(BaseOperatorLink):
    """The morning page, of the task that wrote it."""

    name = "Report"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:
        """The address, or an empty text."""
        page = (getattr(operator, "artifact", None) or {}).get("page")
        run_id, _, folder = _uri(operator).partition("/")
        return _page(f"experiments/0/runs/{run_id}/artifacts/{folder}/{page}") if page else ""


LINKS = (MlflowRunLink(), ArtifactLink(), ReportLink())


def _uri(operator: Any) -> str:
    """RUN/FOLDER of the artifact that the operator has written, or an empty text."""
    artifact = getattr(operator, "artifact", None) or {}
    return str(artifact.get("uri", "")).removeprefix("runs:/")


def _page(path: str) -> str:
    address = os.environ.get("NIGHTJAR_MLFLOW_UI", "")
    return f"{address.rstrip('/')}/#/{path}" if address else ""
