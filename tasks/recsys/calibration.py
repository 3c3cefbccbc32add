"""Calibrates a fitted two-tower on interactions that it has not seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tasks.recsys import index, metrics
from tasks.recsys.interactions import Ints
from tasks.recsys.losses import accidental_hits, log_q_correction
from tasks.recsys.metrics import Doubles, Mean
from tasks.recsys.sampling import Negatives, NegativeSampler
from tasks.recsys.sequences import Windows
from tasks.recsys.two_tower import TwoTower

DEPTH = 100
"""Candidates of each history that are told apart in the end: the best of the others."""
SAMPLED = 8_192
"""Items that stand for all; where there are no more, all are there."""
BATCH, RATE = 500, 0.05
STEPS_AMONG_ALL, STEPS_AMONG_BEST = 100, 150
PRIOR_AMONG_ALL, PRIOR_AMONG_BEST = 30.0, 100.0
"""Windows that speak for leaving a parameter where it is: few held-out windows move little."""

Floats = npt.NDArray[np.float32]
Facts = Mapping[str, Floats]
"""[items] each, by name: what is known of the items beside their popularity"""
Shifts = Mapping[str, Floats]
"""What is added to each of the dense parameters, by name"""


@dataclass(frozen=True)
class Calibration:
    """What is done to a model, and to another one of the same recipe likewise."""

    among_all: Shifts
    """what is learned among all items"""
    among_best: Shifts
    """what is learned among the best, beside it"""
    weights: Mapping[str, float]
    """of the facts, by name: what they add to an item's score"""
    share: float = 1.0
    """of `among_best` that counts"""

    @property
    def shifts(self) -> Shifts:
        """Both, as far as they count."""
        of_all = self.among_all.items()
        return {name: np.asarray(one + self.share * self.among_best[name], dtype=np.float32) for name, one in of_all}

    @torch.no_grad()
    def apply(self, model: TwoTower, facts: Facts) -> None:
        """Calibrates a model, in place."""
        for name, shift in self.shifts.items():
            model.dense[name].add_(torch.from_numpy(shift).to(model.bias.weight.device))
        said = sum((weight * facts[name] for name, weight in self.weights.items()), np.zeros(1, dtype=np.float32))
        _add(model, torch.from_numpy(said.astype(np.float32)))


def calibrate(model: TwoTower, facts: Facts, asked: Windows, target: Ints) -> Calibration:
    """What fits the next items [windows] of windows after the model's cut best.

    What a model has seen it knows by heart: it takes likeness for surer than it is.  Held-out interactions set that
    right (compare Guo et al., On calibration of modern neural networks, ICML 2017); the tables stay.  First what an
    item is worth by itself, by its popularity and by the facts f that gain beyond chance, together with all else:

        loss = −log softmax(s + w · f)[target] over all items, of which a sample stands for those beyond the history

    Then everything else once more, where lists are made: over the target, the history's own items and the `DEPTH` best
    others, whose likeness is the greatest of many and tells less than that of any item.  Popularity would be told too
    little of there, since most of these items are no target because they were taken for one.  The second orders the top
    of a list better, and may lose what is deep in one: so how much of it counts is another choice (`share`).
    Same windows, same bytes.
    """
    before = _dense(model)
    held = _Held(*(torch.from_numpy(one).long() for one in (asked.item, asked.event, target)))
    weights: Mapping[str, float] = {}
    if len(held):
        weights = _worth(model, {name: fact for name, fact in facts.items() if fact.any()}, held)
    among_all = _dense(model)
    if len(held):
        others = _others(model, held)
        _learn(
            model,
            [one for name, one in model.dense.items() if name != "log_popularity"],
            lambda rows: _among_best(model, held.take(rows), others[rows]),
            held.windows(STEPS_AMONG_BEST),
            PRIOR_AMONG_BEST / len(held),
        )
    return Calibration(
        _moved(before, among_all), _moved(among_all, _dense(model)), {name: weights.get(name, 0.0) for name in facts}
    )


def _dense(model: TwoTower) -> Mapping[str, Tensor]:
    """Its dense parameters as they are now, by name."""
    return {name: one.detach().clone() for name, one in model.dense.items()}


def _moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Shifts:
    return {name: (after[name] - one).cpu().numpy() for name, one in before.items()}


@dataclass(frozen=True)
class _Held:
    """Windows that a model has not seen, and what followed."""

    item: Tensor
    """[windows, length], −1 where padded"""
    event: Tensor
    """[windows, length]"""
    target: Tensor
    """[windows]"""

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Tensor) -> "_Held":
        return _Held(self.item[rows], self.event[rows], self.target[rows])

    def windows(self, steps: int) -> Sequence[Tensor]:
        """Rows [`BATCH`] of each step, in an order of chance again and again."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        size = torch.arange(min(BATCH, len(self)))
        return [order[(step * BATCH + size) % len(self)] for step in range(steps)]


def _worth(model: TwoTower, facts: Facts, held: _Held) -> Mapping[str, float]:
    """Learns what items are worth by themselves, and all else with it, in place; returns the weights of the facts.

    A fact that gains nothing beyond chance is left out, and everything learned anew without it.
    """
    before, draw = _dense(model), _draws(model)
    known = torch.from_numpy(np.array([*facts.values()], dtype=np.float32).reshape(-1, len(model.bias.weight)).T)
    weights = torch.zeros(len(facts), requires_grad=True)
    _learn(
        model,
        [*model.dense.values(), weights],
        lambda rows: _among_all(model, held.take(rows), known @ weights, draw()),
        held.windows(STEPS_AMONG_ALL),
        PRIOR_AMONG_ALL / len(held),
    )
    with torch.no_grad():
        gains = _gains(model, held, known, weights, draw())
        counting = {name: facts[name] for name, gain in zip(facts, gains, strict=True) if (gain.low or 0.0) > 0}
        if len(counting) == len(facts):
            _add(model, known @ weights)
            return dict(zip(facts, weights.tolist(), strict=True))
        for name, one in model.dense.items():
            one.copy_(before[name])
    return _worth(model, counting, held)


@torch.no_grad()
def _add(model: TwoTower, said: Tensor) -> None:
    """Adds so much [items] to the items' scores, by their popularity."""
    model.bias.weight.add_((said.to(model.bias.weight.device) / model.log_popularity.exp()).unsqueeze(1))


