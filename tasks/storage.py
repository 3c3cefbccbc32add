"""The adapter to files: tables in Parquet, digests of folders, writing by rename."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import polars as pl

from tasks.failures import BadConfig, BadData, Unavailable

CHUNK = 1 << 20
SHARD_ROWS = 8_000_000
"""Rows of a shard of a long table: 64–128 MB of interactions."""


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


def write_shards(folder: Path, columns: Mapping[str, Any] | pl.DataFrame, rows: int = SHARD_ROWS) -> None:
    """Writes a long table as Parquet files of at most `rows` rows, in their order."""
    table = pl.DataFrame(columns)
    for number, start in enumerate(range(0, max(table.height, 1), rows)):
        write_table(folder / f"{number:05}.parquet", table[start : start + rows])


def read_table(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Reads a Parquet file or a folder of shards, or some of their columns."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return pl.concat([pl.read_parquet(file, columns=columns, memory_map=True) for file in files])


def fetch_folder(url: str, into: Path, wanted: Callable[[str], bool]) -> Path:
    """Copies the wanted files, by name, of a folder in object storage (s3://…, any URL that fsspec knows)."""
    try:
        files, root = fsspec.core.url_to_fs(url)
        names = [path for path in files.ls(root, detail=False) if wanted(path.rsplit("/", 1)[-1])]
        into.mkdir()
        for name in names:
            files.get_file(name, str(into / name.rsplit("/", 1)[-1]))
    except (ImportError, ValueError) as error:
        raise BadConfig(f"data = {url}: {error}; expected a folder or a URL like s3://bucket/folder") from None
    except FileNotFoundError:
        raise BadData(f"data = {url}: there is no such folder; expected one with events*.csv") from None
    except PermissionError as error:
        raise BadConfig(f"data = {url}: {error}; set credentials that may list and read it") from None
    except OSError as error:
        raise Unavailable(f"data = {url}: {error}; is the address right, does it answer?") from error
    return into
