"""Fits the two-tower with PyTorch Lightning."""

import hashlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from tasks.recsys.recipe import Fit, Recipe
from tasks.recsys.resuming import Checkpoint
from tasks.recsys.sampling import NegativeSampler
from tasks.recsys.sequences import Windows
from tasks.recsys.steps import Batches, Training
from tasks.recsys.two_tower import TwoTower
from tasks.recsys.watch import Watch


def fit(
    model: TwoTower,
    windows: Windows,
    recipe: Recipe,
    epochs: int,
    validate: Callable[[TwoTower], float] | None = None,
    checkpoint: Path | None = None,
) -> Fit:
    """Fits the model in place: `epochs` passes of the recipe's schedule, or fewer if validation says so.

    Popularity starts from the counts: most items are met by too few batches to find theirs from nothing.

    With `validate`, the weights with the best value are kept, and the fit stops after `recipe.patience` epochs
    without a better one.  With `checkpoint`, a file, a fit that was killed goes on after its last whole epoch.  Same
    seed, threads and CPU: same weights, to the bit, resumed or not.
    """
    if not len(windows):
        return Fit(0, (), ())
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.manual_seed(recipe.seed)
    # On a CPU everything here repeats to the bit; a GPU sums gradients in any order, and says so.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads what it has not written
    targets = int((windows.item >= 0).sum()) - len(windows)
    batches = Batches(windows, recipe.batch_size, torch.Generator().manual_seed(recipe.seed))
    counts = np.bincount(windows.item[windows.item >= 0], minlength=model.item.num_embeddings)
    model.start(torch.from_numpy(counts))
    module = Training(model, NegativeSampler.of(torch.from_numpy(counts)), recipe, len(batches) * recipe.max_epochs)
    watch = Watch(targets, batches, validate, recipe, epochs)
    if checkpoint:
        watch.checkpoint = Checkpoint(checkpoint, _key(model, windows, recipe))
        state = watch.checkpoint.load()
        if state:
            module.resume(state)
            watch.resume(state)
    if not watch.finished:
        _run(module, batches, watch)
    if watch.best:
        model.load_state_dict(watch.best)
    return Fit(watch.best_epoch, tuple(watch.losses), tuple(watch.recalls))


def _run(module: Training, batches: Batches, watch: Watch) -> None:
    """Runs the epochs that are left."""
    trainer = lightning.Trainer(
        max_epochs=watch.epochs - len(watch.losses),
        accelerator="auto",
        devices=1,
        logger=False,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        # Slices of tensors need no workers, and what Lightning uses of torch is not ours to change.
        for message in (".*does not have many workers.*", ".*defined.*multi-process data loading", ".*LeafSpec"):
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(module, DataLoader(batches, batch_size=None))


def _key(model: TwoTower, windows: Windows, recipe: Recipe) -> str:
    """What a fit is of, in a few bytes: equal keys, equal fits."""
    mixed = hashlib.sha256(repr(recipe).encode())
    for array in (windows.item, windows.event, *(value.cpu().numpy() for value in model.state_dict().values())):
        mixed.update(f"{array.shape}".encode())
        mixed.update(np.ascontiguousarray(array).data)
    return mixed.hexdigest()
