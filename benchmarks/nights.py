"""The product's own tasks, run in this process on a store of their own, for benchmarks of what they learn."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl

from tasks import dataset_files, fits, ranker_files
from tasks import train_lambdarank as ranker_task
from tasks.contracts import (
    Artifact,
    Candidates,
    Dataset,
    GenerateCandidatesConfig,
    PrepareDataConfig,
    Retriever,
    RunContext,
    TrainLambdarankConfig,
    TrainTwoTowerConfig,
)
from tasks.generate_candidates import generate_candidates
from tasks.prepare_data import prepare_data
from tasks.recsys import baselines, features, ranking, retrieval
from tasks.recsys.interactions import Histories, Interactions, Ints, Longs
from tasks.tracking import task_run
from tasks.train_two_tower import train_two_tower

DEPTH = 300


@dataclass(frozen=True)
class Night:
    """A fitted retriever and what it was fitted on."""

    dataset: Dataset
    interactions: Interactions
    data: Path
    """the stored Dataset"""
    retriever: Retriever
    fitted: Path
    """the stored Retriever"""

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
    retriever = train(dataset)
    return Night(dataset, interactions(home, dataset), stored(home, dataset), retriever, stored(home, retriever))


def kept(home: Path, data: Path) -> Night:
    """`run` of all data with the default cuts, made once: later calls find it in the folder."""
    note = home / "night.json"
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
    if not note.exists():
        home.mkdir(parents=True, exist_ok=True)
        night = run(home, data, None, (0.70, 0.85))
        note.write_text(json.dumps([one.model_dump(mode="json") for one in (night.dataset, night.retriever)]))
    found = json.loads(note.read_text())
    dataset, retriever = Dataset.model_validate(found[0]), Retriever.model_validate(found[1])
    return Night(dataset, interactions(home, dataset), stored(home, dataset), retriever, stored(home, retriever))


def train(dataset: Dataset) -> Retriever:
    """Fits the retriever, with every setting's default."""
    with task_run("train_two_tower", _context(dataset), [dataset]) as task:
        return train_two_tower(dataset, TrainTwoTowerConfig.model_validate({}), task)


def candidates(night: Night) -> list[Candidates]:
    """The candidates of every shard."""
    verb, found = "generate_candidates", []
    for shard in range(night.dataset.shards):
        with task_run(verb, _context(night.dataset), [night.dataset, night.retriever]) as task:
            config = GenerateCandidatesConfig.model_validate({"shard": shard})
            found.append(generate_candidates(night.dataset, night.retriever, config, task))
    return found


def rank(home: Path, night: Night, made: list[Candidates]) -> Any:
    """The booster of the night's ranker, with every setting's default."""
    verb = "train_lambdarank"
    with task_run(verb, _context(night.dataset), [night.dataset, *made]) as task:
        config = TrainLambdarankConfig.model_validate({})
        return ranker_files.read_booster(stored(home, ranker_task.train_lambdarank(night.dataset, made, config, task)))


@contextmanager
def blanked(names: Collection[str]) -> Iterator[None]:
    """While it lasts, nobody knows these features: what they are worth, and what an artefact of the data lends them."""
    compute, columns = features.features, [list(features.FEATURES).index(name) for name in names]

    def without(*of: Any) -> Any:
        found = compute(*of)
        found[:, columns] = np.nan
        return found

    with mock.patch.object(ranker_task, "features", without), mock.patch.object(ranking, "features", without):
        yield


def ranked(night: Night, booster: Any, cut: int, asked: Histories) -> Ints:
    """Lists [histories, 300] of the blend in the ranker's order, which knows nothing of items after the cut."""
    items = _padded(ranker_files.read_items(night.data, cut), 1 + int(asked.item.max(initial=0)))
    lists, at = np.full((len(asked), DEPTH), -1, dtype=np.int32), 0
    for block in night.sources(cut).blended(asked, DEPTH):
        pairs, mine = block.pairs(), asked.take(np.arange(at, at + len(block)))
        position, _ = ranking.best(booster, pairs, mine, items, DEPTH)
        row = pairs.row[position]
        lists[at + row, np.arange(len(row)) - np.searchsorted(row, row)] = pairs.item[position]
        at += len(block)
    return lists


def _padded(items: features.ItemTable, number: int) -> features.ItemTable:
    """The table with at least `number` items: one of which nothing is known has neither category nor price."""
    more = max(0, number - len(items.views))
    unknown = {"category": -1, "price": np.nan}
    return replace(
        items,
        **{
            name: np.append(column, np.full(more, unknown.get(name, 0), dtype=column.dtype))
            for name, column in vars(items).items()
        },
    )


def _context(dataset: Dataset) -> RunContext:
    return RunContext.model_validate({"dag_id": "quality", "run_id": f"as of {dataset.as_of}"})


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
