"""Fits the retriever three times by one recipe: before c1 (which makes every choice), before c2, before as_of."""

import dataclasses
import logging
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from tasks import dataset_files, fits, fitting, memory, registry, side_by_side
from tasks.contracts import Dataset, Retriever, TrainTwoTowerConfig
from tasks.fitting import Plan
from tasks.recsys import cooccurrence, evaluation, finishing, index, retrieval, statistics
from tasks.recsys.candidates import CURVES, SOURCES
from tasks.recsys.finishing import Finish, Known
from tasks.recsys.interactions import Interactions
from tasks.recsys.item_features import item_features
from tasks.recsys.recipe import Fit, Recipe, enough_epochs
from tasks.recsys.sequences import windows
from tasks.tracking import RETRIEVER_MODEL, TOWER_CURVES, TaskRun

log = logging.getLogger(__name__)

FITS = ("c1", "c2", "as_of")
CHECKPOINTS = "NIGHTJAR_CHECKPOINTS"
"""Environment variable that names a folder which outlives a try; without it a fit that was killed begins anew."""
WORTH_PROCESSES = 300_000
"""Interactions from which on the fits run side by side."""
ASKED_OF_INDEX = 2_000
"""Histories that an approximate index is measured on."""
WALKED = 10_000
"""Items that are walked from at a time: bounds the memory."""
DEEPEST = max(evaluation.DEPTHS)
FITS_SECONDS = "three_fits_s"
"""Metric of the run: from the start of the first fit to the end of the last."""


def train_two_tower(dataset: Dataset, config: TrainTwoTowerConfig, run: TaskRun) -> Retriever:
    """Writes the three fits, for every cut the item-item neighbours as of it, and the curves of the blend."""
    data = run.fetch(dataset)
    interactions = dataset_files.read_interactions(data)
    recipe = Recipe(**config.model_dump(include={field.name for field in dataclasses.fields(Recipe)}))
    epochs = enough_epochs(windows(interactions.before(dataset.first_cut), config.window), recipe)
    recipe = dataclasses.replace(recipe, max_epochs=epochs)
    out = run.work / "retriever"
    plans = [
        Plan(name, cut, data, dataset, config, recipe, out / str(cut), run.work / f"{name}.pt", _checkpoint(run, name))
        for name, cut in zip(FITS, (dataset.first_cut, dataset.second_cut, dataset.as_of), strict=True)
    ]
    began = time.monotonic()
    with side_by_side.processes(apart=len(interactions) >= WORTH_PROCESSES) as start:
        first, *later = [start(fitting.fit, plan, recipe.max_epochs) for plan in plans]
        _write_neighbours(out, interactions, dataset)
        memory.give_back()
        chosen = first.wait()
        if chosen.epochs != recipe.max_epochs:  # rare where it is worth processes: the others were begun in vain
            for call, plan in zip(later, plans[1:], strict=True):
                call.cancel()
                _forget(plan.checkpoint)
            later = [start(fitting.fit, plan, chosen.epochs) for plan in plans[1:]]
        finish = _choose(plans[0], interactions)
        fitted = [chosen, *(call.wait() for call in later)]
    run.metrics({FITS_SECONDS: time.monotonic() - began})
    torch.set_num_threads(os.cpu_count() or 1)
    for plan in plans:
        _write_tower(plan, interactions, finish)
    for plan, fit in zip(plans, fitted, strict=True):
        _tell(run, plan.name, fit)
    _write_curves(out, interactions, dataset)
    serving = out / str(dataset.as_of)
    _measure_index(serving, data, dataset, config, run)
    registry.describe_retriever(serving, fits.identity(serving))
    written = run.store(out, dataset.as_of)
    version = run.register(RETRIEVER_MODEL, written, serving.name)
    _forget(_checkpoints(run))
    return Retriever(
        **written,
        dataset_digest=dataset.digest,
        run_id=run.run_id,
        model_version=version,
        epochs=chosen.epochs,
    )


def _known(plan: Plan, interactions: Interactions) -> Known:
    items = dataset_files.read_items(plan.data, plan.cut)
    unavailable = (items["available"] == 0).fill_null(False).to_numpy().astype(np.float32)
    facts = {"freshness": statistics.freshness(interactions, plan.cut), "unavailable": unavailable}
    return Known(item_features(items), facts)


