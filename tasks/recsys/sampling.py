"""Negatives for the two-tower: half by popularity, half uniform, shared by a batch."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

POPULARITY_EXPONENT = 0.75
"""word2vec's: flattens the head of the popularity curve."""


@dataclass(frozen=True)
class Negatives:
    """A sample, its items distinct and ascending."""

    item: Tensor
    """[distinct]"""
    drawn: Tensor
    """[distinct], times each was drawn"""
    log_expected: Tensor
    """[distinct], log of the times it is expected: log(sampled · q(item))"""

    def to(self, device: torch.device) -> "Negatives":
        """The same sample where the model is."""
        return Negatives(self.item.to(device), self.drawn.to(device), self.log_expected.to(device))


@dataclass(frozen=True)
class NegativeSampler:
    """Draws items from q(i) = ½ · count(i)^0.75 / Σ + ½ / items."""

    cumulative: Tensor
    """[items], cumulative share of the popularity half, float64"""
    log_q: Tensor
    """[items], log q(i), float32"""

    @classmethod
    def of(cls, counts: Tensor) -> "NegativeSampler":
        """counts: [items], how often each item was interacted with."""
        weight = counts.double().pow(POPULARITY_EXPONENT)
        share = weight / weight.sum()
        return cls(share.cumsum(0), (0.5 * share + 0.5 / len(counts)).log().float())

    def draw(self, sampled: int, generator: torch.Generator) -> Negatives:
        """Draws `sampled` items with replacement."""
        half = sampled // 2
        last = len(self.log_q) - 1
        chance = np.sort(torch.rand(half, generator=generator, dtype=torch.float64).numpy())  # ascending: found faster
        popular = np.searchsorted(self.cumulative.numpy(), chance).clip(max=last)
        uniform = torch.randint(last + 1, (sampled - half,), generator=generator).numpy()
        found = np.unique(np.concatenate([popular, uniform]), return_counts=True)
        item, drawn = (torch.from_numpy(one) for one in found)
        return Negatives(item, drawn, self.log_q[item] + math.log(sampled))
