"""What is done to a fitted two-tower before it serves, chosen on interactions that it has not seen."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.recsys import calibration, index, metrics
from tasks.recsys.calibration import Calibration, Facts
from tasks.recsys.interactions import Interactions, Ints
from tasks.recsys.item_features import ItemFeatures, drawn
from tasks.recsys.metrics import Doubles
from tasks.recsys.retrieval import Tower
from tasks.recsys.sequences import Windows, last_out
from tasks.recsys.two_tower import TwoTower

log = logging.getLogger(__name__)

VALIDATION_USERS = 5_000
"""Users that a model is judged on, at most."""
LENGTHS = (50, 300)
"""Of the lists that it is judged by, both alike: what the headline counts, and what the ranker is given.  50 alone does
not see, on a few hundred users, that features help: what they lift first comes among the 300, and then among the 50."""
PRIORS = (0.0, 10.0, 30.0, 100.0)
"""Interactions as many as which an item's features may weigh; 0: they say nothing."""
SHARES = (1.0, 0.5, 0.0)
"""How much may count of what calibration learns among the best."""


@dataclass(frozen=True)
class Known:
    """What is known of the items as of a model's cut."""

    features: ItemFeatures | None
    facts: Facts
    """how fresh an item's interactions are, whether it is out of stock"""


@dataclass(frozen=True)
class Finish:
    """What is done to a fit; the same to every fit of a night."""

    prior: float = 0.0
    """interactions as many as which an item's features weigh"""
    calibration: Calibration | None = None

    def apply(self, model: TwoTower, known: Known) -> TwoTower:
        """Finishes a model that was just fitted, in place."""
        if known.features and self.prior:
            rows = model.item.weight.detach().numpy()
            rows[:] = drawn(rows, known.features, self.prior)
        if self.calibration:
            self.calibration.apply(model, known.facts)
        return model


@dataclass(frozen=True)
class HeldOut:
    """What a fit is judged on: each user's last item after its cut, and what came before it."""

    asked: Windows
    """[users, length]"""
    target: Ints
    """[users]"""

    def __len__(self) -> int:
        return len(self.target)

    def recalls(self, model: TwoTower, lengths: Sequence[int] = LENGTHS) -> Doubles:
        """[users] the mean of a model's recall@length over the lengths."""
        tower = Tower(model, index.fastest(index.build(model.item_vectors().numpy())))
        hits = tower.answer(self.asked, max(lengths))[0] == self.target[:, None]
        recalls: Doubles = np.mean([hits[:, :length].any(axis=1) for length in lengths], axis=0)
        return recalls

    def recall(self, model: TwoTower) -> float:
        """recall@50 of a model, by which its training stops."""
        return float(self.recalls(model, [50]).mean())

    def answerable(self, items: int) -> tuple[Windows, Ints]:
        """Those whose target is one of the items that are known at the cut, or of their own history."""
        some = (self.target < items) | (self.asked.item == self.target[:, None]).any(axis=1)
        return Windows(self.asked.item[some], self.asked.event[some]), self.target[some]


def held_out(interactions: Interactions, cut: int, end: int, window: int) -> HeldOut:
    """Users whose last interaction lies in cut ≤ time < end (UTC ms), `VALIDATION_USERS` of them at most."""
    return HeldOut(*last_out(interactions.before(end), cut, window, VALIDATION_USERS))


def choose(fitted: Callable[[], TwoTower], known: Known, held: HeldOut) -> Finish:
    """The finish that suits the held-out users best: how much features weigh, the calibration, how much of it counts.

    fitted: gives the model as it was fitted, anew each time.  Without a user to ask, a fit stays as it is.
    """
    if not len(held):
        return Finish()

    prior = 0.0
    if known.features:
        prior = _best("features", PRIORS, lambda one: held.recalls(Finish(one).apply(fitted(), known)))
    found = _calibrated(Finish(prior).apply(fitted(), known), known, held)
    finishes = {share: Finish(prior, replace(found, share=share)) for share in SHARES}
    share = _best("calibration among the best", SHARES, lambda one: held.recalls(finishes[one].apply(fitted(), known)))
    return finishes[share]


def _calibrated(model: TwoTower, known: Known, held: HeldOut) -> Calibration:
    """What the held-out users say of a model, which is calibrated in place."""
    found = calibration.calibrate(model, known.facts, *held.answerable(model.item.num_embeddings))
    told = {name: np.round(shift.flatten()[:3], 2).tolist() for name, shift in found.shifts.items()}
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in found.weights.items())
    log.info("calibrated: %s; weights beside popularity: %s", told, weights or "none")
    return found


def _best(name: str, weights: Sequence[float], recalls: Callable[[float], Doubles]) -> float:
    """The weight of the best recall, the least of them; the first where the best does not beat it beyond chance."""
    found = {one: recalls(one) for one in weights}
    best = max(found, key=lambda one: float(found[one].mean()))
    gained = metrics.paired(found[best], found[weights[0]])
    chosen = best if (gained.low or 0.0) > 0 else weights[0]
    told = ", ".join(f"{one:g} {value.mean():.4f}" for one, value in found.items())
    at = " and ".join(f"@{length}" for length in LENGTHS)
    log.info("weight of the %s: %g; mean validation recall %s by weight: %s", name, chosen, at, told)
    return chosen
