"""What ranks, on disk: the items as of a cut, the trees as text."""

from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
import pytest

from tasks import dataset_files, ranker_files
from tasks.failures import BadData
from tasks.recsys.features import FEATURES
from tasks.recsys.interactions import DAY, Interactions
from tests.recsys.made import views

KNOWN = views((0, 0, 1), (0, 1, 2), (1, 2, 3), (1, 0, 8), (2, 3, 9))
"""Items 0 to 2 are known as of day 5, item 3 comes on day 9."""


def write_cut(data: Path, known: Interactions, day: int, rows: list[tuple[int, int, int, float | None]]) -> None:
    """Rows (item, category, available, price) as of a day."""
    schema = {"item": pl.Int32, "category": pl.Int32, "available": pl.Int8, "price": pl.Float32}
    properties = pl.DataFrame(rows, schema=schema, orient="row")
    dataset_files.write_cut(data, known, properties, day * DAY, cap=50)


def test_items_are_those_known_as_of_the_cut_with_the_properties_of_that_cut(tmp_path: Path) -> None:
    write_cut(tmp_path, KNOWN, 5, [(0, 7, 1, 12.5), (2, -1, 1, None)])
    write_cut(tmp_path, KNOWN, 10, [(0, 8, 1, 99.0), (1, 3, 1, 1.0), (3, 4, 1, 2.0)])
    early, late = (ranker_files.read_items(tmp_path, day * DAY) for day in (5, 10))
    assert early.category.tolist() == [7, -1, -1]
    assert early.price.tolist() == pytest.approx([12.5, np.nan, np.nan], nan_ok=True)
    assert early.views.tolist() == [1, 1, 1]
    assert early.age.tolist() == [5 - 1, 5 - 2, 5 - 3]
    assert late.category.tolist() == [8, 3, -1, 4]
    assert late.views.tolist() == [2, 1, 1, 1]


def test_later_events_change_no_item(tmp_path: Path) -> None:
    for name, known in (("all", KNOWN), ("early", KNOWN.before(5 * DAY))):
        write_cut(tmp_path / name, known, 5, [(1, 7, 1, 12.5)])
    tables = [ranker_files.read_items(tmp_path / name, 5 * DAY) for name in ("all", "early")]
    for name in vars(tables[0]):
        np.testing.assert_array_equal(getattr(tables[0], name), getattr(tables[1], name))


def booster(names: list[str], trees: int = 5) -> lightgbm.Booster:
    rng = np.random.default_rng(0)
    columns = rng.random((200, len(names)))
    data = lightgbm.Dataset(columns, columns[:, 0] > 0.5, feature_name=names)
    return lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, trees)


def test_a_booster_comes_back(tmp_path: Path) -> None:
    made = booster(list(FEATURES))
    ranker_files.write_booster(tmp_path, made)
    columns = np.random.default_rng(1).random((20, len(FEATURES)))
    found = ranker_files.read_booster(tmp_path)
    assert found.num_trees() == made.num_trees()
    np.testing.assert_array_equal(found.predict(columns), made.predict(columns))


def test_where_nothing_was_learned_there_is_no_booster(tmp_path: Path) -> None:
    assert ranker_files.read_booster(tmp_path) is None


@pytest.mark.parametrize("names", [[*FEATURES, "extra"], list(FEATURES)[1:], [*list(FEATURES)[1:], "place"]])
def test_a_booster_of_other_features_is_refused(tmp_path: Path, names: list[str]) -> None:
    ranker_files.write_booster(tmp_path, booster(names))
    with pytest.raises(BadData, match="train the ranker again"):
        ranker_files.read_booster(tmp_path)
