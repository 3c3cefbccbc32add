"""The steps of a fit of the two-tower: batches, negatives, and the optimizers of a PyTorch Lightning module."""

import math
from collections.abc import Iterator

import lightning
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from tasks.recsys.recipe import Recipe
from tasks.recsys.resuming import State
from tasks.recsys.row_adam import RowAdam
from tasks.recsys.sampling import NegativeSampler
from tasks.recsys.sequences import Windows
from tasks.recsys.two_tower import Rows, TwoTower

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises to its peak; then it falls to zero."""
BETAS, EPS = (0.9, 0.999), 1e-8
DENSE_RATE = 0.5
"""Learning rate of the few parameters that every batch touches, as a share of the tables'."""

POOL = 50
"""Batches whose windows are sorted by length: the more, the less padding; the fewer, the better they are mixed."""


class Diverged(ValueError):
    """The loss is not a number, or all vectors have become alike."""


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Windows in a new random order each epoch; a batch is a slice of the permuted tensors.

    Windows of like length go together, so that little of a batch is padding; a batch has about `targets` next items.
    """

    def __init__(self, windows: Windows, targets: int, generator: torch.Generator) -> None:
        self.item = torch.from_numpy(windows.item)
        self.event = torch.from_numpy(windows.event)
        self.length = (self.item >= 0).sum(1)
        self.targets = targets
        self.generator = generator

    def __len__(self) -> int:
        return math.ceil(int((self.length - 1).sum()) / self.targets)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        pools = math.ceil(len(self) / POOL)
        order = torch.randperm(len(self.item), generator=self.generator)
        pool = torch.arange(len(order)) * pools // len(order)
        order = order[torch.argsort(pool * (self.item.shape[1] + 1) + self.length[order], stable=True)]
        done = torch.cumsum(self.length[order] - 1, 0)
        bounds = torch.searchsorted(done, torch.arange(1, len(self)) * self.targets)
        batches = torch.tensor_split(order, bounds)
        for number in torch.randperm(len(batches), generator=self.generator).tolist():
            rows = batches[number]
            width = int(self.length[rows].max())
            yield self.item[rows, :width].long(), self.event[rows, :width].long()


class Training(lightning.LightningModule):
    """Steps of a fit: touches only the rows of the tables that a batch is about."""

    def __init__(self, model: TwoTower, sampler: NegativeSampler, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.sampler = sampler
        self.recipe = recipe
        self.steps = steps
        self.step = 0
        """Steps done."""
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.scored_in = _fastest_type()
        self.losses: list[float] = []
        self.resumed: State | None = None

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for everything; for the tables, of the rows that a batch touches."""
        dense = [one for one in self.model.dense.values() if one.requires_grad]
        self.of_tables = RowAdam(self.model.tables, self.recipe.learning_rate, BETAS, EPS)
        self.of_others = torch.optim.Adam(dense, self.recipe.learning_rate * DENSE_RATE, BETAS, EPS, fused=True)
        if self.resumed:
            self.of_tables.load_state_dict(self.resumed["of_tables"])
            self.of_others.load_state_dict(self.resumed["of_others"])
        return [self.of_tables, self.of_others]

    def state(self) -> State:
        """Where it stands after an epoch."""
        return {
            "model": self.model.state_dict(),
            "of_tables": self.of_tables.state_dict(),
            "of_others": self.of_others.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
        }

    def resume(self, state: State) -> None:
        """Goes on from a state."""
        self.model.load_state_dict(state["model"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]
        self.resumed = state

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """One batch of windows, every next item a target."""
        item, event = batch
        negatives = self.sampler.draw(self.recipe.negatives, self.generator).to(item.device)
        ids = torch.unique(torch.cat([item[item >= 0], negatives.item]))
        rows = Rows(ids, *self.of_tables.read(ids))
        kept = torch.rand(item.shape, generator=self.generator) >= self.recipe.dropout
        how = self.scored_in, self.recipe.loss
        loss = self.model.loss(rows, item, event, negatives, kept.to(item.device), *how)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(f"the loss is {value} at step {self.step}: lower learning_rate, or look at the data")
        self.model.zero_grad()  # the tables have none, their rows' are new
        loss.backward()  # type: ignore[no-untyped-call]
        self._move()
        self.losses.append(value)

    def _move(self) -> None:
        """One step of the optimizers by the schedule of the learning rate."""
        done = self.step / self.steps
        share = min((done + 1 / self.steps) / WARM_UP, (1 - done) / (1 - WARM_UP))
        self.of_tables.param_groups[0]["lr"] = self.recipe.learning_rate * share
        self.of_others.param_groups[0]["lr"] = self.recipe.learning_rate * DENSE_RATE * share
        for optimizer in (self.of_tables, self.of_others):
            optimizer.step()
        self.step += 1


def _fastest_type() -> torch.dtype:
    """The type that this machine multiplies fastest at no loss of recall."""
    has_bf16 = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32
