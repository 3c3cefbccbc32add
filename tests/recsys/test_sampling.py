import math

import numpy as np
import pytest
import torch

from tasks.recsys.sampling import POPULARITY_EXPONENT, Negatives, NegativeSampler

COUNTS = torch.tensor([16, 0, 1, 81])
SAMPLER = NegativeSampler.of(COUNTS)


def draw(sampled: int, seed: int) -> Negatives:
    return SAMPLER.draw(sampled, torch.Generator().manual_seed(seed))


def test_q_is_half_flattened_popularity_half_uniform() -> None:
    assert POPULARITY_EXPONENT == 0.75
    total = 8 + 0 + 1 + 27  # 16 ** 0.75, 0, 1, 81 ** 0.75
    expected = [0.5 * 8 / total + 0.5 / 4, 0.5 / 4, 0.5 / total + 0.5 / 4, 0.5 * 27 / total + 0.5 / 4]
    assert SAMPLER.log_q.exp().tolist() == pytest.approx(expected)


def test_q_sums_to_1() -> None:
    counts = torch.from_numpy(np.random.default_rng(0).zipf(1.3, 5_000).clip(max=10**6))
    assert float(NegativeSampler.of(counts).log_q.double().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_items_are_drawn_as_often_as_expected() -> None:
    sampled = 100_000
    sample = draw(sampled, 0)
    expected = sample.log_expected.exp()
    assert expected.tolist() == pytest.approx((sampled * SAMPLER.log_q[sample.item].exp()).tolist())
    # five standard deviations of a binomial count
    assert bool(((sample.drawn - expected).abs() < 5 * expected.sqrt()).all())
    assert sample.item.tolist() == [0, 1, 2, 3]


def test_a_sample_is_distinct_ascending_and_counts_every_draw() -> None:
    sample = draw(101, 3)
    assert sample.item.tolist() == sorted(set(sample.item.tolist()))
    assert int(sample.drawn.sum()) == 101
    assert len(sample.item) == len(sample.drawn) == len(sample.log_expected)


def test_what_is_never_seen_comes_by_the_uniform_half_alone() -> None:
    sample = draw(1_000, 5)
    drawn = int(sample.drawn[sample.item == 1])
    assert 500 / 4 - 5 * math.sqrt(500 / 4) < drawn < 500 / 4 + 5 * math.sqrt(500 / 4)


def test_the_generator_decides() -> None:
    first, again, other = (draw(50, seed) for seed in (7, 7, 8))
    assert torch.equal(first.item, again.item)
    assert torch.equal(first.drawn, again.drawn)
    assert not (torch.equal(first.item, other.item) and torch.equal(first.drawn, other.drawn))


def test_one_generator_goes_on() -> None:
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(SAMPLER.draw(50, generator).drawn, SAMPLER.draw(50, generator).drawn)
