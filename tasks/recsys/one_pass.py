"""The losses of the two-tower with a matrix of scores that never leaves the processor's cache."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

CELLS = 1 << 18
"""Scores at a time: 1 MB, or half of it."""


Loss = Literal["softmax", "bpr"]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of scores [rows, sampled], of own scores [rows, more], of positives [rows], and the summed loss."""
Step = Callable[[Tensor, Tensor, Tensor], Gradients]
"""Scores, which are overwritten, own scores and positives → their gradients."""


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
    correction: [sampled], logQ correction of each candidate, added to its scores or its weight; without a gradient.
    hits: rows and candidates [hits] that are left out, by ascending row.
    own: [heads, batch, more], scores of further candidates of each row, which are not sampled; −∞: none.
    positive: [heads, batch], score of each positive.
    scored_in: the type of the products; bfloat16 is three times as fast where the processor has it.

    Scores and their gradient are made block by block of the batch and used at once, in the forward pass (as in Liger
    kernel's fused linear cross-entropy, Hsu et al. 2024): all else is small.
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
        base, gradients = _LOSSES[kind](correction)
        base = (bias + base).to(scored_in)
        of_candidates, of_bias = torch.zeros_like(candidates), torch.zeros_like(bias)
        query, candidates = query.to(scored_in), candidates.to(scored_in)
        of_query, of_own, of_positive = (torch.empty_like(one) for one in (query, own, positive))
        loss = positive.new_zeros(())
        rows = max(1, CELLS // len(correction))
        lows = range(0, query.shape[1], rows)
        bounds = torch.searchsorted(hit_row, torch.tensor([*lows, query.shape[1]], device=hit_row.device)).tolist()
        for number, low in enumerate(lows):
            block, hit = slice(low, low + rows), slice(bounds[number], bounds[number + 1])
            for head in range(len(query)):
                scores = torch.addmm(base, query[head, block], candidates[head].T)
                scores[hit_row[hit] - low, hit_column[hit]] = -torch.inf
                weights, of_own[head, block], of_positive[head, block], lost = gradients(
                    scores, own[head, block], positive[head, block]
                )
                torch.mm(weights, candidates[head], out=of_query[head, block])
                of_candidates[head] += weights.T @ query[head, block]
                of_bias += weights.sum(dim=0)
                loss += lost
        ctx.save_for_backward(of_query, of_candidates, of_bias, of_own, of_positive)
        return loss / positive.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        share = gradient / ctx.saved_tensors[-1].numel()
        query, candidates, bias, own, positive = (saved.to(gradient.dtype).mul_(share) for saved in ctx.saved_tensors)
        return query, candidates, bias, None, None, None, own, positive, None, None


def _softmax(correction: Tensor) -> tuple[Tensor, Step]:
    """What is added to the scores, and what makes gradients of them."""

    def gradients(scores: Tensor, own: Tensor, positive: Tensor) -> Gradients:
        top = torch.maximum(scores.amax(dim=1), torch.maximum(own.amax(dim=1), positive).to(scores.dtype))
        weights = scores.sub_(top.unsqueeze(1)).exp_()  # of one type throughout: else all is copied
        of_own, of_positive = torch.exp(own - top.unsqueeze(1)), torch.exp(positive - top)
        partition = weights.sum(dim=1) + of_own.sum(dim=1) + of_positive
        share = 1 / partition
        weights.mul_(share.to(scores.dtype).unsqueeze(1))
        lost = (partition.log() + top - positive).sum()
        return weights, of_own * share.unsqueeze(1), of_positive * share - 1, lost

    return correction, gradients


def _bpr(correction: Tensor) -> tuple[Tensor, Step]:
    """The same of the pairs of a positive and a candidate; a row's own candidates stand for themselves."""
    total = torch.logsumexp(correction, dim=0)
    share, single = torch.exp(correction - total), torch.exp(-total)

    def gradients(scores: Tensor, own: Tensor, positive: Tensor) -> Gradients:
        behind, own_behind = (one.float() - positive.unsqueeze(1) for one in (scores, own))
        weights, of_own = torch.sigmoid(behind) * share, torch.sigmoid(own_behind) * single
        lost = softplus(behind) @ share + softplus(own_behind).sum(dim=1) * single
        return weights.to(scores.dtype), of_own, -weights.sum(dim=1) - of_own.sum(dim=1), lost.sum()

    return torch.zeros_like(correction), gradients


_LOSSES: Mapping[Loss, Callable[[Tensor], tuple[Tensor, Step]]] = {"softmax": _softmax, "bpr": _bpr}