def _draws(model: TwoTower) -> Callable[[], Negatives]:
    """Samples of the items, each another; popular ones by what the model starts from."""
    items, generator = model.item.num_embeddings, torch.Generator().manual_seed(0)
    if items <= SAMPLED:
        everything = Negatives(torch.arange(items), torch.ones(items), torch.zeros(items))
        return lambda: everything
    sampler = NegativeSampler.of(model.bias.weight.detach().squeeze(1).exp())
    return lambda: sampler.draw(SAMPLED, generator)


def _learn(
    model: TwoTower,
    parameters: Sequence[Tensor],
    loss: Callable[[Tensor], Tensor],
    batches: Sequence[Tensor],
    prior: float,
) -> None:
    """Moves the parameters, and no others of the model, down the losses of batches of rows; prior: of moving at all."""
    before = [one.detach().clone() for one in parameters]
    adam = torch.optim.Adam(parameters, RATE)
    with _alone(model, parameters):
        for step, rows in enumerate(batches):
            adam.param_groups[0]["lr"] = RATE * (1 - step / len(batches))
            adam.zero_grad()
            moved = [(one - was).square().sum() for one, was in zip(parameters, before, strict=True)]
            (loss(rows).mean() + prior * torch.stack(moved).sum()).backward()  # type: ignore[no-untyped-call]
            adam.step()


@contextmanager
def _alone(model: TwoTower, parameters: Sequence[Tensor]) -> Iterator[None]:
    """While it lasts, of the model's parameters these alone have gradients."""
    before = [(one, one.requires_grad) for one in model.parameters()]
    for one, _ in before:
        one.requires_grad_(any(one is other for other in parameters))
    yield
    for one, required in before:
        one.requires_grad_(required)


def _among_all(model: TwoTower, held: _Held, said: Tensor, sample: Negatives) -> Tensor:
    """[windows]: cross-entropy of the targets among a sample of all items, of which so much more is said [items]."""
    queries, own = model.answer(held.item, held.event)
    items = len(said)
    met = (held.item >= 0) & (held.item < items)
    own = own + said[held.item * met] * met
    following = torch.full_like(held.item, -1)
    following[torch.arange(len(held)), (held.item >= 0).sum(1) - 1] = held.target
    correction = said[sample.item] + log_q_correction(sample.drawn, sample.log_expected)
    scores = queries @ model.vectors(sample.item).T + correction
    scores = scores.index_put(accidental_hits(held.item, following, sample.item), torch.tensor(-torch.inf))
    known = held.target.clamp(max=items - 1)
    return _cross_entropy(held, (queries * model.vectors(known)).sum(1) + said[known], own, scores)


def _gains(model: TwoTower, held: _Held, known: Tensor, weights: Tensor, sample: Negatives) -> list[Mean]:
    """[facts]: by how much the windows' losses are less than without each fact; known: [items, facts]."""

    def losses(of: Tensor) -> Doubles:
        parts = torch.split(torch.arange(len(held)), BATCH)
        return torch.cat([_among_all(model, held.take(rows), known @ of, sample) for rows in parts]).double().numpy()

    every, facts = losses(weights), torch.arange(len(weights))
    return [metrics.paired(losses(weights * (facts != one)), every) for one in facts]


def _others(model: TwoTower, held: _Held) -> Tensor:
    """[windows, DEPTH]: the best items that are neither the target nor the history's own; −1 in their places."""
    queries, _ = model.query_vectors(held.item, held.event)
    found, _ = index.search(index.build(model.item_vectors().numpy()), queries.numpy(), DEPTH)
    known = torch.cat([held.item, held.target.unsqueeze(1)], dim=1).numpy()
    mine = np.stack([np.isin(one, theirs) for one, theirs in zip(found, known, strict=True)])
    return torch.from_numpy(np.where(mine, -1, found)).long()


def _among_best(model: TwoTower, held: _Held, others: Tensor) -> Tensor:
    """[windows]: cross-entropy of the targets among their own candidates [windows, DEPTH]."""
    queries, own = model.answer(held.item, held.event)
    scores = torch.einsum("nd,ncd->nc", queries, model.vectors(others.clamp(min=0)))
    known = held.target.clamp(max=model.item.num_embeddings - 1)
    positive = (queries * model.vectors(known)).sum(1)
    return _cross_entropy(held, positive, own, scores.masked_fill(others < 0, -torch.inf))


def _cross_entropy(held: _Held, positive: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """[windows]: −log softmax of the target; a repeat stands at its place among the history's own, and there alone.

    positive: [windows], score of each target; own: [windows, length] and others: [windows, n], of what else there is.
    """
    again = held.item == held.target.unsqueeze(1)
    back = again.any(dim=1)
    newest = held.item.shape[1] - 1 - again.flip(1).int().argmax(dim=1)
    scores = torch.cat([positive.masked_fill(back, -torch.inf).unsqueeze(1), own, others], dim=1)
    return functional.cross_entropy(scores, torch.where(back, 1 + newest, 0), reduction="none")
