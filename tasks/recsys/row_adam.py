"""Adam for tables of which a batch touches few rows, at the cost of those rows."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def row_gradient(rows: Tensor, gradient: Tensor, table: Tensor) -> Tensor:
    """The gradient of a table that is zero but for some rows, as `RowAdam` reads it.

    rows: [rows] ids, ascending and distinct.  gradient: [rows, dim] of those rows.  table: [items, dim].
    """
    return torch.sparse_coo_tensor(rows.unsqueeze(0), gradient, table.shape, is_coalesced=True, check_invariants=False)


class RowAdam(torch.optim.Optimizer):
    """Dense Adam (Kingma and Ba, ICLR 2015) with the steps of untouched rows put off until the row is read.

    In a step without a gradient dense Adam still moves a row by its momentum, and decays both moments:

        m ← β₁ m        v ← β₂ v        w ← w − lr · m / (1 − β₁ᵗ) / ( √(v / (1 − β₂ᵗ)) + ε )

    so the n steps that a row has missed are, but for ε and the drift of lr and of both powers of t, a geometric series
    of ρ = β₁ / √β₂:

        w ← w − (ρ + ρ² + … + ρⁿ) · lr · m / (1 − β₁ᵗ) / ( √(v / (1 − β₂ᵗ)) + ε )        m ← β₁ⁿ m        v ← β₂ⁿ v

    `catch_up` makes them at once; a step then costs with the batch, not with the catalogue.
    (torch.optim.SparseAdam lets rows and moments rest instead: a stale momentum goes on moving a row many batches
    later, and held-out recall is lower.)
    """

    def __init__(self, tables: list[Tensor], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(tables, {"lr": lr, "betas": betas, "eps": eps, "steps": 0, "last_lr": lr})
        for table in tables:
            # Steps as floats: load_state_dict gives every state the type of its parameter.
            done = torch.zeros(len(table), 1, device=table.device)
            self.state[table] = {"mean": torch.zeros_like(table), "square": torch.zeros_like(table), "done": done}

    @torch.no_grad()
    def catch_up(self, rows: Tensor | None = None) -> None:
        """Makes the missed steps of these rows [rows] of every table, which are distinct; None: of all rows."""
        for group in self.param_groups:
            for table in group["params"]:
                _catch_up(table, self.state[table], group, slice(None) if rows is None else rows)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of the rows that the gradients are about, which have been caught up."""
        for group in self.param_groups:
            group["steps"] += 1
            group["last_lr"] = group["lr"]
            for table in group["params"]:
                if table.grad is not None:
                    _step(table, self.state[table], group)


def _catch_up(table: Tensor, state: dict[str, Tensor], group: dict[str, Any], rows: Tensor | slice) -> None:
    """The missed steps of some rows of one table."""
    first, second = group["betas"]
    missed = group["steps"] - state["done"][rows]
    ratio = first / math.sqrt(second)
    series = ratio * (1 - ratio**missed) / (1 - ratio)
    mean, square = state["mean"][rows], state["square"][rows]
    table[rows] -= series * _direction(mean, square, group)
    state["mean"][rows] = mean * first**missed
    state["square"][rows] = square * second**missed
    state["done"][rows] = group["steps"]


def _step(table: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """One step of one table."""
    assert table.grad is not None
    first, second = group["betas"]
    rows, gradient = table.grad._indices()[0], table.grad._values()
    mean = state["mean"][rows].lerp_(gradient, 1 - first)
    square = state["square"][rows].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    state["mean"][rows], state["square"][rows], state["done"][rows] = mean, square, group["steps"]
    table[rows] -= _direction(mean, square, group)


def _direction(mean: Tensor, square: Tensor, group: dict[str, Any]) -> Tensor:
    """[rows, dim], what Adam takes off in its last step, from its moments [rows, dim]."""
    first, second = (1 - beta ** max(group["steps"], 1) for beta in group["betas"])
    return mean.div((square / second).sqrt_().add_(group["eps"])).mul_(group["last_lr"] / first)
