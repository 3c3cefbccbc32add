"""The task prepare_data as a night runs it: every cut, every output, logged to an MLflow store of its own."""

import os
import sys
from pathlib import Path

from tasks.contracts import PrepareDataConfig, RunContext
from tasks.prepare_data import prepare_data
from tasks.tracking import task_run


def main(data: str, work: Path) -> None:
    """Prepares the data of a folder in the folder `work`."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{work}/mlflow.db"
    with task_run("prepare_data", RunContext.model_validate({"dag_id": "bench", "run_id": "bench"}), []) as run:
        prepare_data(PrepareDataConfig.model_validate({"data": data}), run)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
