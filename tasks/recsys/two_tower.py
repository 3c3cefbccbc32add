"""The two-tower: a query tower that pools a user's history over a tied item table, and an item tower."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.recsys import one_pass
from tasks.recsys.interactions import EVENTS
from tasks.recsys.losses import accidental_hits, log_q_correction
from tasks.recsys.one_pass import Loss
from tasks.recsys.sampling import Negatives

CODE_SEED = 20_150_503
INITIAL_TEMPERATURE = 0.07
INITIAL_DECAY = 0.7
"""Weight of a step back in the history before anything is learned."""
INITIAL_REPEAT, INITIAL_REPEAT_DECAY = 4.0, 0.8
"""What it adds to an item's score to be the newest of the history, and the weight of a step back, at first."""

COLUMNS = 256
"""Negatives are filled up to a multiple of this, so that the matrices of a fit have few shapes: each is compiled."""


@dataclass(frozen=True)
class Rows:
    """The rows of the tables that a batch is about, as leaves of its graph: what gradients are taken of."""

    ids: Tensor
    """[rows], ascending and distinct"""
    item: Tensor
    """[rows, heads · dim]"""
    bias: Tensor
    """[rows, 1]"""

    def place(self, item: Tensor) -> Tensor:
        """Positions in `ids` of items [...], each of which is there; 0 for padding."""
        return torch.searchsorted(self.ids, item.clamp(min=self.ids[0]))


