"""Fits the two-tower with PyTorch Lightning."""

import copy
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tasks.recsys.sampling import NegativeSampler
from tasks.recsys.sequences import Windows
from tasks.recsys.two_tower import TwoTower

log = logging.getLogger(__name__)

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises to its peak; then it falls to zero."""
PROGRESS_SECONDS = 10.0


class Diverged(ValueError):
    """The loss is not a number, or all vectors have become alike."""


@dataclass(frozen=True)
class Recipe:
    """How a fit goes; the same for every fit of a night."""

    max_epochs: int
    """length of the learning rate's schedule"""
    patience: int
    """epochs without a better validation recall before the fit stops"""
    batch_size: int
    """targets in a batch, on average: windows are of unequal length"""
    negatives: int
    """shared by a batch"""
    learning_rate: float
    """at its peak"""
    seed: int


@dataclass(frozen=True)
class Fit:
    """What a fit ended with."""

    epochs: int
    """epochs up to the weights that were kept"""
    losses: tuple[float, ...]
    """mean training loss of each epoch"""
    recalls: tuple[float, ...]
    """validation recall of each epoch; empty without validation"""


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Windows in a new random order each epoch; a batch is a slice of the permuted tensors."""

    def __init__(self, windows: Windows, size: int, generator: torch.Generator) -> None:
        self.item = torch.from_numpy(windows.item).long()
        self.event = torch.from_numpy(windows.event).long()
        self.size = size
        self.generator = generator

    def __len__(self) -> int:
        return math.ceil(len(self.item) / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.item), generator=self.generator)
        item, event = self.item[order], self.event[order]
        for at in range(0, len(order), self.size):
            yield item[at : at + self.size], event[at : at + self.size]


class Training(lightning.LightningModule):
    """Steps of a fit: touches only the rows of the tables that a batch is about."""

    def __init__(self, model: TwoTower, sampler: NegativeSampler, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.sampler = sampler
        self.recipe = recipe
        self.steps = steps
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.losses: list[float] = []

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """SparseAdam for the two tables, Adam for the few dense parameters."""
        tables = [self.model.item.weight, self.model.bias.weight]
        dense = [parameter for parameter in self.model.parameters() if all(parameter is not t for t in tables)]
        rate = self.recipe.learning_rate
        return [torch.optim.SparseAdam(tables, lr=rate), torch.optim.Adam(dense, lr=rate)]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """One batch of windows, every next item a target."""
        item, event = batch
        width = int((item >= 0).sum(1).max())
        negatives = self.sampler.draw(self.recipe.negatives, self.generator).to(item.device)
        loss = self.model.loss(item[:, :width], event[:, :width], negatives)
        if not torch.isfinite(loss):
            raise Diverged(f"the loss is {loss.item()} at step {self.step}: lower learning_rate, or look at the data")
        optimizers: Sequence[torch.optim.Optimizer] = self.optimizers()  # type: ignore[assignment]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = self.recipe.learning_rate * self._schedule()
            optimizer.step()
        self.losses.append(float(loss.detach()))

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def _schedule(self) -> float:
        done = self.step / self.steps
        return min((done + 1 / self.steps) / WARM_UP, (1 - done) / (1 - WARM_UP))


class Watch(lightning.Callback):
    """Progress lines, validation after each epoch, the best weights, early stopping."""

    def __init__(self, batches: int, rows: int, validate: Callable[[TwoTower], float] | None, recipe: Recipe) -> None:
        self.batches, self.rows, self.validate, self.recipe = batches, rows, validate, recipe
        self.losses: list[float] = []
        self.recalls: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.started = self.told = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Training, *_: object) -> None:  # type: ignore[override]
        """Says how far it is."""
        now = time.monotonic()
        if now - self.told >= PROGRESS_SECONDS:
            self.told = now
            rate = module.step / (now - self.started)
            left = (self.batches * trainer.max_epochs - module.step) / rate if trainer.max_epochs else 0.0
            log.info(
                "epoch %d: loss %.4f, %.0f samples/s, at most %.0f s left",
                *(trainer.current_epoch + 1, module.losses[-1], rate * self.rows / self.batches, left),
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore[override]
        """Measures the epoch and keeps its weights if they are the best yet."""
        _check_spread(module.model)
        self.losses.append(sum(module.losses[-self.batches :]) / self.batches)
        epoch = trainer.current_epoch + 1
        if self.validate is None:
            self.best_epoch = epoch
            log.info("epoch %d: loss %.4f", epoch, self.losses[-1])
            return
        self.recalls.append(self.validate(module.model))
        log.info("epoch %d: loss %.4f, validation recall@50 %.4f", epoch, self.losses[-1], self.recalls[-1])
        if self.recalls[-1] >= max(self.recalls):
            self.best, self.best_epoch = copy.deepcopy(module.model.state_dict()), epoch
        trainer.should_stop = epoch - self.best_epoch >= self.recipe.patience


def fit(
    model: TwoTower,
    windows: Windows,
    recipe: Recipe,
    epochs: int,
    validate: Callable[[TwoTower], float] | None = None,
) -> Fit:
    """Fits the model in place: `epochs` passes of the recipe's schedule, or fewer if validation says so.

    With `validate`, the weights with the best value are kept, and the fit stops after `recipe.patience` epochs
    without a better one.  Same seed, threads and CPU: same weights, to the bit.
    """
    if not len(windows):
        return Fit(0, (), ())
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.manual_seed(recipe.seed)
    # On a CPU everything here repeats to the bit; a GPU sums sparse gradients in any order, and says so.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    targets = int((windows.item >= 0).sum()) - len(windows)
    size = max(1, recipe.batch_size * len(windows) // targets)
    batches = Batches(windows, size, torch.Generator().manual_seed(recipe.seed))
    real = batches.item[batches.item >= 0]
    sampler = NegativeSampler.of(torch.bincount(real, minlength=model.item.num_embeddings))
    module = Training(model, sampler, recipe, steps=len(batches) * recipe.max_epochs)
    watch = Watch(len(batches), targets, validate, recipe)
    trainer = lightning.Trainer(
        max_epochs=epochs,
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
    if watch.best:
        model.load_state_dict(watch.best)
    return Fit(watch.best_epoch, tuple(watch.losses), tuple(watch.recalls))


def _check_spread(model: TwoTower) -> None:
    """Vectors that have all become alike recommend the same to everybody; the last step's are in no loss yet."""
    for name, weights in model.named_parameters():
        if not torch.isfinite(weights.detach()).all():
            raise Diverged(f"{name} is not finite: lower learning_rate, or look at the data")
    sample = torch.nn.functional.normalize(model.item.weight[:1_000].detach(), dim=1)
    alike = float((sample @ sample.T).mean())
    if len(sample) > 10 and alike > 0.99:
        raise Diverged(f"the item vectors have collapsed (mean cosine {alike:.4f}): lower learning_rate")
