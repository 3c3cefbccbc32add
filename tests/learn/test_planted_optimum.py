"""The planted optimum: nothing simple beats it, it does not know the answers, of chance it knows what is popular."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks import planted
from benchmarks.planted_windows import drawn_views, expected, memories
from tasks import dataset_files
from tasks.demo_data import make_demo_data
from tasks.recsys import baselines, evaluation, metrics
from tasks.recsys.evaluation import Question
from tasks.recsys.interactions import Ints, Longs
from tasks.recsys.metrics import Doubles
from tasks.recsys.synthetic import START, WEEK, DemoConfig, Shop, make_shop
from tests.world import Home

pytestmark = pytest.mark.learn

DEPTH = 300


@dataclass(frozen=True)
class Measured:
    """Demo data, what is asked of them, and what lists of it are worth."""

    shop: Shop
    visitors: Longs
    window: tuple[int, int]
    asked: Question
    bounds: dict[str, Ints]
    simple: dict[str, Ints]

    def recall(self, lists: Ints, k: int = 50) -> Doubles:
        return metrics.recall_at(metrics.hits(lists, self.asked.truth), self.asked.truth, k)


def measure(home: Home, noise: float) -> Measured:
    data, config = home.path / "data", DemoConfig(scale=0.01, noise=noise)
    make_demo_data(data, config)
    dataset = home.run("prepare_data", {"data": str(data)})
    stored, window = home.stored(dataset), (dataset.second_cut, dataset.as_of)
    interactions = dataset_files.read_interactions(stored)
    asked = evaluation.question(interactions, *window, dataset.history_cap)
    shop, visitors = make_shop(config), dataset_files.read_user_ids(stored)[asked.truth.user]
    items, known = dataset_files.read_item_ids(stored), interactions.before(window[0])
    bounds = dict(planted.lists(shop, visitors, items, known, window, DEPTH))
    simple = dict(baselines.every(interactions, asked.asked, window[0], DEPTH))
    return Measured(shop, visitors, window, asked, bounds, simple)


@pytest.fixture(scope="module")
def structure(new_home: Callable[[], Home]) -> Measured:
    return measure(new_home(), noise=0.0)


@pytest.fixture(scope="module")
def chance(new_home: Callable[[], Home]) -> Measured:
    return measure(new_home(), noise=1.0)


@pytest.mark.parametrize("k", [10, 50, 300])
def test_without_noise_nothing_simple_comes_near_it(structure: Measured, k: int) -> None:
    best = structure.recall(structure.bounds[planted.OF_KNOWN], k)
    assert len(best) > 150
    assert len(structure.simple) >= 8
    for name, lists in structure.simple.items():
        gain = metrics.paired(best, structure.recall(lists, k))
        assert gain.low is not None and gain.low > 0.1, name


def test_who_knows_more_is_not_worse(structure: Measured) -> None:
    everything, known, past, counts = (structure.recall(structure.bounds[name]).mean() for name in planted.BOUNDS)
    assert everything > known > past > counts
    assert counts > max(structure.recall(lists).mean() for lists in structure.simple.values())


def test_it_does_not_know_the_answers(structure: Measured) -> None:
    """Somebody who did would find all at once: most visitors want no more than ten items."""
    assert np.median(np.diff(structure.asked.truth.start)) < 10
    assert structure.recall(structure.bounds[planted.OPTIMUM], 10).mean() < 0.6


def test_what_it_expects_comes_true(structure: Measured) -> None:
    """The returns that it expects, within five standard deviations of a count."""
    visitors, week = np.sort(structure.visitors), (structure.window[0] - START) // WEEK
    past = memories(structure.shop, visitors, structure.window[0])
    views, source = drawn_views(structure.shop, past, *structure.window)
    returns = expected(structure.shop, past, views, source, week).returned.sum()
    happened = np.count_nonzero(~structure.asked.unseen)
    assert happened > 100
    assert returns == pytest.approx(happened, abs=5 * happened**0.5)


def test_of_chance_it_knows_what_is_popular_and_tastes_say_nothing(chance: Measured) -> None:
    """It knows how popular something is that was met a few times, and how long things live: that is worth a little."""
    best = chance.recall(chance.bounds[planted.OF_KNOWN])
    gain = metrics.ratio(best, chance.recall(chance.simple["popular_14_days"]))
    assert gain.low is not None and gain.low < 1.15
    assert gain.high is not None and gain.high > 1
    assert np.array_equal(chance.bounds[planted.OF_KNOWN], chance.bounds[planted.OF_PAST])