class TwoTower(nn.Module):
    """Scores an item for a history: how alike they are, whether the item is in it, and how popular the item is.

        score(h, j) = meanₖ cos(Σ_b s_b e(b) xᵏ_{h_b}, xᵏ_j) / Tₖ  +  Σ_b r_b f(b) c_{h_b} · c_j  +  a_j

    with b steps back from the newest interaction of h, learned weights s and r of a step, e and f of its event type,
    and learned temperatures T.  A head xᵏ is one of an item's vectors, each of `dim` dimensions.  Each head learns
    alone and only their scores are averaged: an ensemble in one table, since what a single one makes of the few
    interactions of most items is largely chance.  The codes c are random, of length 1 and fixed: c_i · c_j is 1 for
    the same item and near 0 for others, so the second term speaks for repeats alone, which the first cannot tell from
    likeness.  There is no table of users: whoever has a history has a vector, also one who came after training (most
    users of a day are new).
    """

    codes: Tensor

    def __init__(self, items: int, dim: int, window: int, heads: int = 1, codes: int = 64) -> None:
        super().__init__()
        self.window, self.heads, self.dim = window, heads, dim
        self.item = nn.Embedding(items, heads * dim)
        self.bias = nn.Embedding(items, 1)
        nn.init.normal_(self.item.weight, std=1 / math.sqrt(dim))
        nn.init.zeros_(self.bias.weight)
        self.register_buffer("codes", item_codes(items, codes), persistent=False)
        back = torch.arange(window)
        self.step = nn.Parameter(back * math.log(INITIAL_DECAY))
        self.event = nn.Parameter(torch.zeros(len(EVENTS)))
        self.repeat = nn.Parameter(math.log(INITIAL_REPEAT) + back * math.log(INITIAL_REPEAT_DECAY))
        self.repeat_event = nn.Parameter(torch.zeros(len(EVENTS)))
        self.log_temperature = nn.Parameter(torch.full((heads, 1), math.log(INITIAL_TEMPERATURE)))

    @property
    def tables(self) -> list[Tensor]:
        """The parameters of which a batch touches few rows."""
        return [self.item.weight, self.bias.weight]

    def pool(self, vectors: Tensor, codes: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        """Queries after each position: [batch, length, heads, dim] of likeness, [batch, length, codes + 1].

        vectors: [batch, length, heads · dim] and codes: [batch, length, codes] of the history's items, 0 where padded.
        event: [batch, length], codes of event types.
        A cosine needs no common denominator of the weights.
        """
        likeness = _pooled(self.step, self.event, vectors, event).view(*event.shape, self.heads, self.dim)
        repeats = _pooled(self.repeat, self.repeat_event, codes, event)
        scaled = functional.normalize(likeness, dim=3) * torch.exp(-self.log_temperature)
        return scaled, functional.pad(repeats, (0, 1), value=1.0)

    def loss(
        self,
        rows: Rows,
        item: Tensor,
        event: Tensor,
        negatives: Negatives,
        kept: Tensor | None = None,
        scored_in: torch.dtype = torch.float32,
        kind: Loss = "softmax",
    ) -> Tensor:
        """Loss of each next item of windows [batch, length + 1] against shared negatives, mean over heads.

        kept: [batch, length + 1], false where likeness is not to see an item of the history (dropout); None: all.
        """
        target = item[:, 1:]
        real = target >= 0
        known, place = (item[:, :-1] >= 0).unsqueeze(2), rows.place(item)
        codes, past, positive = self.codes[rows.ids], place[:, :-1], place[:, 1:][real]
        seen = known if kept is None else known & kept[:, :-1].unsqueeze(2)
        queries = self.pool(functional.embedding(past, rows.item) * seen, codes[past] * known, event[:, :-1])
        heads, others = queries[0][real].transpose(0, 1).contiguous(), queries[1][real]
        vectors, rest = self._unit(rows.item).transpose(0, 1).contiguous(), torch.cat([codes, rows.bias], dim=1)
        empty = -len(negatives.item) % COLUMNS
        sampled = functional.pad(rows.place(negatives.item), (0, empty))
        correction = log_q_correction(negatives.drawn, negatives.log_expected)
        own = (heads * vectors.index_select(1, positive)).sum(2) + (others * rest.index_select(0, positive)).sum(1)
        return one_pass.loss(
            heads,
            vectors.index_select(1, sampled),
            others,
            rest.index_select(0, sampled),
            functional.pad(correction, (0, empty), value=-math.inf),
            accidental_hits(target[real], negatives.item),
            own,
            scored_in,
            kind,
        )

    def _unit(self, vectors: Tensor) -> Tensor:
        """Vectors whose heads are of length 1 each: [rows, heads · dim] → [rows, heads, dim]."""
        return functional.normalize(vectors.view(-1, self.heads, self.dim), dim=2)

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """[items, heads · dim + codes + 1], so that the inner product with a query vector is the score."""
        return torch.cat([self._unit(self.item.weight).flatten(1), self.codes, self.bias.weight], dim=1).cpu()

    @torch.no_grad()
    def query_vectors(self, item: Tensor, event: Tensor) -> Tensor:
        """Histories [users, length], padded at the end → [users, heads · dim + codes + 1]; none: zeros and 1."""
        item, event = (one.to(self.item.weight.device) for one in (item, event))
        known = (item >= 0).unsqueeze(2)
        last, user = (known.sum((1, 2)) - 1).clamp(min=0), torch.arange(len(item), device=item.device)
        past = item.clamp(min=0)
        heads, others = self.pool(self.item(past) * known, self.codes[past] * known, event)
        return torch.cat([heads[user, last].flatten(1) / self.heads, others[user, last]], dim=1).cpu()


def item_codes(items: int, length: int) -> Tensor:
    """[items, length]: random signs over √length, the same for an item in every model and on every machine."""
    signs = np.random.default_rng(CODE_SEED).integers(0, 2, (items, length), dtype=np.int8)
    return torch.from_numpy((signs * 2 - 1).astype(np.float32) / np.float32(math.sqrt(max(length, 1))))


def _pooled(step: Tensor, kind: Tensor, vectors: Tensor, event: Tensor) -> Tensor:
    """[batch, length, dim]: after each position, the weighted sum of its and the earlier vectors [batch, length, dim].

    step: [window], log weight of a step back; kind: [event types], log weight; event: [batch, length].
    """
    steps = torch.arange(vectors.shape[1], device=vectors.device)
    back = steps.unsqueeze(1) - steps
    weights = step.exp()[back.clamp(0, len(step) - 1)] * ((back >= 0) & (back < len(step)))
    return torch.matmul(weights, vectors * kind.exp()[event].unsqueeze(2))
