"""What is done after each epoch of a fit: lines that tell of it, validation, the best weights, checkpoints."""

import copy
import logging
import math
import time
from collections.abc import Callable

import lightning
import torch
from torch import Tensor

from tasks.recsys.recipe import Recipe
from tasks.recsys.resuming import Checkpoint, State
from tasks.recsys.steps import Batches, Diverged, Training
from tasks.recsys.two_tower import TwoTower

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0


class Watch(lightning.Callback):
    """Progress lines, validation after each epoch, the best weights, early stopping, checkpoints."""

    def __init__(
        self, rows: int, batches: Batches, validate: Callable[[TwoTower], float] | None, recipe: Recipe, epochs: int
    ) -> None:
        self.rows, self.batches, self.validate, self.recipe, self.epochs = rows, batches, validate, recipe, epochs
        self.losses: list[float] = []
        self.recalls: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.checkpoint: Checkpoint | None = None
        self.started = self.told = time.monotonic()
        self.steps = 0

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept: the last of the best, or the last without validation."""
        if not self.recalls:
            return len(self.losses)
        return len(self.recalls) - self.recalls[::-1].index(max(self.recalls))

    @property
    def finished(self) -> bool:
        """Whether there is no further epoch to run."""
        return len(self.losses) >= self.epochs or len(self.losses) - self.best_epoch >= self.recipe.patience

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Training, *_: object) -> None:  # type: ignore[override]
        """Says how far it is."""
        self.steps += 1
        now = time.monotonic()
        if now - self.told >= PROGRESS_SECONDS:
            self.told = now
            rate = self.steps / (now - self.started)
            left = (len(self.batches) * self.epochs - module.step) / rate
            log.info(
                "epoch %d: loss %.4f, %.0f samples/s, at most %.0f s left",
                *(len(self.losses) + 1, module.losses[-1], rate * self.rows / len(self.batches), left),
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore[override]
        """Measures the epoch, keeps its weights if they are the best yet, and writes where the fit stands."""
        module.of_tables.catch_up()
        _check_spread(module.model)
        self.losses.append(sum(module.losses) / len(module.losses))
        module.losses.clear()
        told = f"epoch {len(self.losses)}: loss {self.losses[-1]:.4f}"
        if self.validate:
            self.recalls.append(self.validate(module.model))
            told += f", validation recall@50 {self.recalls[-1]:.4f}"
            if self.best_epoch == len(self.recalls):
                self.best = {}  # first: there is no room for a third
                self.best = copy.deepcopy(module.model.state_dict())
        log.info("%s", told)
        trainer.should_stop = self.finished
        if self.checkpoint:
            order = self.batches.generator.get_state()
            mine = {"losses": self.losses, "recalls": self.recalls, "best": self.best, "order": order}
            self.checkpoint.save(module.state() | mine)

    def resume(self, state: State) -> None:
        """Goes on from a state."""
        self.losses, self.recalls, self.best = state["losses"], state["recalls"], state["best"]
        self.batches.generator.set_state(state["order"])
        log.info("resumed from epoch %d", len(self.losses))


def _check_spread(model: TwoTower) -> None:
    """Vectors that have all become alike recommend the same to everybody; the last step's are in no loss yet."""
    for name, weights in model.named_parameters():
        if not all(math.isfinite(one) for one in torch.aminmax(weights.detach())):  # no array on the way
            raise Diverged(f"{name} is not finite: lower learning_rate, or look at the data")
    sample = torch.nn.functional.normalize(model.item.weight[:1_000].detach(), dim=1)
    alike = float((sample @ sample.T).mean())
    if len(sample) > 10 and alike > 0.99:
        raise Diverged(f"the item vectors have collapsed (mean cosine {alike:.4f}): lower learning_rate")
