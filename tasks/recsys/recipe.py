"""How a fit of the two-tower goes and what it ends with, for those who start one and need none of its machinery."""

import math
from dataclasses import dataclass

from tasks.recsys.one_pass import Loss
from tasks.recsys.sequences import Windows

ENOUGH_STEPS, MOST_PASSES = 2_400, 4
"""A fit of fewer steps passes over its windows more often, up to this many times as often."""


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
    """of the tables, at its peak"""
    dropout: float
    """share of the interactions of the histories that a batch leaves out"""
    seed: int
    loss: Loss = "softmax"


@dataclass(frozen=True)
class Fit:
    """What a fit ended with."""

    epochs: int
    """epochs up to the weights that were kept"""
    losses: tuple[float, ...]
    """mean training loss of each epoch"""
    recalls: tuple[float, ...]
    """validation recall of each epoch; empty without validation"""


def enough_epochs(windows: Windows, recipe: Recipe) -> int:
    """Passes over these windows: the recipe's, or more where there is little to pass over."""
    targets = int((windows.item >= 0).sum()) - len(windows)
    wanted = math.ceil(ENOUGH_STEPS * recipe.batch_size / max(targets, 1))
    return max(recipe.max_epochs, min(wanted, MOST_PASSES * recipe.max_epochs))