def _choose(plan: Plan, interactions: Interactions) -> Finish:
    """What makes the fit of c1 suit c1–c2 best, and is done to the later fits like it."""
    torch.set_num_threads(1)
    items = interactions.before(plan.cut).items
    held = fitting.held_out(plan, interactions)
    return finishing.choose(lambda: fitting.fitted(plan, items), _known(plan, interactions), held)


def _write_tower(plan: Plan, interactions: Interactions, finish: Finish) -> None:
    """Writes a fit as it is served."""
    known = interactions.before(plan.cut)
    model = finish.apply(fitting.fitted(plan, known.items), _known(plan, interactions))
    item_ids = dataset_files.read_item_ids(plan.data)[: known.items]
    fits.write_tower(plan.out, model, item_ids, known.users, plan.cut, plan.config.index)


def _tell(run: TaskRun, name: str, fit: Fit) -> None:
    """Logs the learning curves."""
    for curve, values in zip(TOWER_CURVES, (fit.losses, fit.recalls), strict=True):
        run.curve(f"{name}.{curve}", values)


def _measure_index(serving: Path, data: Path, dataset: Dataset, config: TrainTwoTowerConfig, run: TaskRun) -> None:
    """Logs what a search that is not exact loses of the exact lists of some histories."""
    tower = fits.read_tower(serving)
    if index.is_exact(tower.index):
        return
    histories = dataset_files.read_histories(data, dataset.as_of)
    some = np.unique(np.linspace(0, len(histories) - 1, min(ASKED_OF_INDEX, len(histories))).astype(np.int64))
    vectors, (queries, _) = tower.model.item_vectors().numpy(), tower.queries(tower.windows(histories.take(some)))
    share = index.recall_to_exact(tower.index, vectors, queries, DEEPEST)
    log.info("index %s: recall to exact at %d %.4f, %d histories", config.index, DEEPEST, share, len(some))
    run.metrics({f"index_recall_to_exact_at_{DEEPEST}": share})


def _checkpoints(run: TaskRun) -> Path | None:
    """A folder of the night that outlives a try."""
    folder = os.environ.get(CHECKPOINTS)
    return Path(folder) / run.night if folder else None


def _checkpoint(run: TaskRun, name: str) -> Path | None:
    folder = _checkpoints(run)
    return folder / f"{name}.ckpt" if folder else None


def _forget(path: Path | None) -> None:
    """Removes checkpoints that are of no use any more: a file, or all of them."""
    if path and path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path:
        path.unlink(missing_ok=True)


def _write_neighbours(out: Path, interactions: Interactions, dataset: Dataset) -> None:
    """Writes decayed co-visitation as of every cut at which something is retrieved.

    At as_of every shard asks for two steps from nearly every item, so they are made here, once.
    """
    for cut in fits.cuts(dataset):
        neighbours = cooccurrence.covisitation(interactions, cut)
        fits.write_neighbours(out / fits.NEIGHBOURS / f"{cut}.parquet", neighbours)
        log.info("co-visitation as of %d: %d pairs of %d items", cut, neighbours.nnz, neighbours.shape[0])
    items = neighbours.shape[0]
    for first in range(0, items, WALKED):  # part by part: the fits hold most of the memory meanwhile
        part = np.arange(first, min(first + WALKED, items))
        path = out / fits.WALKS / str(dataset.as_of) / f"{first:08}.parquet"
        fits.write_neighbours(path, cooccurrence.two_steps(neighbours, part)[part], first)
    log.info("in one step and two as of %d: %d items", dataset.as_of, items)


def _write_curves(out: Path, interactions: Interactions, dataset: Dataset) -> None:
    """Learns the blend's curves with the fit of c1 on c1–c2, which nobody is judged on, and writes them."""
    fits.write_curves(out, CURVES)
    sources = fits.read_retriever(out, dataset, interactions, dataset.first_cut, DEEPEST)
    curves = retrieval.learned_curves(sources, interactions, dataset.second_cut, dataset.history_cap)
    log.info("curves in the blend: %s", ", ".join(f"{s.name} {c}" for s, c in zip(SOURCES, curves, strict=True)))
    fits.write_curves(out, curves)
