"""Losses of the two-tower, and the corrections of their scores, as plain functions."""

from typing import Any

import torch
from torch import Tensor


class _SampledSoftmax(torch.autograd.Function):
    """log( exp(s₊) + Σⱼ exp(s'ⱼ) ) − s₊, a row each, passing over the big matrix once forward and once back."""

    @staticmethod
    def forward(ctx: Any, positive: Tensor, negatives: Tensor) -> Tensor:
        top = torch.maximum(negatives.amax(dim=1), positive)
        weights = torch.sub(negatives, top.unsqueeze(1)).exp_()
        partition = weights.sum(dim=1) + torch.exp(positive - top)
        ctx.save_for_backward(weights, partition, torch.exp(positive - top) / partition)
        return torch.log(partition) + top - positive

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        weights, partition, share = ctx.saved_tensors
        return gradient * (share - 1), weights * (gradient / partition).unsqueeze(1)


def sampled_softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """Mean cross-entropy of the full softmax, its partition function estimated from sampled negatives.

    positive: [batch], score s₊ of each row's positive.
    negatives: [batch, sampled], corrected score s'ⱼ of each sampled candidate.

    loss = −s₊ + log( exp(s₊) + Σⱼ exp(s'ⱼ) )

    With s'ⱼ = sⱼ − log(expected count of j in the sample), the sum is an importance-sampling estimate of the sum over
    all other items (Yi et al., RecSys 2019).  The positive is always there, not sampled: its score is not corrected
    (Khrylchenko et al., RecSys 2025).
    """
    rows: Tensor = _SampledSoftmax.apply(positive, negatives)  # type: ignore[no-untyped-call]
    return rows.mean()


def log_q_correction(bias: Tensor, drawn: Tensor, log_expected: Tensor) -> Tensor:
    """[sampled], what is added to every score of a candidate: its bias + log(times drawn) − log(times expected).

    A candidate that was drawn several times counts as often; one that is drawn often by chance alone counts less.
    """
    return bias + drawn.log() - log_expected


def remove_accidental_hits(scores: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """Scores [batch, sampled] with −∞ where a candidate is the row's own positive.

    positives: [batch] ids; candidates: [sampled] ids, ascending and distinct.  Changes `scores` in place, unseen by
    autograd, which need not know: the softmax of −∞ is 0, and so is its gradient.
    """
    place = torch.searchsorted(candidates, positives).clamp(max=len(candidates) - 1)
    row = torch.nonzero(candidates[place] == positives).squeeze(1)
    with torch.no_grad():
        return scores.index_put_((row, place[row]), scores.new_tensor(-torch.inf))
