from pathlib import Path

import numpy as np
import pytest

from tasks import storage
from tasks.failures import BadData
from tasks.recsys.interactions import Interactions


def test_a_digest_is_of_names_and_bytes_whatever_the_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    digest = storage.files_digest([("a", one), ("b", two)])
    assert digest == storage.files_digest([("b", two), ("a", one)])
    assert digest != storage.files_digest([("a", two), ("b", one)])
    assert digest != storage.files_digest([("a", one), ("c", two)])


def test_a_changed_folder_is_refused_with_both_digests(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    file = tmp_path / "below" / "file"
    file.write_text("ten bytes!")
    digest, size = storage.folder_digest(tmp_path)
    assert size == 10
    assert storage.verify(tmp_path, digest) == tmp_path
    file.write_text("TEN bytes!")
    changed, _ = storage.folder_digest(tmp_path)
    with pytest.raises(BadData) as failure:
        storage.verify(tmp_path, digest)
    assert digest in str(failure.value) and changed in str(failure.value)


def test_interactions_come_back_sorted_by_user_time_item_and_event(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, 5, 300) for _ in range(4)]
    whole = storage.sort_interactions(*columns)
    parts = np.array_split(rng.permutation(300), 3)
    for part, rows in zip(storage.PARTS, parts, strict=True):
        storage.write_interactions(tmp_path / f"{part}.parquet", storage.sort_interactions(*(c[rows] for c in columns)))
    found = storage.read_interactions(tmp_path)
    for name in ("user", "item", "event", "time"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    expected = sorted(
        zip(*(column.tolist() for column in columns), strict=True), key=lambda r: (r[0], r[3], r[1], r[2])
    )
    assert rows_of(found) == expected


def rows_of(rows: Interactions) -> list[tuple[int, ...]]:
    return list(zip(rows.user.tolist(), rows.item.tolist(), rows.event.tolist(), rows.time.tolist(), strict=True))


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        storage.write_table(tmp_path / name, {"x": np.arange(100_000), "y": np.arange(100_000) % 7})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
