"""The adapter to files: tables in Parquet, digests of folders, writing by rename."""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tasks.failures import BadData
from tasks.recsys.interactions import Interactions, Longs

CHUNK = 1 << 20
PARTS = ("train", "validation", "test")
"""Files of a Dataset's interactions: before c1, c1–c2, c2–as_of."""


def file_digest(path: Path) -> str:
    """sha256 over a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(files: Iterable[tuple[str, Path]]) -> str:
    """sha256 over names and bytes of the files (name, path), whatever their order."""
    named = sorted(files)
    with ThreadPoolExecutor(2) as pool:
        digests = list(pool.map(file_digest, [path for _, path in named]))
    whole = hashlib.sha256()
    for (name, _), digest in zip(named, digests, strict=True):
        whole.update(f"{name}\0{digest}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def folder_digest(folder: Path) -> tuple[str, int]:
    """Digest over the names and bytes of a folder's files, and the sum of their sizes in bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    digest = files_digest((path.relative_to(folder).as_posix(), path) for path in files)
    return digest, sum(path.stat().st_size for path in files)


def verify(folder: Path, digest: str) -> Path:
    """The folder, if its content has this digest."""
    found, _ = folder_digest(folder)
    if found != digest:
        raise BadData(
            f"artifact {folder}: its files have digest {found}, its producer recorded {digest}; "
            "it was changed or cut after it was written: run the task that made it again"
        )
    return folder


def write_table(path: Path, columns: Mapping[str, Any] | pl.DataFrame) -> None:
    """Writes columns of equal length as one Parquet file: same content, same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).rechunk().write_parquet(path, compression="zstd", row_group_size=1 << 20, statistics=True)


def read_table(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Reads a Parquet file, or some of its columns."""
    return pl.read_parquet(path, columns=columns, memory_map=True)


def write_interactions(path: Path, rows: Interactions) -> None:
    """Writes interactions in their order: user, item, event, time (UTC ms)."""
    write_table(path, {"user": rows.user, "item": rows.item, "event": rows.event, "time": rows.time})


def read_interactions(dataset: Path) -> Interactions:
    """All interactions of a Dataset's folder, sorted by user, time, item, event."""
    table = pl.concat([read_table(dataset / f"{part}.parquet") for part in PARTS])
    user, item, event, time = (table[name].to_numpy() for name in ("user", "item", "event", "time"))
    return sort_interactions(user, item, event, time)


def sort_interactions(user: Any, item: Any, event: Any, time: Any) -> Interactions:
    """Interactions from columns [n] in any order."""
    order = np.lexsort((event, item, time, user))
    return Interactions(
        user[order].astype(np.int32), item[order].astype(np.int32), event[order].astype(np.int8), time[order]
    )


def read_item_ids(dataset: Path) -> Longs:
    """The encoder of items: dense id → itemid."""
    ids: Longs = read_table(dataset / "items.parquet")["itemid"].to_numpy()
    return ids
