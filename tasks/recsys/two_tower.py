"""The two-tower: a query tower that pools a user's history over a tied item table, and an item tower."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.recsys.interactions import EVENTS
from tasks.recsys.losses import log_q_correction, remove_accidental_hits, sampled_softmax
from tasks.recsys.sampling import Negatives

INITIAL_TEMPERATURE = 0.1
INITIAL_DECAY = 0.7
"""Weight of a step back in the history before anything is learned."""


class TwoTower(nn.Module):
    """Scores an item for a history: cosine of the pooled history and the item, over a temperature, plus a bias.

    The query is the weighted sum of the history's item vectors; a weight is learned for each step back from the newest
    interaction and for each event type.  There is no table of users: whoever has a history has a vector, also one
    who came after training (most users of the next day are new).
    """

    def __init__(self, items: int, dim: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.item = nn.Embedding(items, dim, sparse=True)
        self.bias = nn.Embedding(items, 1, sparse=True)
        nn.init.normal_(self.item.weight, std=1 / math.sqrt(dim))
        nn.init.zeros_(self.bias.weight)
        self.step = nn.Parameter(torch.arange(window) * math.log(INITIAL_DECAY))
        self.event = nn.Parameter(torch.zeros(len(EVENTS)))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(INITIAL_TEMPERATURE)))

    def pool(self, item: Tensor, event: Tensor) -> Tensor:
        """Queries after each position: item, event [batch, length], item −1 where padded → [batch, length, dim].

        A query is of length 1 (cosine), so the weights need no common denominator.
        """
        length = item.shape[1]
        real = item >= 0
        vectors = self.item(item.clamp(min=0)) * (real * self.event.exp()[event]).unsqueeze(2)
        steps = torch.arange(length, device=item.device)
        back = steps.unsqueeze(1) - steps
        weights = self.step.exp()[back.clamp(0, self.window - 1)] * ((back >= 0) & (back < self.window))
        return functional.normalize(torch.matmul(weights, vectors), dim=2)

    def loss(self, item: Tensor, event: Tensor, negatives: Negatives) -> Tensor:
        """Loss of predicting each next item of windows [batch, length + 1] against shared negatives."""
        target = item[:, 1:]
        real = target >= 0
        query = self.pool(item[:, :-1], event[:, :-1])[real] * torch.exp(-self.log_temperature)
        target = target[real]
        positive = (query * self._unit(target)).sum(1) + self.bias(target).squeeze(1)
        correction = log_q_correction(self.bias(negatives.item).squeeze(1), negatives.drawn, negatives.log_expected)
        scores = torch.addmm(correction, query, self._unit(negatives.item).T)
        return sampled_softmax(positive, remove_accidental_hits(scores, target, negatives.item))

    def _unit(self, item: Tensor) -> Tensor:
        """Item vectors of length 1: ids [n] → [n, dim]."""
        return functional.normalize(self.item(item), dim=1)

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """[items, dim + 1], so that the inner product with a query vector is the score."""
        scaled = functional.normalize(self.item.weight, dim=1) * torch.exp(-self.log_temperature)
        return torch.cat([scaled, self.bias.weight], dim=1).cpu()

    @torch.no_grad()
    def query_vectors(self, item: Tensor, event: Tensor) -> Tensor:
        """Histories [users, length], padded at the end → [users, dim + 1]; a user without one gets zeros and 1."""
        item, event = (one.to(self.item.weight.device) for one in (item, event))
        last = (item >= 0).sum(1)
        pooled = self.pool(item, event)[torch.arange(len(item), device=item.device), (last - 1).clamp(min=0)]
        pooled = torch.where((last > 0).unsqueeze(1), pooled, 0.0)
        return torch.cat([pooled, torch.ones_like(pooled[:, :1])], dim=1).cpu()
