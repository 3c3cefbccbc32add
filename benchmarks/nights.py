"""The product's own tasks, run in this process on a store of their own, for benchmarks of what they learn."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tasks import dataset_files, fits
from tasks.contracts import Artifact, Dataset, PrepareDataConfig, Retriever, RunContext, TrainTwoTowerConfig
from tasks.prepare_data import prepare_data
from tasks.recsys import baselines, retrieval
from tasks.recsys.interactions import Histories, Interactions, Ints, Longs
from tasks.tracking import task_run
from tasks.train_two_tower import train_two_tower

DEPTH = 300


@dataclass(frozen=True)
class Night:
    """A fitted retriever and what it was fitted on."""

    dataset: Dataset
    interactions: Interactions
    fitted: Path

    def sources(self, cut: int) -> retrieval.Retriever:
        """The retriever as of a cut."""
        return fits.read_retriever(self.fitted, self.dataset, self.interactions, cut, DEPTH)


def prepare(home: Path, data: Path, as_of: int | None, quantiles: tuple[float, float]) -> Dataset:
    """Prepares the data before as_of (UTC ms; None: all), cut at the quantiles."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
    first, second = quantiles
    config = {"data": str(data), "first_quantile": first, "second_quantile": second, "max_data_age_days": 3650}
    instant = {"as_of": np.datetime64(as_of, "ms").item().isoformat() + "Z"} if as_of else {}
    about = _about(data, as_of)
    with task_run("prepare_data", about, []) as task:
        return prepare_data(PrepareDataConfig.model_validate({**config, **instant}), task)


def run(home: Path, data: Path, as_of: int | None, quantiles: tuple[float, float]) -> Night:
    """Prepares the data and fits the retriever."""
    dataset = prepare(home, data, as_of, quantiles)
    return Night(dataset, interactions(home, dataset), stored(home, train(dataset)))


def train(dataset: Dataset) -> Retriever:
    """Fits the retriever, with every setting's default."""
    about = RunContext.model_validate({"dag_id": "quality", "run_id": f"as of {dataset.as_of}"})
    with task_run("train_two_tower", about, [dataset]) as task:
        return train_two_tower(dataset, TrainTwoTowerConfig.model_validate({}), task)


def _about(data: Path, as_of: int | None) -> RunContext:
    return RunContext.model_validate({"dag_id": "quality", "run_id": f"{data.name} before {as_of}"})


def interactions(home: Path, dataset: Dataset) -> Interactions:
    """All interactions of a dataset."""
    return dataset_files.read_interactions(stored(home, dataset))


def stored(home: Path, artifact: Artifact) -> Path:
    """The folder of an artifact in the store."""
    run_id, folder = artifact.uri.removeprefix("runs:/").split("/", 1)
    return home / "artifacts" / run_id / "artifacts" / folder


def event_times(data: Path) -> Longs:
    """[events], ascending, UTC ms, of a folder in the input format."""
    files = sorted(data.glob("events*.csv*"))
    times: Longs = np.sort(np.concatenate([pl.read_csv(file, columns=["timestamp"])["timestamp"] for file in files]))
    return times


def lists(sources: retrieval.Retriever, known: Interactions, asked: Histories) -> Iterator[tuple[str, Ints]]:
    """Lists [histories, 300] of ours: the simple methods, the two-tower alone, the blend."""
    yield from baselines.every(known, asked, sources.cut, DEPTH)
    yield "two_tower", sources.tower.recommend(asked, DEPTH)[0]
    yield "blend", np.concatenate([block.item for block in sources.blended(asked, DEPTH)])
