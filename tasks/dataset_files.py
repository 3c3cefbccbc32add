"""The adapter to a Dataset's files: interactions in three parts, encoders, the category tree, and one folder a cut.

    train/ validation/ test/     interactions before c1, c1–c2, c2–as_of: user, item, event, time
    users.parquet items.parquet  encoders: row number = dense id, visitorid or itemid
    category_tree.parquet        category, parent (−1: root), path from the root
    cuts/<cut>/histories/        user; item, event and time of the newest interactions, oldest first
    cuts/<cut>/users/            what the interactions before the cut say of each user
    cuts/<cut>/items.parquet     what they and the properties say of each item, with the path of its category

Nothing in a cut's folder, and nothing of an encoder's first rows, depends on what came at or after the cut.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import storage
from tasks.recsys import statistics
from tasks.recsys.category_tree import CategoryTree
from tasks.recsys.interactions import Bytes, Histories, Interactions, Ints, Longs, histories, sort_interactions

PARTS = ("train", "validation", "test")
"""Folders of the interactions: before c1, c1–c2, c2–as_of."""
HISTORY_ROWS = 4_000_000
"""Users of a shard of histories."""


def write_interactions(folder: Path, rows: Interactions, cuts: tuple[int, int]) -> None:
    """Writes the three parts, each sorted by user, time, item, event."""
    bounds = (None, *cuts, None)
    for part, start, end in zip(PARTS, bounds[:-1], bounds[1:], strict=True):
        found = rows.between(start, end)
        columns = {"user": found.user, "item": found.item, "event": found.event, "time": found.time}
        storage.write_shards(folder / part, columns)


def read_interactions(folder: Path) -> Interactions:
    """All interactions, sorted by user, time, item, event."""
    table = pl.concat([storage.read_table(folder / part) for part in PARTS])
    return sort_interactions(*(table[name].to_numpy() for name in ("user", "item", "event", "time")))


def write_encoders(folder: Path, users: Longs, items: Longs) -> None:
    """Writes the ids of users and items, in the order of their dense ids."""
    storage.write_table(folder / "users.parquet", {"visitorid": users})
    storage.write_table(folder / "items.parquet", {"itemid": items})


def read_item_ids(folder: Path) -> Longs:
    """The encoder of items: dense id → itemid."""
    ids: Longs = storage.read_table(folder / "items.parquet")["itemid"].to_numpy()
    return ids


def read_user_ids(folder: Path) -> Longs:
    """The encoder of users: dense id → visitorid."""
    ids: Longs = storage.read_table(folder / "users.parquet")["visitorid"].to_numpy()
    return ids


def write_tree(folder: Path, tree: CategoryTree) -> pl.DataFrame:
    """Writes the categories with their parents and their paths; returns what it wrote."""
    offsets, path = tree.paths()
    paths = pa.ListArray.from_arrays(offsets.astype(np.int32), path)
    table = pl.DataFrame({"category": tree.category, "parent": tree.parent, "path": pl.Series(paths)})
    storage.write_table(folder / "category_tree.parquet", table)
    return table


def write_cut(folder: Path, rows: Interactions, properties: pl.DataFrame, cut: int, cap: int) -> None:
    """Writes what is known as of a cut: histories of at most `cap` interactions, users, items.

    properties: the items that have any, by id.
    """
    out = folder / "cuts" / str(cut)
    write_histories(out / "histories", histories(rows, cut, cap))
    storage.write_shards(out / "users", statistics.user_statistics(rows, cut))
    items = pl.DataFrame(statistics.item_statistics(rows, cut)).join(
        properties, on="item", how="left", maintain_order="left"
    )
    known = items.with_columns(pl.col("category", "available").fill_null(-1))
    storage.write_table(out / "items.parquet", known)


def read_items(folder: Path, cut: int, columns: list[str] | None = None) -> pl.DataFrame:
    """What is known of the items as of a cut, one row an item, in the order of their ids."""
    return storage.read_table(folder / "cuts" / str(cut) / "items.parquet", columns)


def read_unavailable(folder: Path, cut: int) -> npt.NDArray[np.bool_]:
    """Which items [items] are known to be unavailable as of a cut."""
    unavailable: npt.NDArray[np.bool_] = read_items(folder, cut, ["available"])["available"].to_numpy() == 0
    return unavailable


def write_histories(folder: Path, found: Histories) -> None:
    """Writes histories, a row a user."""
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, max(len(found), 1), HISTORY_ROWS)):
        part = found.take(np.arange(start, min(start + HISTORY_ROWS, len(found))))
        offsets = pa.array(part.start.astype(np.int32))
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(getattr(part, name))) for name in _COLUMNS}
        table = pa.table({"user": part.user, **lists})
        pq.write_table(table, folder / f"{number:05}.parquet", compression="zstd", use_dictionary=False)


_COLUMNS = ("item", "event", "time")


def read_histories(folder: Path, cut: int, users: Ints | None = None) -> Histories:
    """Each user's newest interactions before a cut, oldest first; only of `users` (ascending), where given."""
    files = sorted((folder / "cuts" / str(cut) / "histories").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()
    lists = {name: table[name].combine_chunks() for name in _COLUMNS}
    start: Longs = lists["item"].offsets.to_numpy().astype(np.int64)
    item: Ints = lists["item"].values.to_numpy()
    event: Bytes = lists["event"].values.to_numpy()
    found = Histories(table["user"].to_numpy(), start, item, event, lists["time"].values.to_numpy())
    return found if users is None else found.take(np.flatnonzero(np.isin(found.user, users)))
