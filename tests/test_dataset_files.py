"""The Dataset's files: what is written comes back, as of each cut."""

from pathlib import Path

import numpy as np
import polars as pl

from tasks import dataset_files, storage
from tasks.recsys.category_tree import CategoryTree
from tasks.recsys.interactions import CART, DAY, VIEW, Interactions, histories, sort_interactions
from tests.recsys.made import chance, table


def rows_of(rows: Interactions) -> list[tuple[int, ...]]:
    return list(zip(rows.user.tolist(), rows.item.tolist(), rows.event.tolist(), rows.time.tolist(), strict=True))


def test_interactions_come_back_sorted_by_user_time_item_and_event(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, 5, 300) for _ in range(4)]
    whole = sort_interactions(*columns)
    dataset_files.write_interactions(tmp_path, whole, (2, 3))
    assert [storage.read_table(tmp_path / part)["time"].unique().to_list() for part in dataset_files.PARTS] == [
        [0, 1],
        [2],
        [3, 4],
    ]
    assert rows_of(dataset_files.read_interactions(tmp_path)) == rows_of(whole)
    expected = sorted(
        zip(*(column.tolist() for column in columns), strict=True), key=lambda r: (r[0], r[3], r[1], r[2])
    )
    assert rows_of(whole) == expected


NOBODY = pl.DataFrame(schema={"item": pl.Int32, "category": pl.Int32, "available": pl.Int8, "price": pl.Float32})


def test_histories_come_back_whole_or_of_some_users(tmp_path: Path) -> None:
    known, cut = chance(1, 400), 20 * DAY
    dataset_files.write_cut(tmp_path, known, NOBODY, cut, cap=5)
    expected = histories(known, cut, 5)
    found = dataset_files.read_histories(tmp_path, cut)
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), values)
    some = np.array([1, 2, 7, 99], dtype=np.int32)
    wanted = expected.take(np.flatnonzero(np.isin(expected.user, some)))
    for name, values in vars(wanted).items():
        np.testing.assert_array_equal(getattr(dataset_files.read_histories(tmp_path, cut, some), name), values)


def test_items_have_a_row_each_whether_they_have_properties_or_not(tmp_path: Path) -> None:
    known = table([(0, 0, VIEW, DAY), (0, 1, VIEW, 2 * DAY), (0, 2, CART, 3 * DAY)])
    properties = pl.DataFrame([(1, 7, 0, 12.5)], schema=NOBODY.schema, orient="row")
    dataset_files.write_cut(tmp_path, known, properties, 4 * DAY, cap=5)
    items = dataset_files.read_items(tmp_path, 4 * DAY)
    assert items["category"].to_list() == [-1, 7, -1]
    assert items["available"].to_list() == [-1, 0, -1]
    assert items["price"].to_list() == [None, 12.5, None]
    assert items["carts_all"].to_list() == [0, 0, 1]
    assert items["age_days"].to_list() == [3, 2, 1]


def test_the_tree_is_written_with_the_path_of_each_category(tmp_path: Path) -> None:
    dataset_files.write_tree(tmp_path, CategoryTree(np.array([1, 5, 9], "i4"), np.array([-1, 1, 5], "i4")))
    assert storage.read_table(tmp_path / "category_tree.parquet").rows() == [
        (1, -1, [1]),
        (5, 1, [1, 5]),
        (9, 5, [1, 5, 9]),
    ]
