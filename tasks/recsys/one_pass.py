"""The losses of the two-tower with a matrix of scores that never leaves the processor's cache."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

CELLS = 1 << 21
"""Scores at a time, at most: 8 MB, or half of it."""
APART = 32
"""Cells between the rows of the scores: rows that are a power of two apart push each other out of the cache."""
HEADROOM = 60.0
"""Scores are told from a reference of their row that the greatest is at most this far above, so that exp is finite."""

Loss = Literal["softmax", "bpr"]


@dataclass(frozen=True)
class Block:
    """Some rows of one head."""

    scores: Tensor
    """[sampled, rows], less the row's reference; −∞: no candidate of the row; overwritten"""
    weighed: Tensor
    """[sampled, dim + 2], candidates · bias · 1, each times its weight"""
    own: Tensor
    """[rows, more]"""
    positive: Tensor
    """[rows]"""
    reference: Tensor
    """[rows]"""


@dataclass(frozen=True)
class Gradients:
    """Of the summed loss of a block."""

    scores: Tensor
    """[sampled, rows], but for `share` of the row and for the candidate's weight"""
    share: Tensor
    """[rows]"""
    query: Tensor
    """[dim + 2, rows], `weighed` times `scores`, but for `share`"""
    own: Tensor
    """[rows, more]"""
    positive: Tensor
    """[rows]"""
    loss: Tensor


def loss(
    query: Tensor,
    candidates: Tensor,
    bias: Tensor,
    correction: Tensor,
    hits: tuple[Tensor, Tensor],
    own: Tensor,
    positive: Tensor,
    scored_in: torch.dtype = torch.float32,
    kind: Loss = "softmax",
) -> Tensor:
    """`losses.sampled_softmax` or `losses.bpr` of the scores query · candidates + bias, and of each row's own scores.

    query: [heads, batch, dim] and candidates: [heads, sampled, dim], of each head; the loss is the mean over heads.
    bias: [sampled], of each candidate, the same for every head.
    correction: [sampled], logQ correction of each candidate, the log of its weight; without a gradient.
    hits: rows and candidates [hits] that are left out, by ascending row.
    own: [heads, batch, more], scores of further candidates of each row, which are not sampled; −∞: none.
    positive: [heads, batch], score of each positive.
    scored_in: the type of the products; bfloat16 is three times as fast where the processor has it.

    Scores and their gradient are made block by block of the batch and used at once, in the forward pass (as in Liger
    kernel's fused linear cross-entropy, Hsu et al. 2024): all else is small.  What can be is done by the products
    alone: with r a reference of the row, scores are (query, 1, −r) · (candidate, bias, 1), and the sum of their weights
    falls out with the gradient of −r.
    """
    arguments = query, candidates, bias, correction, *hits, own, positive, scored_in, kind
    found: Tensor = _OnePass.apply(*arguments)  # type: ignore[no-untyped-call]
    return found


