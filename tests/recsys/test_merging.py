import numpy as np
import pytest

from tasks.recsys import merging
from tasks.recsys.candidates import CURVES, SOURCES, Curves, blend
from tasks.recsys.interactions import Ints, Truth
from tasks.recsys.merging import learn

USERS, ITEMS, DEPTH = 1_000, 2_000, 120


def problem(seed: int, telling: int) -> tuple[list[Ints], Truth]:
    """Lists by chance, but for one source, that has the truth among its first hundred."""
    rng = np.random.default_rng(seed)
    lists = [
        np.stack([rng.choice(ITEMS, DEPTH, replace=False) for _ in range(USERS)]).astype(np.int32) for _ in SOURCES
    ]
    rows = np.arange(USERS)
    item = lists[telling][rows, rng.integers(0, 100, USERS)]
    return lists, Truth(rows.astype(np.int32), np.arange(USERS + 1), item, np.zeros(USERS, dtype=np.int8))


def recall(lists: list[Ints], truth: Truth, curves: Curves) -> float:
    unscored = [np.zeros(one.shape, dtype=np.float32) for one in lists]
    found = blend(lists, unscored, 50, curves).item
    return float((found == truth.item[:, None]).any(axis=1).mean())


@pytest.mark.parametrize("telling", range(len(SOURCES)))
def test_the_source_that_tells_most_comes_to_count_most(telling: int) -> None:
    lists, truth = problem(telling, telling)
    curves = learn(lists, truth)
    said = [sum(curve) for curve in curves]
    assert said.index(max(said)) == telling
    others, answers = problem(telling + 10, telling)
    assert recall(others, answers, curves) > recall(others, answers, CURVES) - 0.02
    assert recall(others, answers, curves) > 0.4  # half of them are among its first fifty


def test_a_rank_that_tells_is_told_from_those_around_it() -> None:
    """The truth is what a source names first, or anything that another one names: one curve falls, one is level."""
    lists, truth = problem(0, 1)
    rows = np.arange(USERS)
    item = np.where(rows % 2, lists[0][:, 0], lists[1][rows, np.random.default_rng(1).integers(0, DEPTH, USERS)])
    (steep, _), (_, level), *rest = learn(lists, Truth(truth.user, truth.start, item, truth.event))
    assert steep > 0.35
    assert level > 0.35
    assert np.sum(rest) < 0.1


def test_what_several_sources_name_counts_for_more_than_the_likeliest_mixture_has_it() -> None:
    """Everybody's item is named by two sources somewhere, and mostly by a third one near the top."""

    def agreeing(seed: int) -> tuple[list[Ints], Truth]:
        lists, truth = problem(seed, 0)
        rng, item = np.random.default_rng(seed + 100), truth.item + np.int32(ITEMS)
        for source, depth, share in ((0, 40, 1.0), (1, 60, 1.0), (2, 10, 0.7)):
            rows = np.flatnonzero(rng.random(USERS) < share)
            lists[source][rows, rng.integers(0, depth, len(rows))] = item[rows]
        return lists, Truth(truth.user, truth.start, item, truth.event)

    lists, truth = agreeing(0)
    odds, user = merging._odds(lists, truth)
    likeliest = start = np.array(CURVES).ravel() / np.sum(CURVES)
    for _ in range(merging.STEPS):
        likeliest = merging._likelier(likeliest, odds, 1 / np.bincount(user)[user], start)
    others, answers = agreeing(1)
    curves = learn(lists, truth)
    assert recall(others, answers, curves) > recall(others, answers, merging._curves(likeliest)) + 0.01


def test_the_most_likely_mixture_by_hand() -> None:
    """Own history names the taken item second, popular first: one step of the mixture from equal shares."""
    nobody = np.full((1, 2), -1, dtype=np.int32)
    lists = [np.array([[3, 4]], dtype=np.int32), nobody, nobody, np.array([[4, -1]], dtype=np.int32)]
    truth = Truth(np.zeros(1, dtype=np.int32), np.array([0, 1]), np.array([4], dtype=np.int32), np.zeros(1, np.int8))
    odds, user = merging._odds(lists, truth)
    zipf, fused = (1 / 2) / (1 + 1 / 2), (1 / 32) / (1 / 31 + 1 / 32)
    np.testing.assert_allclose(odds, [[zipf, fused, 0, 0, 0, 0, 1 - zipf, 1 - fused]])
    assert user.tolist() == [0]
    start = np.array([0.25, 0.0] * 4)
    found = merging._likelier(start, odds, np.ones(1), start)
    by_hand = (np.array([zipf, 0, 0, 0, 0, 0, 1 - zipf, 0]) + merging.PRIOR * start) / (1 + merging.PRIOR)
    np.testing.assert_allclose(found, by_hand)


def test_a_step_makes_truth_and_start_together_more_likely() -> None:
    odds, _ = merging._odds(*problem(5, 2))
    share, start = np.ones(len(odds)), np.full(8, 1 / 8)
    mixture, likely = start, []
    for _ in range(20):
        likely.append(float(np.log(odds @ mixture).sum() + merging.PRIOR * start @ np.log(mixture)))
        mixture = merging._likelier(mixture, odds, share, start)
    assert np.diff(likely).min() > -1e-9
    assert likely[-1] > likely[0]


def test_few_say_little() -> None:
    lists, truth = problem(1, 0)
    few = 20
    part = truth.where(truth.row < few)
    some, everybody = (np.array(one) for one in (learn([one[:few] for one in lists], part), learn(lists, truth)))
    moved, further = np.linalg.norm(some - CURVES), np.linalg.norm(everybody - CURVES)
    assert 0 < moved < further / 2


def test_nothing_to_learn_from_leaves_the_curves_alone() -> None:
    lists, truth = problem(1, 0)
    nobody = Truth(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64), truth.item[:0], truth.event[:0])
    assert learn([one[:0] for one in lists], nobody) == CURVES
    assert learn(lists, Truth(truth.user, truth.start, truth.item + ITEMS, truth.event)) == CURVES


def test_the_same_input_gives_the_same_curves() -> None:
    assert learn(*problem(3, 1)) == learn(*problem(3, 1))
