"""Losses of the two-tower, and the corrections of their scores, as plain functions."""

import torch
from torch import Tensor


def sampled_softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """Mean cross-entropy of the full softmax, its partition function estimated from sampled negatives.

    positive: [batch], score s₊ of each row's positive.
    negatives: [batch, sampled], corrected score s'ⱼ of each sampled candidate.

    loss = −s₊ + log( exp(s₊) + Σⱼ exp(s'ⱼ) )

    With s'ⱼ = sⱼ − log(expected count of j in the sample), the sum is an importance-sampling estimate of the sum over
    all other items (Yi et al., RecSys 2019).  The positive is always there, not sampled: its score is not corrected
    (Khrylchenko et al., RecSys 2025).
    """
    everything = torch.cat([positive.unsqueeze(1), negatives], dim=1)
    return (torch.logsumexp(everything, dim=1) - positive).mean()


def bpr(positive: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    """Mean loss over all pairs of a row's positive and a negative.

    positive: [batch], score s₊ of each row's positive.
    negatives: [batch, sampled], score sⱼ of each sampled candidate; −∞ where it is none of the row's negatives.
    weights: [sampled], wⱼ of each candidate.

    loss = Σⱼ wⱼ · −log σ(s₊ − sⱼ) / Σⱼ wⱼ

    (Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009.)
    """
    pairs = torch.nn.functional.softplus(negatives - positive.unsqueeze(1))
    pair_weights = weights * torch.isfinite(negatives)
    return (pairs * pair_weights).sum() / pair_weights.sum().clamp(min=1e-9)


def log_q_correction(drawn: Tensor, log_expected: Tensor) -> Tensor:
    """[sampled], what is added to every score of a candidate: log(times drawn) − log(times expected).

    A candidate that was drawn several times counts as often; one that is drawn often by chance alone counts less.
    """
    return drawn.log() - log_expected


def remove_accidental_hits(scores: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """Scores [batch, sampled] with −∞ where a candidate is the row's own positive.

    positives: [batch] ids; candidates: [sampled] ids, ascending and distinct.  Changes `scores` in place, unseen by
    autograd, which need not know: the softmax of −∞ is 0, and so is its gradient.
    """
    place = torch.searchsorted(candidates, positives).clamp(max=len(candidates) - 1)
    row = torch.nonzero(candidates[place] == positives).squeeze(1)
    with torch.no_grad():
        return scores.index_put_((row, place[row]), scores.new_tensor(-torch.inf))