class _OnePass(torch.autograd.Function):
    """The loss; what it keeps for the backward pass are the gradients themselves."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        candidates: Tensor,
        bias: Tensor,
        correction: Tensor,
        hit_row: Tensor,
        hit_column: Tensor,
        own: Tensor,
        positive: Tensor,
        scored_in: torch.dtype,
        kind: Loss,
    ) -> Tensor:
        dim, rows = query.shape[2], _rows(query.shape[1], len(correction))
        reference = _reference(query, candidates, bias + correction, own, positive).to(scored_in)
        asked = _beside(query, torch.ones_like(reference), -reference)
        offered = _beside(candidates, bias.to(scored_in), torch.ones_like(bias, dtype=scored_in))
        worth = correction.exp().unsqueeze(1)
        weighed = offered * worth.to(scored_in)
        of_offered = offered.new_zeros(offered.shape, dtype=candidates.dtype)
        of_query, of_own, of_positive = (torch.empty_like(one) for one in (query, own, positive))
        loss, buffer = positive.new_zeros(()), asked.new_empty(len(correction), rows + APART)
        lows = range(0, query.shape[1], rows)
        bounds = torch.searchsorted(hit_row, torch.tensor([*lows, query.shape[1]], device=hit_row.device)).tolist()
        for number, low in enumerate(lows):
            hit = slice(bounds[number], bounds[number + 1])
            for head in range(len(query)):
                at = head, slice(low, low + rows)
                block = asked[at]
                scores = torch.mm(offered[head], block.T, out=buffer[:, : len(block)])
                scores[hit_column[hit], hit_row[hit] - low] = -torch.inf
                found = _LOSSES[kind](Block(scores, weighed[head], own[at], positive[at], reference[at].float()))
                of_query[at] = (found.query[:dim] * found.share).T
                of_offered[head] += found.scores @ (block * found.share.unsqueeze(1)).to(scored_in)
                of_own[at], of_positive[at] = found.own, found.positive
                loss += found.loss
        of_offered.mul_(worth)
        of_candidates, of_bias = of_offered[..., :dim], of_offered[..., dim].sum(dim=0)
        ctx.save_for_backward(of_query, of_candidates, of_bias, of_own, of_positive)
        return loss / positive.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        share = gradient / ctx.saved_tensors[-1].numel()
        query, candidates, bias, own, positive = (saved * share for saved in ctx.saved_tensors)
        return query, candidates, bias, None, None, None, own, positive, None, None


def _rows(batch: int, sampled: int) -> int:
    """Rows of a block: a batch's blocks are of about the same size."""
    return math.ceil(batch / math.ceil(batch * sampled / CELLS))


def _reference(query: Tensor, candidates: Tensor, added: Tensor, own: Tensor, positive: Tensor) -> Tensor:
    """[heads, batch]: about the greatest score of a row, for which none of them has to be known."""
    most = query.norm(dim=2) * candidates.norm(dim=2).amax(dim=1, keepdim=True) + added.max()
    return torch.maximum(torch.maximum(own.amax(dim=2), positive), most - HEADROOM)


def _beside(vectors: Tensor, *more: Tensor) -> Tensor:
    """Vectors [heads, rows, dim] with further coordinates [(heads,) rows], and of their type."""
    columns = (one.expand(vectors.shape[:2]).unsqueeze(2) for one in more)
    return torch.cat([vectors.to(more[0].dtype), *columns], dim=2)


def _softmax(block: Block) -> Gradients:
    weights = block.scores.exp_()
    of_query = block.weighed.T @ weights
    of_own = torch.exp(block.own - block.reference.unsqueeze(1))
    of_positive = torch.exp(block.positive - block.reference)
    partition = of_query[-1] + of_own.sum(dim=1) + of_positive
    share = 1 / partition
    lost = (partition.log() + block.reference - block.positive).sum()
    return Gradients(weights, share, of_query, of_own * share.unsqueeze(1), of_positive * share - 1, lost)


def _bpr(block: Block) -> Gradients:
    """Of the pairs of a positive and a candidate; a row's own candidates stand for themselves, with weight 1."""
    behind = block.scores.float() + (block.reference - block.positive)
    own_behind = block.own - block.positive.unsqueeze(1)
    worth = block.weighed[:, -1].float()
    share = (1 / worth.sum()).expand(len(block.positive))
    weights = torch.sigmoid(behind).to(block.scores.dtype)
    of_query, of_own = block.weighed.T @ weights, torch.sigmoid(own_behind) * share.unsqueeze(1)
    lost = (worth @ softplus(behind) + softplus(own_behind).sum(dim=1)) * share
    return Gradients(weights, share, of_query, of_own, -of_query[-1] * share - of_own.sum(dim=1), lost.sum())


_LOSSES: Mapping[Loss, Callable[[Block], Gradients]] = {"softmax": _softmax, "bpr": _bpr}
