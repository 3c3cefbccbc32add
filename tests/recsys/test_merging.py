import numpy as np
import pytest

from tasks.recsys import merging
from tasks.recsys.candidates import SOURCES, WEIGHTS, Weights, blend
from tasks.recsys.interactions import Ints, Truth
from tasks.recsys.merging import learn

USERS, ITEMS = 1_000, 2_000


def problem(seed: int, telling: int) -> tuple[list[Ints], Truth]:
    """Lists by chance, but for one source, that has the truth among its first hundred."""
    rng = np.random.default_rng(seed)
    lists = [np.stack([rng.choice(ITEMS, 120, replace=False) for _ in range(USERS)]).astype(np.int32) for _ in SOURCES]
    rows = np.arange(USERS)
    item = lists[telling][rows, rng.integers(0, 100, USERS)]
    return lists, Truth(rows.astype(np.int32), np.arange(USERS + 1), item, np.zeros(USERS, dtype=np.int8))


def recall(lists: list[Ints], truth: Truth, weights: Weights) -> float:
    unscored = [np.zeros(one.shape, dtype=np.float32) for one in lists]
    found = blend(lists, unscored, 50, weights).item
    return float((found == truth.item[:, None]).any(axis=1).mean())


@pytest.mark.parametrize("telling", range(len(SOURCES)))
def test_the_source_that_tells_most_comes_to_count_most(telling: int) -> None:
    lists, truth = problem(telling, telling)
    weights = learn(lists, truth)
    assert max(range(len(SOURCES)), key=lambda source: weights[source]) == telling
    others, answers = problem(telling + 10, telling)
    assert recall(others, answers, weights) > recall(others, answers, WEIGHTS) - 0.02
    assert recall(others, answers, weights) > 0.4  # half of them are among its first fifty


def test_the_value_that_is_climbed_is_the_blend_s_recall() -> None:
    lists, truth = problem(5, 2)
    pool = merging._pool(lists, truth)
    by_hand = 0.0
    unscored = [np.zeros(one.shape, dtype=np.float32) for one in lists]
    found = blend(lists, unscored, 300).item
    for k, by in ((20, 0.5), (50, 1.0), (300, 0.5)):
        by_hand += by * (found[:, :k] == truth.item[:, None]).any(axis=1).mean()
    assert merging._value(pool, WEIGHTS) == pytest.approx(by_hand, abs=0.01)  # ties count against it


def test_few_say_little() -> None:
    lists, truth = problem(1, 0)
    few = 20
    part = truth.where(truth.row < few)
    some, all_of_them = learn([one[:few] for one in lists], part), learn(lists, truth)
    assert WEIGHTS[0] <= some[0] < all_of_them[0]
    for old, new in zip(WEIGHTS, some, strict=True):
        assert abs(np.log(new / old)) <= 20 / (20 + merging.PRIOR) * merging.PASSES * np.log(4)


def test_nothing_to_learn_from_leaves_the_weights_alone() -> None:
    lists, truth = problem(1, 0)
    nobody = Truth(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64), truth.item[:0], truth.event[:0])
    assert learn([one[:0] for one in lists], nobody) == WEIGHTS
    assert learn(lists, Truth(truth.user, truth.start, truth.item + ITEMS, truth.event)) == WEIGHTS


def test_the_same_input_gives_the_same_weights() -> None:
    assert learn(*problem(3, 1)) == learn(*problem(3, 1))
