"""Sampled softmax whose matrix of scores never leaves the processor's cache."""

from typing import Any

import torch
from torch import Tensor

CELLS = 1 << 18
"""Scores at a time: 1 MB."""


def sampled_softmax(query: Tensor, candidates: Tensor, common: Tensor, positive: Tensor) -> Tensor:
    """`losses.sampled_softmax` of the scores common + query · candidates, mean over heads and batch.

    query: [heads, batch, dim].  candidates: [heads, sampled, dim].  positive: [heads, batch], score of each positive.
    common: [batch, sampled], what is added to the scores of every head; −∞: an accidental hit.

    Scores and their gradient are made block by block of the batch and used at once, in the forward pass (as in Liger
    kernel's fused linear cross-entropy, Hsu et al. 2024): all else is small.
    """
    loss: Tensor = _OnePass.apply(query, candidates, common, positive)  # type: ignore[no-untyped-call]
    return loss


class _OnePass(torch.autograd.Function):
    """The loss; what it keeps for the backward pass are the gradients themselves."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, candidates: Tensor, common: Tensor, positive: Tensor) -> Tensor:
        of_query, of_positive, of_common = (torch.empty_like(one) for one in (query, positive, common))
        of_candidates = torch.zeros_like(candidates)
        loss = query.new_zeros(())
        rows = max(1, CELLS // common.shape[1])
        for low in range(0, len(common), rows):
            block = slice(low, low + rows)
            of_common[block] = 0
            for head in range(len(query)):
                weights, of_positive[head, block], lost = _weights(
                    torch.addmm(common[block], query[head, block], candidates[head].T), positive[head, block]
                )
                torch.mm(weights, candidates[head], out=of_query[head, block])
                of_candidates[head].addmm_(weights.T, query[head, block])
                of_common[block] += weights
                loss += lost
        ctx.save_for_backward(of_query, of_candidates, of_common, of_positive)
        return loss / positive.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (gradient,) = gradients
        share = gradient / ctx.saved_tensors[3].numel()
        return tuple(saved.mul_(share) for saved in ctx.saved_tensors)


def _weights(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [rows, sampled], which are overwritten, and positives [rows] → their gradients, and the summed loss."""
    top = torch.maximum(scores.amax(dim=1), positive)
    weights = scores.sub_(top.unsqueeze(1)).exp_()
    own = torch.exp(positive - top)
    partition = weights.sum(dim=1) + own
    return weights.mul_((1 / partition).unsqueeze(1)), own / partition - 1, (partition.log() + top - positive).sum()
