"""Adam for tables of which a batch touches few rows, at the cost of those rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROWS = 1 << 14
"""Rows that are caught up at a time: bounds the memory."""


@dataclass(frozen=True)
class Held:
    """Rows of a table that were read for a step."""

    table: Tensor
    """[items, dim]"""
    rows: Tensor
    """[rows] ids, distinct"""
    values: Tensor
    """[rows, dim], a leaf: what gradients are taken of"""
    mean: Tensor
    """[rows, dim], first moment"""
    square: Tensor
    """[rows, dim], second moment"""


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
        self.held: list[Held] = []
        for table in tables:
            # Steps as floats: load_state_dict gives every state the type of its parameter.
            done = torch.zeros(len(table), 1, device=table.device)
            self.state[table] = {"mean": torch.zeros_like(table), "square": torch.zeros_like(table), "done": done}

    def read(self, rows: Tensor) -> list[Tensor]:
        """These rows [rows] of every table, distinct, as leaves [rows, dim]; `step` reads their gradients."""
        (group,) = self.param_groups
        self.held = [_caught_up(table, self.state[table], group, rows) for table in group["params"]]
        return [held.values for held in self.held]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of the rows that were read last."""
        (group,) = self.param_groups
        group["steps"] += 1
        group["last_lr"] = group["lr"]
        for held in self.held:
            _move(held, group)
            _write(held, self.state[held.table], group)
        self.held = []

    @torch.no_grad()
    def catch_up(self) -> None:
        """Makes the missed steps of all rows."""
        (group,) = self.param_groups
        for table in group["params"]:
            for rows in torch.split(torch.arange(len(table), device=table.device), ROWS):
                _write(_caught_up(table, self.state[table], group, rows), self.state[table], group)


@torch.no_grad()
def _caught_up(table: Tensor, state: dict[str, Tensor], group: dict[str, Any], rows: Tensor) -> Held:
    """Some rows of one table, their missed steps made."""
    first, second = group["betas"]
    values, mean, square, done = (
        one.index_select(0, rows) for one in (table, state["mean"], state["square"], state["done"])
    )
    missed = group["steps"] - done
    ratio = first / math.sqrt(second)
    _take_off(values, mean * (ratio * (1 - ratio**missed) / (1 - ratio)), square, group)
    return Held(table, rows, values.requires_grad_(), mean.mul_(first**missed), square.mul_(second**missed))


def _move(held: Held, group: dict[str, Any]) -> None:
    """One step of some rows of one table."""
    gradient = held.values.grad
    assert gradient is not None
    first, second = group["betas"]
    held.mean.lerp_(gradient, 1 - first)
    held.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    _take_off(held.values, held.mean, held.square, group)


def _write(held: Held, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """Puts the rows back, with how far they are."""
    held.table.index_copy_(0, held.rows, held.values)
    state["mean"].index_copy_(0, held.rows, held.mean)
    state["square"].index_copy_(0, held.rows, held.square)
    state["done"].index_fill_(0, held.rows, group["steps"])


def _take_off(values: Tensor, mean: Tensor, square: Tensor, group: dict[str, Any]) -> None:
    """Takes off values [rows, dim] what Adam does in its last step, by moments [rows, dim]."""
    first, second = (1 - beta ** max(group["steps"], 1) for beta in group["betas"])
    root = square.sqrt().add_(group["eps"] * math.sqrt(second))
    values.addcdiv_(mean, root, value=-group["last_lr"] / first * math.sqrt(second))
