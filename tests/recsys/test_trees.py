from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest

from tasks.recsys.trees import MOST_LEAVES, Trees
from tasks.recsys.trees import ROWS as ROWS_A_BLOCK

ROWS, COLUMNS = 4_000, 6


def columns(seed: int) -> npt.NDArray[np.float32]:
    """Whole numbers, fractions, infinities, ties, and two columns with values missing."""
    rng = np.random.default_rng(seed)
    found = rng.normal(0, 3, (ROWS, COLUMNS)).astype(np.float32)
    found[:, 1] = np.round(found[:, 1])
    found[rng.random(ROWS) < 0.1, 2] = np.inf
    found[rng.random((ROWS, COLUMNS)) < 0.3 * (np.arange(COLUMNS) >= 4)] = np.nan
    return found


def grown(leaves: int, number: int = 15) -> Any:
    """A booster that has learned from every column, and from what is missing."""
    x = columns(1)
    said = np.nan_to_num(x, nan=4.0, posinf=9.0) @ np.arange(1.0, COLUMNS + 1) + np.sin(3 * x[:, 0])
    parameters = {"num_leaves": leaves, "min_data_in_leaf": 5, "num_threads": 1, "verbosity": -1}
    return lightgbm.train(parameters, lightgbm.Dataset(x, said), number)


@pytest.mark.parametrize("leaves", [2, 7, 8, 9, 16, 31, MOST_LEAVES])
def test_scores_are_lightgbm_s_own_to_the_bit(leaves: int) -> None:
    booster, asked = grown(leaves), columns(2)
    assert booster.dump_model()["tree_info"][0]["num_leaves"] == leaves
    assert np.array_equal(Trees.of(booster).scores(asked), booster.predict(asked, num_threads=1))


def test_what_was_never_missing_in_training_may_be_missing() -> None:
    booster, asked = grown(7), columns(2)
    asked[::3, 0] = np.nan
    assert np.array_equal(Trees.of(booster).scores(asked), booster.predict(asked, num_threads=1))


def test_a_value_beside_a_threshold_goes_where_lightgbm_sends_it() -> None:
    """But for the thresholds beside 0: LightGBM takes ±1e-35 themselves for 0."""
    booster = grown(31)
    nodes = [node for tree in Trees.of(booster).trees for node in tree.nodes]
    splits = sorted({(node.feature, node.threshold) for node in nodes if abs(node.threshold) > 1e-30})
    asked = np.zeros((3 * len(splits), COLUMNS), dtype=np.float32)
    for number, (feature, threshold) in enumerate(splits):
        beside = [np.nextafter(threshold, np.float32(side)) for side in (-np.inf, np.inf)]
        asked[3 * number : 3 * number + 3, feature] = [beside[0], threshold, beside[1]]
    assert np.array_equal(Trees.of(booster).scores(asked), booster.predict(asked, num_threads=1))


def test_blocks_change_nothing() -> None:
    booster, asked = grown(7), np.tile(columns(2), (ROWS_A_BLOCK // ROWS + 2, 1))
    assert np.array_equal(Trees.of(booster).scores(asked), booster.predict(asked, num_threads=1))
    assert Trees.of(booster).scores(asked[:0]).tolist() == []
