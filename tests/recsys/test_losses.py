import math

import pytest
import torch
from torch import Tensor

from tasks.recsys.losses import accidental_hits, bpr, log_q_correction, sampled_softmax
from tasks.recsys.sampling import NegativeSampler

SCORES = torch.tensor([2.0, 1.0, 0.5, -1.0, 0.0, 3.0, -2.0, 1.5])
COUNTS = torch.tensor([100, 1, 30, 7, 0, 2, 400, 12])
"""The popular items score low and some rare ones high: a wrong correction shows."""
POSITIVE = 2


def test_sampled_softmax_is_the_mean_cross_entropy() -> None:
    positive = torch.tensor([1.0, -0.5])
    negatives = torch.tensor([[0.5, 2.0], [0.0, -1.0]])
    first = -1.0 + math.log(math.exp(1.0) + math.exp(0.5) + math.exp(2.0))
    second = 0.5 + math.log(math.exp(-0.5) + math.exp(0.0) + math.exp(-1.0))
    assert float(sampled_softmax(positive, negatives)) == pytest.approx((first + second) / 2)


def test_without_any_negative_there_is_nothing_to_lose() -> None:
    assert float(sampled_softmax(torch.tensor([3.0]), torch.tensor([[-math.inf, -math.inf]]))) == 0


def test_great_scores_do_not_overflow() -> None:
    assert float(sampled_softmax(torch.tensor([0.0]), torch.tensor([[500.0]]))) == pytest.approx(500.0)


def test_correction_is_times_drawn_less_times_expected() -> None:
    drawn, expected = torch.tensor([1, 3]), torch.tensor([0.5, 4.0])
    correction = log_q_correction(drawn, expected.log())
    assert correction.tolist() == pytest.approx([math.log(1 / 0.5), math.log(3 / 4)])


def test_an_item_drawn_twice_counts_as_two() -> None:
    twice = 0.7 + log_q_correction(torch.tensor([2]), torch.zeros(1))
    once = 0.7 + log_q_correction(torch.tensor([1, 1]), torch.zeros(2))
    losses = [float(sampled_softmax(torch.tensor([0.1]), scores.unsqueeze(0))) for scores in (twice, once)]
    assert losses[0] == pytest.approx(losses[1])


def estimated(sign: float) -> float:
    """Loss of one query over a big sample, log q taken off (1) or added (−1)."""
    sample = NegativeSampler.of(COUNTS).draw(400_000, torch.Generator().manual_seed(1))
    scores: Tensor = SCORES[sample.item] + log_q_correction(sample.drawn, sign * sample.log_expected)
    _, hit = accidental_hits(torch.tensor([[-1]]), torch.tensor([[POSITIVE]]), sample.item)
    scores[hit] = -math.inf
    return float(sampled_softmax(SCORES[[POSITIVE]], scores.unsqueeze(0)))


def test_the_estimate_converges_to_the_full_softmax() -> None:
    full = float(torch.nn.functional.cross_entropy(SCORES.unsqueeze(0), torch.tensor([POSITIVE])))
    assert estimated(sign=1) == pytest.approx(full, abs=0.01)
    assert abs(estimated(sign=-1) - full) > 1


def test_accidental_hits_are_the_positive_and_what_the_history_holds_so_far() -> None:
    past = torch.tensor([[5, 3, 5], [8, 1, -1]])
    target = torch.tensor([[3, 5, 2], [1, -1, -1]])
    row, place = accidental_hits(past, target, torch.tensor([3, 5, 8]))
    # Rows: 0–2 of the first window, 3 of the second.  After the first step its history is 5 and it is 3 that follows.
    assert sorted({*zip(row.tolist(), place.tolist(), strict=True)}) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 2)
    ]  # fmt: skip
    assert row.tolist() == sorted(row.tolist())


def test_bpr_is_the_weighted_mean_over_pairs() -> None:
    positive, negatives = torch.tensor([1.0, -0.5]), torch.tensor([[0.5, 2.0], [0.0, -math.inf]])
    pairs = [(0.5, 1), (-1.0, 3), (-0.5, 1)]  # (s₊ − sⱼ, weight); the last candidate is none of the second row's
    expected = sum(weight / 4 * math.log(1 + math.exp(-ahead)) for ahead, weight in pairs) / 2
    assert float(bpr(positive, negatives, torch.tensor([1.0, 3.0]).log())) == pytest.approx(expected)


def test_bpr_pulls_the_positive_up_and_the_negative_down() -> None:
    positive, negatives = torch.zeros(1, requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    bpr(positive, negatives, torch.zeros(1)).backward()  # type: ignore[no-untyped-call]
    assert positive.grad is not None
    assert negatives.grad is not None
    assert (positive.grad.tolist(), negatives.grad.tolist()) == ([-0.5], [[0.5]])
