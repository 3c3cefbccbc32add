from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tasks import storage
from tasks.failures import BadData


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


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        storage.write_table(tmp_path / name, {"x": np.arange(100_000), "y": np.arange(100_000) % 7})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_long_table_is_written_in_shards_and_read_as_one(tmp_path: Path) -> None:
    table = pl.DataFrame({"x": np.arange(25)})
    storage.write_shards(tmp_path / "long", table, rows=10)
    storage.write_shards(tmp_path / "empty", table[:0])
    assert [pl.read_parquet(file).height for file in sorted((tmp_path / "long").iterdir())] == [10, 10, 5]
    assert storage.read_table(tmp_path / "long").equals(table)
    assert storage.read_table(tmp_path / "empty").equals(table[:0])
