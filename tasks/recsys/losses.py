"""Losses of the two-tower, and the corrections of their scores, as plain functions."""

import torch
from torch import Tensor
from torch.nn import functional


def sampled_softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """Mean cross-entropy of the full softmax, its partition function estimated from sampled negatives.

    positive: [batch], score s₊ of each row's positive.
    negatives: [batch, sampled], corrected score s'ⱼ of each sampled candidate.

    loss = −s₊ + log( exp(s₊) + Σⱼ exp(s'ⱼ) ) = softplus( log Σⱼ exp(s'ⱼ) − s₊ )

    With s'ⱼ = sⱼ − log(expected count of j in the sample), the sum is an importance-sampling estimate of the sum over
    all other items (Yi et al., RecSys 2019).  The positive is always there, not sampled: its score is not corrected
    (Khrylchenko et al., RecSys 2025).
    """
    return functional.softplus(torch.logsumexp(negatives, dim=1) - positive).mean()


def log_q_correction(bias: Tensor, drawn: Tensor, log_expected: Tensor) -> Tensor:
    """[sampled], what is added to every score of a candidate: its bias + log(times drawn) − log(times expected).

    A candidate that was drawn several times counts as often; one that is drawn often by chance alone counts less.
    """
    return bias + drawn.log() - log_expected


def remove_accidental_hits(scores: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """Scores [batch, sampled] with −∞ where a candidate is the row's own positive.

    positives: [batch] ids; candidates: [sampled] ids, ascending and distinct.  Changes `scores` in place.
    """
    place = torch.searchsorted(candidates, positives).clamp(max=len(candidates) - 1)
    row = torch.nonzero(candidates[place] == positives).squeeze(1)
    return scores.index_put_((row, place[row]), scores.new_tensor(-torch.inf))
