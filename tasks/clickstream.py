"""The adapter to the shop's files: events, item properties and category tree in the Retailrocket format.

Rows are read as text and converted strictly.  `bad_rows` names those that are not in the format.
"""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import storage
from tasks.bad_rows import rows, shown, sized, unreadable
from tasks.failures import BadData

EVENT_COLUMNS = ("timestamp", "visitorid", "event", "itemid", "transactionid")
PROPERTY_COLUMNS = ("timestamp", "itemid", "property", "value")
TREE_COLUMNS = ("categoryid", "parentid")
STEMS = ("events", "item_properties", "category_tree")
"""How the files' names begin."""
MARKER = "demo.json"
"""Lies beside generated data."""
SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")
ROWS_LOST = {
    "UNQUOTED VALUE": "a quote is opened or closed in the wrong place",
    "LINE SIZE OVER MAXIMUM": "a line of more than 2 MB, expected a row",
}
"""Errors of DuckDB after which it goes on somewhere else in the file, and what they mean."""


@dataclass(frozen=True)
class Clickstream:
    """The files of one input folder.  Properties and tree may be absent."""

    folder: Path
    events: tuple[Path, ...]
    properties: tuple[Path, ...]
    tree: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All input files, in the order of their names."""
        return tuple(sorted(self.events + self.properties + self.tree))

    @property
    def is_demo(self) -> bool:
        """True for generated data: its year is fixed, so its age says nothing."""
        return (self.folder / MARKER).is_file()


def find(data: str, work: Path) -> Clickstream:
    """The files of a folder in the Retailrocket format; those behind a URL are fetched into the folder `work`."""
    folder = storage.fetch_folder(data, work / "input", _is_input) if "://" in data else Path(data)
    if not folder.is_dir():
        raise BadData(f"data folder {data} does not exist; expected a folder with events.csv (or .gz, .zst, .parquet)")

    def named(stem: str) -> tuple[Path, ...]:
        return tuple(sorted(p for p in folder.glob(f"{stem}*") if p.is_file() and p.name.endswith(SUFFIXES)))

    events, properties, tree = (named(stem) for stem in STEMS)
    if not events:
        raise BadData(
            f"no events file in {data}: expected events*.csv, plain or .gz, .zst or .parquet, "
            f"with the columns {','.join(EVENT_COLUMNS)}"
        )
    empty = [path for path in (*events, *properties, *tree) if not path.stat().st_size]
    if empty:
        raise BadData(f"{empty[0]} is empty (0 bytes): expected a header and rows; was its export cut short?")
    return Clickstream(folder, events, properties, tree)


def _is_input(name: str) -> bool:
    return name == MARKER or (name.startswith(STEMS) and name.endswith(SUFFIXES))


def scan(path: Path, columns: Sequence[str]) -> str:
    """SQL that reads a file's columns as text.  Lines that are no rows are left out; `lines_left_out` counts them."""
    file = str(path).replace("'", "''")
    if path.name.endswith(".parquet"):
        source = f"read_parquet('{file}')"
    else:
        types = ", ".join(f"'{name}': 'VARCHAR'" for name in columns)
        source = (
            f"read_csv('{file}', auto_detect=false, header=true, delim=',', quote='\"', escape='\"', "
            f"columns={{{types}}}, ignore_errors=true, store_rejects=true)"
        )
    return f"SELECT {', '.join(f'{name}::VARCHAR AS {name}' for name in columns)} FROM {source}"


def lines_left_out(db: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Lines that the last scan left out: too few or too many fields, or no UTF-8.

    Fails on a quote that is never closed and on an endless line: nobody knows how many rows went with it.
    """
    try:
        found = db.execute(
            "SELECT line_byte_position, min(line), min(error_type::VARCHAR) FROM reject_errors GROUP BY ALL ORDER BY 1"
        ).fetchall()
    except duckdb.CatalogException:  # a Parquet file has no lines
        return 0
    db.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    for _, line, kind in found:
        if kind in ROWS_LOST:
            raise BadData(f"{path}:{line}: {ROWS_LOST[kind]}; correct the row, or export the file again")
    return len(found)


def check(path: Path, columns: Sequence[str]) -> None:
    """Fails unless a compressed file is whole and the file has exactly these columns, in this order."""
    if path.name.endswith(".gz"):
        _check_gzip(path)
    if path.name.endswith(".parquet"):
        try:
            found = pq.read_schema(path).names
        except pa.ArrowException as error:
            raise BadData(
                f"{sized(path)} is no Parquet file ({error}); expected a whole one: export it again"
            ) from None
    else:
        found = [shown(name) for _, row in islice(rows(path), 1) for name in row]
    if found != list(columns):
        missing, extra = [c for c in columns if c not in found], [c for c in found if c not in columns]
        raise BadData(
            f"{path}: its columns are {','.join(found)}; missing: {','.join(missing) or 'none'}, "
            f"unexpected: {','.join(extra) or 'none'}; expected exactly {','.join(columns)}"
        )


def _check_gzip(path: Path) -> None:
    """Fails unless the archive is whole and its checksum is right, which DuckDB does not look at."""
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadData(
            f"{sized(path)} is truncated, damaged or no gzip archive ({error}); expected a whole one: export it again"
        ) from None


def run(db: duckdb.DuckDBPyConnection, path: Path, query: str) -> list[tuple]:  # type: ignore[type-arg]
    """Runs a query on one file; what the file has wrong becomes a message for a person."""
    try:
        return db.execute(query).fetchall()
    except duckdb.Error as error:
        raise BadData(unreadable(path, str(error))) from None


def whole(field: str) -> str:
    """SQL: a text as a whole number, NULL unless it is written as plain digits (so no 1.4E+12)."""
    return f"CASE WHEN TRY_CAST({field} AS BIGINT)::VARCHAR = {field} THEN TRY_CAST({field} AS BIGINT) END"
