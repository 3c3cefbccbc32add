"""The two-tower: a query tower that pools a user's history over a tied item table, and an item tower."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.recsys import one_pass
from tasks.recsys.interactions import EVENTS
from tasks.recsys.losses import accidental_hits, log_q_correction
from tasks.recsys.one_pass import Loss
from tasks.recsys.sampling import Negatives
from tasks.recsys.unit import unit

INITIAL_TEMPERATURE = 0.07
INITIAL_DECAY = 0.7
"""Weight of a step back in the history before anything is learned."""
INITIAL_REPEAT, INITIAL_REPEAT_DECAY = 4.0, 0.8
"""What it adds to an item's score to be the newest of the history, and the weight of a step back, at first."""
ROWS = 1 << 14
"""Items whose vectors are made at a time: bounds the memory."""
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
    """Scores an item for a history: how alike they are, how popular the item is, and whether it is in the history.

        score(h, j) = l_|h| meanₖ cos(Σ_b s_b e(b) xᵏ_{h_b}, xᵏ_j) / Tₖ  +  p a_j  +  Σ_{b: h_b = j} r_b f(b)

    with b steps back from the newest interaction of h, learned weights s and r of a step, e and f of its event type,
    learned temperatures T, l by the length of h, and p = 1 until it is calibrated. A head xᵏ is one of an item's
    vectors, each of `dim` dimensions. Each head learns alone and only their scores are averaged: an ensemble in one
    table, since what a single one makes of the few interactions of most items is largely chance. The last sum speaks
    for repeats, which likeness cannot tell from near neighbours; it is not 0 for the history's own items alone. There
    is no table of users: whoever has a history has a vector, also one who came after training (most users of a day are
    new).
    """

    def __init__(self, items: int, dim: int, window: int, heads: int = 1) -> None:
        super().__init__()
        self.window, self.heads, self.dim = window, heads, dim
        self.item = nn.Embedding(items, heads * dim)
        self.bias = nn.Embedding(items, 1)
        nn.init.normal_(self.item.weight, std=1 / math.sqrt(dim))
        nn.init.zeros_(self.bias.weight)
        back = torch.arange(window)
        self.step = nn.Parameter(back * math.log(INITIAL_DECAY))
        self.event = nn.Parameter(torch.zeros(len(EVENTS)))
        self.repeat = nn.Parameter(math.log(INITIAL_REPEAT) + back * math.log(INITIAL_REPEAT_DECAY))
        self.repeat_event = nn.Parameter(torch.zeros(len(EVENTS)))
        self.log_temperature = nn.Parameter(torch.full((heads, 1), math.log(INITIAL_TEMPERATURE)))
        self.log_length = nn.Parameter(torch.zeros(window))
        self.log_popularity = nn.Parameter(torch.zeros(()), requires_grad=False)  # of calibration alone

    @torch.no_grad()
    def start(self, met: Tensor) -> None:
        """Sets the popularity that is learned from: log of how often each item was met [items], less the mean."""
        self.bias.weight.copy_((met + 1.0).log().unsqueeze(1))
        self.bias.weight.sub_(self.bias.weight.mean())

    @property
    def tables(self) -> list[Tensor]:
        """The parameters of which a batch touches few rows."""
        return [self.item.weight, self.bias.weight]

    @property
    def dense(self) -> dict[str, Tensor]:
        """The few parameters that every batch touches, by name."""
        return {name: one for name, one in self.named_parameters() if not name.startswith(("item.", "bias."))}

    def pool(self, vectors: Tensor, seen: Tensor, event: Tensor) -> Tensor:
        """Queries after each position, [batch, length, heads, d], of length 1 / temperature.

        vectors: [batch, length, heads · d] of the history's items.  seen: [batch, length], those that count.  event:
        [batch, length], codes of event types.  A cosine needs no common denominator of the weights.
        """
        weights = _of_steps(self.step, vectors.shape[1]) * (self.event.exp()[event] * seen).unsqueeze(1)
        likeness = self._unit(torch.bmm(weights, vectors))
        length = torch.arange(vectors.shape[1], device=vectors.device).clamp(max=self.window - 1)
        return likeness * torch.exp(self.log_length[length].view(-1, 1, 1) - self.log_temperature)

    def repeats(self, item: Tensor, event: Tensor) -> Tensor:
        """[batch, length, length]: what the interaction at each step (last) adds to its item after each position.

        item: [batch, length], −1 where padded; event: [batch, length], codes of event types.
        """
        weights = _of_steps(self.repeat, item.shape[1]) * self.repeat_event.exp()[event].unsqueeze(1)
        return weights * (item >= 0).unsqueeze(1)

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
        """Loss of each next item of windows [batch, length + 1] against its candidates, mean over heads.

        The candidates are the shared negatives, and the history's own items: what is to be told apart from a repeat.
        kept: [batch, length + 1], false where likeness is not to see an item of the history (dropout); None: all.
        """
        past, target, place = item[:, :-1], item[:, 1:], rows.place(item)
        seen = past >= 0 if kept is None else (past >= 0) & kept[:, :-1]
        popularity = rows.bias * self.log_popularity.exp()
        vectors, bias = functional.embedding(place, rows.item), functional.embedding(place, popularity)
        each = self._unit(vectors)
        queries, repeats = self.pool(vectors[:, :-1], seen, event[:, :-1]), self.repeats(past, event[:, :-1])
        again = past.unsqueeze(1) == target.unsqueeze(2)
        own = self._own(queries, each[:, :-1], repeats, past) + bias[:, :-1].transpose(1, 2)
        own = own.masked_fill(~newest(past) | again, -math.inf)
        positive = (queries * each[:, 1:]).sum(3) + bias[:, 1:] + (repeats * again).sum(2, keepdim=True)
        real = torch.nonzero(target.flatten() >= 0).squeeze(1)
        empty = -len(negatives.item) % COLUMNS
        sampled = functional.pad(rows.place(negatives.item), (0, empty))
        correction = log_q_correction(negatives.drawn, negatives.log_expected)
        return one_pass.loss(
            queries.flatten(0, 1).index_select(0, real).transpose(0, 1).contiguous(),
            self._unit(rows.item.index_select(0, sampled)).transpose(0, 1).contiguous(),
            popularity.index_select(0, sampled).squeeze(1),
            functional.pad(correction, (0, empty), value=-math.inf),
            accidental_hits(past, target, negatives.item),
            own.flatten(1, 2).index_select(1, real),
            positive.flatten(0, 1).index_select(0, real).T,
            scored_in,
            kind,
        )

    def _own(self, queries: Tensor, vectors: Tensor, repeats: Tensor, past: Tensor) -> Tensor:
        """[heads, batch, asked, length]: likeness and repeats of the history's items (last) for each query.

        queries: [batch, asked, heads, dim]; vectors: [batch, length, heads, dim]; repeats: [batch, asked, length].
        """
        heads = vectors.permute(2, 0, 3, 1)
        same = (past.unsqueeze(2) == past.unsqueeze(1)).to(repeats.dtype)
        return torch.matmul(queries.permute(2, 0, 1, 3), heads) + torch.matmul(repeats, same)

    def _unit(self, vectors: Tensor) -> Tensor:
        """Vectors whose heads are of length 1 each: [..., heads · d] → [..., heads, d]."""
        return unit(self._by_head(vectors))

    def _by_head(self, vectors: Tensor) -> Tensor:
        """[..., heads · d] → [..., heads, d]"""
        return vectors.view(*vectors.shape[:-1], self.heads, vectors.shape[-1] // self.heads)

    def vectors(self, item: Tensor) -> Tensor:
        """Items [...] → [..., heads · dim + 1], so that the inner product with a query is the score but for repeats."""
        return torch.cat([self._unit(self.item(item)).flatten(-2), self.bias(item) * self.log_popularity.exp()], dim=-1)

    def answer(self, item: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        """Histories [users, length], padded at the end → queries [users, heads · dim + 1], own scores [users, length].

        The own scores are those of the history's items, repeats included, each at its newest step; −∞ elsewhere.
        An item that is new to the model, beyond its table, has its own score, too.  Who has no history: zeros and 1.
        """
        user, last = torch.arange(len(item), device=item.device), ((item >= 0).sum(1) - 1).clamp(min=0)
        vectors, popularity = self._of_history(item)
        queries = self.pool(vectors, item >= 0, event)[user, last]
        repeats = self.repeats(item, event)[user, last].unsqueeze(1)
        own = self._own(queries.unsqueeze(1), self._unit(vectors), repeats, item).mean(0).squeeze(1)
        own = own + popularity * self.log_popularity.exp()
        return (
            functional.pad(queries[:, :, : self.dim].flatten(1) / self.heads, (0, 1), value=1.0),
            own.masked_fill(~newest(item)[user, last], -math.inf),
        )

    def _of_history(self, item: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [users, length, heads · d] and popularity [users, length] of histories' items, 0 where padded.

        Of an item that is new to the model only that it is in the history can be said: it is like itself and no other,
        as long as the history's other items are, and of the popularity that every item starts with.  So where there is
        one, d is `dim` and a direction more for each step.
        """
        new = item >= self.item.num_embeddings
        met = (item >= 0) & ~new
        vectors = self.item(item * met) * met.unsqueeze(2)
        popularity = self.bias(item * met).squeeze(2) * met
        if not new.any():
            return vectors, popularity
        heads = self._by_head(vectors)
        return torch.cat([heads, _directions(item, new, heads)], dim=3).flatten(2), popularity

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """`vectors` of all items: [items, heads · dim + 1]."""
        items = torch.arange(self.item.num_embeddings, device=self.item.weight.device)
        found = torch.empty(len(items), self.item.embedding_dim + 1)
        for some in torch.split(items, ROWS):
            found[some.cpu()] = self.vectors(some).cpu()
        return found

    @torch.no_grad()
    def query_vectors(self, item: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        """`answer`, wherever the model is."""
        device = self.item.weight.device
        queries, own = self.answer(item.to(device), event.to(device))
        return queries.cpu(), own.cpu()


def _directions(item: Tensor, new: Tensor, vectors: Tensor) -> Tensor:
    """[users, length, heads, length]: a direction of its own for each new item, 0 for the others.

    item, new: [users, length]; vectors: [users, length, heads, dim], 0 for new items.  The length is the mean of the
    others', or 1 where there are none.
    """
    norm = torch.linalg.vector_norm(vectors, dim=3)
    others = (norm > 0).sum(1, keepdim=True)
    mean = torch.where(others > 0, norm.sum(1, keepdim=True) / others.clamp(min=1), 1.0)
    first = (item.unsqueeze(2) == item.unsqueeze(1)).int().argmax(2)  # the same direction wherever the item comes back
    return (functional.one_hot(first, item.shape[1]) * new.unsqueeze(2)).unsqueeze(2) * mean.unsqueeze(3)


def newest(item: Tensor) -> Tensor:
    """[batch, length, length]: whether a step (last) is, after each position, the newest with its item.

    item: [batch, length], −1 where padded.
    """
    back = (item.unsqueeze(2) == item.unsqueeze(1)).tril(-1)  # at a step (second), that of an earlier one (last)
    past = (item >= 0).unsqueeze(1).expand_as(back).tril()
    return past & (back.cumsum(1, dtype=torch.int32) == 0)


def _of_steps(weight: Tensor, length: int) -> Tensor:
    """[length, length]: after each position, the weight of each step (last) up to it; 0 beyond the window.

    weight: [window], log weight of a step back.
    """
    steps = torch.arange(length, device=weight.device)
    back = steps.unsqueeze(1) - steps
    return weight.exp()[back.clamp(0, len(weight) - 1)] * ((back >= 0) & (back < len(weight)))
