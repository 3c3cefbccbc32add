"""Adam for tables of which a batch touches few rows, at the cost of those rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROWS = 1 << 14
"""Rows that are caught up at a time: bounds the memory."""
ALMOST_ZERO = 1e-32
"""Nothing beside ε once its root is taken; the root of a zero takes five times as long."""


@dataclass(frozen=True)
class Held:
    """Rows of a table that were read for a step."""

    table: Tensor
    """[items, dim]"""
    values: Tensor
    """[rows, dim], a leaf: what gradients are taken of"""
    moments: Tensor
    """[rows, 2, dim], the first and the second"""

    @property
    def mean(self) -> Tensor:
        """[rows, dim], first moment"""
        return self.moments[:, 0]

    @property
    def square(self) -> Tensor:
        """[rows, dim], second moment"""
        return self.moments[:, 1]


class RowAdam(torch.optim.Optimizer):
    """Dense Adam (Kingma and Ba, ICLR 2015) with the steps of untouched rows put off until the row is read.

    In a step without a gradient dense Adam still moves a row by its momentum, and decays both moments:

        m ← β₁ m        v ← β₂ v        w ← w − lr · m / (1 − β₁ᵗ) / ( √(v / (1 − β₂ᵗ)) + ε )

    so the n steps that a row has missed are, but for ε and the drift of lr and of both powers of t, a geometric series
    of ρ = β₁ / √β₂:

        w ← w − (ρ + ρ² + … + ρⁿ) · lr · m / (1 − β₁ᵗ) / ( √(v / (1 − β₂ᵗ)) + ε )        m ← β₁ⁿ m        v ← β₂ⁿ v

    `read` makes them at once, `step` moves what was read; a step then costs with the batch, not with the catalogue.
    (torch.optim.SparseAdam lets rows and moments rest instead: a stale momentum goes on moving a row many batches
    later, and held-out recall is lower.)
    """

    def __init__(self, tables: list[Tensor], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(tables, {"lr": lr, "betas": betas, "eps": eps, "steps": 0, "last_lr": lr})
        self.rows, self.held = torch.zeros(0, dtype=torch.long), list[Held]()
        for table in tables:
            self.state[table] = {"moments": table.new_zeros(len(table), 2, table.shape[1])}
        # Every table is read at the same rows.  Floats: load_state_dict gives every state the type of its parameter.
        self.state[tables[0]]["done"] = tables[0].new_zeros(len(tables[0]), 1)

    def read(self, rows: Tensor) -> list[Tensor]:
        """These rows [rows] of every table, distinct, as leaves [rows, dim]; `step` reads their gradients."""
        (group,) = self.param_groups
        missed = _Missed.of(group["steps"] - self._done.index_select(0, rows), group["betas"])
        tables = group["params"]
        self.rows, self.held = rows, [_caught_up(one, self.state[one], group, rows, missed) for one in tables]
        return [held.values for held in self.held]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of the rows that were read last."""
        (group,) = self.param_groups
        group["steps"] += 1
        group["last_lr"] = group["lr"]
        for held in self.held:
            _move(held, group)
        self._write()

    @property
    def _done(self) -> Tensor:
        """[items, 1], steps that each row has made."""
        done: Tensor = self.state[self.param_groups[0]["params"][0]]["done"]
        return done

    @torch.no_grad()
    def _write(self) -> None:
        """Puts the rows that were read back, with how far they are."""
        (group,) = self.param_groups
        for held in self.held:
            _put(held.table, self.rows, held.values)
            _put(self.state[held.table]["moments"].flatten(1), self.rows, held.moments.flatten(1))
        self._done.index_fill_(0, self.rows, group["steps"])
        self.held = []

    @torch.no_grad()
    def catch_up(self) -> None:
        """Makes the missed steps of all rows."""
        for rows in torch.split(torch.arange(len(self._done), device=self._done.device), ROWS):
            self.read(rows)
            self._write()


@dataclass(frozen=True)
class _Missed:
    """What the steps that rows have missed come to."""

    share: Tensor
    """[rows, 1], ρ + ρ² + … + ρⁿ"""
    decay: Tensor
    """[rows, 2, 1], of either moment"""

    @classmethod
    def of(cls, steps: Tensor, betas: tuple[float, float]) -> "_Missed":
        """steps: [rows, 1]."""
        first, second = betas
        ratio = first / math.sqrt(second)
        return cls(ratio * (1 - ratio**steps) / (1 - ratio), torch.stack([first**steps, second**steps], dim=1))


@torch.no_grad()
def _caught_up(table: Tensor, state: dict[str, Tensor], group: dict[str, Any], rows: Tensor, missed: _Missed) -> Held:
    """Some rows of one table, their missed steps made."""
    held = Held(table, table.index_select(0, rows), state["moments"].index_select(0, rows))
    _take_off(held.values, held.mean * missed.share, held.square, group)
    held.moments.mul_(missed.decay)
    held.values.requires_grad_()
    return held


def _move(held: Held, group: dict[str, Any]) -> None:
    """One step of some rows of one table."""
    gradient = held.values.grad
    assert gradient is not None
    first, second = group["betas"]
    held.mean.lerp_(gradient, 1 - first)
    held.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    _take_off(held.values, held.mean, held.square, group)


def _put(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """Puts values [rows, dim] into a table [items, dim]; two numbers at a time where it can, which is twice as fast."""
    if table.shape[1] % 2 == 0:
        table, values = table.view(torch.float64), values.view(torch.float64)
    table.index_copy_(0, rows, values)


def _take_off(values: Tensor, mean: Tensor, square: Tensor, group: dict[str, Any]) -> None:
    """Takes off values [rows, dim] what Adam does in its last step, by moments [rows, dim]."""
    first, second = (1 - beta ** max(group["steps"], 1) for beta in group["betas"])
    root = square.add(ALMOST_ZERO).sqrt_().add_(group["eps"] * math.sqrt(second))
    values.addcdiv_(mean, root, value=-group["last_lr"] / first * math.sqrt(second))
