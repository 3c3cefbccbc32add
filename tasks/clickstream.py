"""The adapter to the shop's files: events, item properties and category tree in the Retailrocket format.

Rows are read as text and converted strictly.  The fast path counts what is wrong; only if something is, the files are
read again with line numbers, to name the file, the line, the field and the value.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tasks.failures import BadData

EVENT_COLUMNS = ("timestamp", "visitorid", "event", "itemid", "transactionid")
PROPERTY_COLUMNS = ("timestamp", "itemid", "property", "value")
TREE_COLUMNS = ("categoryid", "parentid")
SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")
EXAMPLES = 5
"""Bad rows that a message names."""

EARLIEST, LATEST = 946_684_800_000, 4_102_444_800_000
"""2000-01-01 and 2100-01-01, UTC ms: an instant outside is no event of a shop."""


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
        return (self.folder / "demo.json").is_file()


@dataclass(frozen=True)
class Problem:
    """One row that is not in the format."""

    file: str
    line: int
    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field} = {self.value!r}, expected {self.expected}"


def find(data: str) -> Clickstream:
    """The files of a folder in the Retailrocket format."""
    folder = Path(data)
    if not folder.is_dir():
        raise BadData(f"data folder {data} does not exist; expected a folder with events.csv (or .gz, .zst, .parquet)")

    def named(stem: str) -> tuple[Path, ...]:
        return tuple(sorted(p for p in folder.glob(f"{stem}*") if p.is_file() and p.name.endswith(SUFFIXES)))

    events = named("events")
    if not events:
        raise BadData(
            f"no events file in {data}: expected events*.csv, plain or .gz, .zst or .parquet, "
            f"with the columns {','.join(EVENT_COLUMNS)}"
        )
    empty = [path for path in (*events, *named("item_properties"), *named("category_tree")) if not path.stat().st_size]
    if empty:
        raise BadData(f"{empty[0]} is empty (0 bytes): expected a header and rows; was its export cut short?")
    return Clickstream(folder, events, named("item_properties"), named("category_tree"))


def scan(path: Path, columns: Sequence[str], numbered: bool = False) -> str:
    """SQL that reads a file's columns as text, with line numbers if asked."""
    file = str(path).replace("'", "''")
    if path.name.endswith(".parquet"):
        source = f"read_parquet('{file}')"
    else:
        types = ", ".join(f"'{name}': 'VARCHAR'" for name in columns)
        source = (
            f"read_csv('{file}', auto_detect=false, header=true, delim=',', quote='\"', escape='\"', "
            f"columns={{{types}}})"
        )
    line = "row_number() OVER () + 1 AS line, " if numbered else ""
    return f"SELECT {line}{', '.join(f'{name}::VARCHAR AS {name}' for name in columns)} FROM {source}"


def check_header(db: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[str]) -> None:
    """Fails unless the file has exactly these columns, in this order."""
    file = str(path).replace("'", "''")
    if path.name.endswith(".parquet"):
        query = f"SELECT name FROM parquet_schema('{file}') WHERE num_children IS NULL"
        found = [row[0] for row in run(db, path, query)]
    else:
        # No byte of a text file is NUL: the whole first line is one field.
        source = f"read_csv('{file}', auto_detect=false, header=false, delim='\\0', columns={{'line': 'VARCHAR'}})"
        lines = run(db, path, f"SELECT line FROM {source} LIMIT 1")
        found = lines[0][0].lstrip("\ufeff").split(",") if lines else []
    if found != list(columns):
        missing, extra = [c for c in columns if c not in found], [c for c in found if c not in columns]
        raise BadData(
            f"{path}: its columns are {','.join(found)}; missing: {','.join(missing) or 'none'}, "
            f"unexpected: {','.join(extra) or 'none'}; expected exactly {','.join(columns)}"
        )


def run(db: duckdb.DuckDBPyConnection, path: Path, query: str) -> list[tuple]:  # type: ignore[type-arg]
    """Runs a query on one file; what the file has wrong becomes a message for a person."""
    try:
        return db.execute(query).fetchall()
    except duckdb.Error as error:
        raise BadData(_translate(path, str(error))) from None


def _translate(path: Path, message: str) -> str:
    size = f"{path} ({path.stat().st_size:,} bytes)"
    if "GZIP" in message or "gzip" in message.lower() or "ZSTD" in message.upper():
        return f"{size} is truncated or not compressed as its name says; expected a whole archive: export it again"
    line = re.search(r"CSV Error on Line: (\d+)", message)
    columns = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    if line and columns:
        return (
            f"{path}:{line[1]}: the row has {columns[2]} fields, expected {columns[1]}; "
            "correct or remove the row, or export the file again"
        )
    where = f"{path}:{line[1]}" if line else size
    return f"{where}: cannot be read as CSV ({message.splitlines()[0]}); expected comma-separated rows in UTF-8"


def whole(field: str) -> str:
    """SQL: a text as a whole number, NULL unless it is written as plain digits (so no 1.4E+12)."""
    return f"CASE WHEN TRY_CAST({field} AS BIGINT)::VARCHAR = {field} THEN TRY_CAST({field} AS BIGINT) END"


def guess(value: str) -> str:
    """What a bad timestamp looks like, for the message."""
    if re.fullmatch(r"\d(\.\d+)?E\+?\d+", value, re.IGNORECASE):
        return "milliseconds as plain digits (looks like a number that went through a spreadsheet)"
    if re.fullmatch(r"\d{9,10}(\.\d+)?", value):
        return "milliseconds (looks like seconds: multiply by 1000)"
    return "UTC milliseconds between 2000 and 2100, 13 digits"
