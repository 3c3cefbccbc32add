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


def bpr(positive: Tensor, negatives: Tensor, correction: Tensor) -> Tensor:
    """Mean over rows of the loss of the pairs of a row's positive and a negative.

    positive: [batch], score s₊ of each row's positive.
    negatives: [batch, sampled], score sⱼ of each sampled candidate; −∞ where it is none of the row's negatives.
    correction: [sampled], log weight cⱼ of each candidate: the mean is over all items, however they were sampled.

    loss = Σⱼ exp(cⱼ) · −log σ(s₊ − sⱼ) / Σⱼ exp(cⱼ)

    (Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009.)
    """
    pairs = torch.nn.functional.softplus(negatives - positive.unsqueeze(1))
    return (pairs @ torch.softmax(correction, dim=0)).mean()


def log_q_correction(drawn: Tensor, log_expected: Tensor) -> Tensor:
    """[sampled], what is added to every score of a candidate: log(times drawn) − log(times expected).

    A candidate that was drawn several times counts as often; one that is drawn often by chance alone counts less.
    """
    return drawn.log() - log_expected


def accidental_hits(past: Tensor, target: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Row and place of every candidate that is no negative of a row: its own positive, or of its own history.

    past, target: [batch, length], ids of a window's items and of those that follow, −1 where padded.  Rows count the
    targets that are there.  candidates: [sampled] ids, ascending and distinct.  Rows [hits] ascend.
    """
    past, target = past.contiguous(), target.contiguous()
    real, steps = target >= 0, torch.arange(past.shape[1], device=past.device)
    number = torch.cumsum(real.flatten(), 0).view(real.shape) - 1
    place = torch.searchsorted(candidates, target).clamp(max=len(candidates) - 1)
    of_target = torch.nonzero(real & (candidates[place] == target), as_tuple=True)
    rows, columns = [number[of_target]], [place[of_target]]
    place = torch.searchsorted(candidates, past).clamp(max=len(candidates) - 1)
    window, step = torch.nonzero((past >= 0) & (candidates[place] == past), as_tuple=True)
    after = real[window] & (steps >= step.unsqueeze(1))  # [hits, length], positions that have the item behind them
    hit, position = torch.nonzero(after, as_tuple=True)
    rows.append(number[window[hit], position])
    columns.append(place[window[hit], step[hit]])
    row, order = torch.cat(rows).sort(stable=True)
    return row, torch.cat(columns)[order]
