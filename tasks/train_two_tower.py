"""Fits the retriever three times by one recipe: before c1 (which makes every choice), before c2, before as_of."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tasks import dataset_files, fits
from tasks.contracts import Dataset, Retriever, TrainTwoTowerConfig
from tasks.failures import BadModel
from tasks.recsys import cooccurrence, index, training
from tasks.recsys.interactions import Interactions
from tasks.recsys.sequences import Windows, last_out, windows
from tasks.recsys.two_tower import TwoTower
from tasks.tracking import RETRIEVER_MODEL, TaskRun

log = logging.getLogger(__name__)

VALIDATION_USERS = 20_000
"""Users that an epoch is judged on, at most."""
CHOSEN_AT = 50
"""Length of the lists that an epoch is judged by."""


def train_two_tower(dataset: Dataset, config: TrainTwoTowerConfig, run: TaskRun) -> Retriever:
    """Writes the three fits and, for every cut, the item-item neighbours as of it."""
    torch.set_num_threads(os.cpu_count() or 1)
    folder = run.fetch(dataset)
    interactions = dataset_files.read_interactions(folder)
    item_ids = dataset_files.read_item_ids(folder)
    recipe = training.Recipe(
        **config.model_dump(include={"max_epochs", "patience", "batch_size", "negatives", "learning_rate", "seed"})
    )
    out = run.work / "retriever"
    epochs = config.max_epochs
    for name, cut in (("c1", dataset.first_cut), ("c2", dataset.second_cut), ("as_of", dataset.as_of)):
        known = interactions.before(cut)
        torch.manual_seed(config.seed)
        model = TwoTower(known.items, config.dim, config.window)
        validate = _validation(interactions, dataset, config.window) if name == "c1" else None
        log.info("fit %s: %d interactions of %d users and %d items", name, len(known), known.users, known.items)
        try:
            fit = training.fit(model, windows(known, config.window), recipe, epochs, validate)
        except training.Diverged as error:
            raise BadModel(f"fit {name}: {error}") from None
        epochs = fit.epochs
        for epoch, loss in enumerate(fit.losses, 1):
            run.metrics({f"{name}.loss": loss}, step=epoch)
        for epoch, recall in enumerate(fit.recalls, 1):
            run.metrics({f"{name}.validation_recall_at_50": recall}, step=epoch)
        fits.write_tower(out / str(cut), model, item_ids[: known.items], known.users, cut)
    _write_neighbours(out / "neighbours", interactions, dataset)
    written = run.store(out, dataset.as_of)
    version = run.register(RETRIEVER_MODEL, written)
    return Retriever(**written, dataset_digest=dataset.digest, run_id=run.run_id, model_version=version, epochs=epochs)


def _validation(interactions: Interactions, dataset: Dataset, window: int) -> Callable[[TwoTower], float] | None:
    """How good a fit of c1 is: recall@50 of each user's last item in c1–c2; None when nobody can be asked."""
    asked, target = last_out(interactions.before(dataset.second_cut), dataset.first_cut, window, VALIDATION_USERS)
    if not len(target):
        log.warning("nobody in c1–c2 can be asked for a next item: every epoch of the recipe is run, none is chosen")
        return None
    known = interactions.before(dataset.first_cut).items
    asked = Windows(np.where(asked.item < known, asked.item, -1), asked.event)
    log.info("each epoch is judged on %d users of c1–c2", len(target))

    def recall(model: TwoTower) -> float:
        queries = model.query_vectors(torch.from_numpy(asked.item).long(), torch.from_numpy(asked.event).long())
        found, _ = index.search(index.build(model.item_vectors().numpy()), queries.numpy(), CHOSEN_AT)
        return float((found == target[:, None]).any(axis=1).mean())

    return recall


def _write_neighbours(folder: Path, interactions: Interactions, dataset: Dataset) -> None:
    """Writes decayed co-visitation as of every cut at which something is retrieved."""
    for cut in fits.cuts(dataset):
        neighbours = cooccurrence.covisitation(interactions, cut)
        fits.write_neighbours(folder / f"{cut}.parquet", neighbours)
        log.info("co-visitation as of %d: %d pairs of %d items", cut, neighbours.nnz, neighbours.shape[0])
