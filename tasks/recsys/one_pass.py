"""The losses of the two-tower with a matrix of scores that never leaves the processor's cache."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

CELLS = 1 << 18
"""Scores at a time: 1 MB, or half of it."""


Loss = Literal["softmax", "bpr"]
Gradients = tuple[Tensor, Tensor, Tensor]
"""Of scores [rows, sampled], of positives [rows], and the summed loss."""


def loss(
    query: Tensor,
    candidates: Tensor,
    other_query: Tensor,
    other_candidates: Tensor,
    correction: Tensor,
    hits: Tensor,
    positive: Tensor,
    scored_in: torch.dtype = torch.float32,
    kind: Loss = "softmax",
) -> Tensor:
    """`losses.sampled_softmax` or `losses.bpr` of the scores query · candidates + other query · other candidates.

    query: [heads, batch, dim] and candidates: [heads, sampled, dim], of each head; the loss is the mean over heads.
    other_query: [batch, rest] and other_candidates: [sampled, rest], which all heads share.
    correction: [sampled], logQ correction of each candidate, added to its scores or its weight; without a gradient.
    hits: [batch], place among the sampled of a row's own positive, which is left out; −1: it is not there.
    positive: [heads, batch], score of each positive.
    scored_in: the type of the products; bfloat16 is three times as fast where the processor has it.

    Scores and their gradient are made block by block of the batch and used at once, in the forward pass (as in Liger
    kernel's fused linear cross-entropy, Hsu et al. 2024): all else is small.
    """
    arguments = query, candidates, other_query, other_candidates, correction, hits, positive, scored_in, kind
    found: Tensor = _OnePass.apply(*arguments)  # type: ignore[no-untyped-call]
    return found


class _OnePass(torch.autograd.Function):
    """The loss; what it keeps for the backward pass are the gradients themselves."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        candidates: Tensor,
        other_query: Tensor,
        other_candidates: Tensor,
        correction: Tensor,
        hits: Tensor,
        positive: Tensor,
        scored_in: torch.dtype,
        kind: Loss,
    ) -> Tensor:
        inputs = query, candidates, other_query, other_candidates
        query, candidates, other_query, other_candidates = (one.to(scored_in) for one in inputs)
        base, gradients = _LOSSES[kind](correction)
        base, of_positive = base.to(scored_in), torch.empty_like(positive)
        of_query, of_other_query = torch.empty_like(query), torch.empty_like(other_query)
        of_candidates, of_other_candidates = torch.zeros_like(inputs[1]), torch.zeros_like(inputs[3])
        loss = positive.new_zeros(())
        rows = max(1, CELLS // len(correction))
        for low in range(0, len(hits), rows):
            block = slice(low, low + rows)
            common = torch.addmm(base, other_query[block], other_candidates.T)
            hit = torch.nonzero(hits[block] >= 0).squeeze(1)
            common[hit, hits[block][hit]] = -torch.inf
            of_common = common
            for head in range(len(query)):
                weights, of_positive[head, block], lost = gradients(
                    torch.addmm(common, query[head, block], candidates[head].T), positive[head, block]
                )
                torch.mm(weights, candidates[head], out=of_query[head, block])
                of_candidates[head] += weights.T @ query[head, block]
                of_common = of_common.add_(weights) if head else weights
                loss += lost
            torch.mm(of_common, other_candidates, out=of_other_query[block])
            of_other_candidates += of_common.T @ other_query[block]
        ctx.save_for_backward(of_query, of_candidates, of_other_query, of_other_candidates, of_positive)
        return loss / positive.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        *others, of_positive = (saved.to(gradient.dtype) for saved in ctx.saved_tensors)
        share = gradient / of_positive.numel()
        return *(saved.mul_(share) for saved in others), None, None, of_positive.mul_(share), None, None


def _softmax(correction: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Gradients]]:
    """What is added to the scores, and what makes gradients of them, overwriting them."""

    def gradients(scores: Tensor, positive: Tensor) -> Gradients:
        top = torch.maximum(scores.amax(dim=1), positive.to(scores.dtype))  # of one type: else all is copied
        weights = scores.sub_(top.unsqueeze(1)).exp_()
        own = torch.exp(positive - top)
        partition = weights.sum(dim=1) + own
        share = (1 / partition).to(scores.dtype).unsqueeze(1)
        return weights.mul_(share), own / partition - 1, (partition.log() + top - positive).sum()

    return correction, gradients


def _bpr(correction: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Gradients]]:
    """The same of the pairs of a positive and a candidate."""
    share = torch.softmax(correction, dim=0)

    def gradients(scores: Tensor, positive: Tensor) -> Gradients:
        behind = scores.float() - positive.unsqueeze(1)
        weights = torch.sigmoid(behind) * share
        lost = torch.nn.functional.softplus(behind) @ share
        return weights.to(scores.dtype), -weights.sum(dim=1), lost.sum()

    return torch.zeros_like(correction), gradients


_LOSSES: dict[Loss, Callable[[Tensor], tuple[Tensor, Callable[[Tensor, Tensor], Gradients]]]] = {
    "softmax": _softmax,
    "bpr": _bpr,
}
