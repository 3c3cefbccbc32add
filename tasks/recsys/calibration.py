"""Calibrates a fitted two-tower on interactions that it has not seen."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tasks.recsys import index
from tasks.recsys.interactions import Ints
from tasks.recsys.sequences import Windows
from tasks.recsys.two_tower import TwoTower

DEPTH = 100
"""Candidates of each history that are told apart: the best before calibration."""
STEPS, BATCH, RATE = 300, 500, 0.05
PRIOR = 100.0
"""Windows that speak for leaving a parameter where it is: few held-out windows move little."""
Shifts = Mapping[str, npt.NDArray[np.float32]]
"""What calibration adds to each of a model's dense parameters, by name."""


def calibrate(model: TwoTower, asked: Windows, target: Ints) -> Shifts:
    """Moves the dense parameters to what fits the next items [windows] of windows after the model's cut best.

        loss = −log softmax(s)[target] over the target, the history's own items and the `DEPTH` best others

    What a model has seen it knows by heart, and it meets near neighbours as negatives too rarely: it takes likeness
    for surer than it is, repeats and popularity for less.  Held-out interactions set that right (compare Guo et al.,
    On calibration of modern neural networks, ICML 2017); the tables stay.  Same windows, same bytes.
    """
    before = {name: one.detach().clone() for name, one in model.dense.items()}
    item, event = torch.from_numpy(asked.item).long(), torch.from_numpy(asked.event).long()
    wanted = torch.from_numpy(target).long()
    if not len(item):
        return {name: np.zeros_like(one.numpy()) for name, one in before.items()}
    others = _others(model, item, event, wanted)
    _learn_dense_alone(model, True)
    adam = torch.optim.Adam(model.dense.values(), RATE)
    order = torch.randperm(len(item), generator=torch.Generator().manual_seed(0))
    for step in range(STEPS):
        rows = order[torch.arange(step * BATCH, step * BATCH + min(BATCH, len(order))) % len(order)]
        adam.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        adam.zero_grad()
        moved = torch.stack([(one - before[name]).square().sum() for name, one in model.dense.items()]).sum()
        loss = _loss(model, item[rows], event[rows], wanted[rows], others[rows]) + PRIOR / len(item) * moved
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    _learn_dense_alone(model, False)
    return {name: (one.detach() - before[name]).cpu().numpy() for name, one in model.dense.items()}


@torch.no_grad()
def shift(model: TwoTower, shifts: Shifts) -> None:
    """Calibrates a model as another one of the same recipe was."""
    for name, one in model.dense.items():
        one.add_(torch.from_numpy(shifts[name]).to(one.device))


def _learn_dense_alone(model: TwoTower, alone: bool) -> None:
    for table in model.tables:
        table.requires_grad_(not alone)
    model.log_popularity.requires_grad_(alone)


def _others(model: TwoTower, item: Tensor, event: Tensor, target: Tensor) -> Tensor:
    """[windows, DEPTH]: the best items that are neither the target nor the history's own; −1 in their places."""
    queries, _ = model.query_vectors(item, event)
    found, _ = index.search(index.build(model.item_vectors().numpy()), queries.numpy(), DEPTH)
    known = np.concatenate([item.numpy(), target.numpy()[:, None]], axis=1)
    mine = np.stack([np.isin(one, theirs) for one, theirs in zip(found, known, strict=True)])
    return torch.from_numpy(np.where(mine, -1, found)).long()


def _loss(model: TwoTower, item: Tensor, event: Tensor, target: Tensor, others: Tensor) -> Tensor:
    """Mean cross-entropy of the targets [windows]."""
    queries, own = model.answer(item, event)
    candidates = torch.cat([target.unsqueeze(1), others], dim=1)
    again = item == target.unsqueeze(1)  # a repeat is asked for at its place among the history's own
    empty = candidates < 0
    empty[:, 0] = again.any(dim=1)
    scores = torch.einsum("nd,ncd->nc", queries, model.vectors(candidates * ~empty))
    newest = item.shape[1] - 1 - again.flip(1).int().argmax(dim=1)
    label = torch.where(again.any(dim=1), candidates.shape[1] + newest, 0)
    return functional.cross_entropy(torch.cat([scores.masked_fill(empty, -torch.inf), own], dim=1), label)
