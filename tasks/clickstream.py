"""The adapter to the shop's files: events, item properties and category tree in the Retailrocket format.

Rows are read as text and converted strictly.  The fast path counts what is wrong; only if something is, the file is
read again row by row, to name the file, the line, the field and the value.
"""

import csv
import gzip
import io
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.failures import BadData
from tasks.recsys.interactions import DAY, EVENTS

EVENT_COLUMNS = ("timestamp", "visitorid", "event", "itemid", "transactionid")
PROPERTY_COLUMNS = ("timestamp", "itemid", "property", "value")
TREE_COLUMNS = ("categoryid", "parentid")
SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")
EXAMPLES = 5
"""Bad rows that a message names."""

ROWS_LOST = {
    "UNQUOTED VALUE": "a quote is opened or closed in the wrong place",
    "LINE SIZE OVER MAXIMUM": "a line of more than 2 MB, expected a row",
}
"""Errors of DuckDB after which it goes on somewhere else in the file, and what they mean."""

EARLIEST, LATEST = 946_684_800_000, int(time.time() * 1000) + DAY
"""2000-01-01 and tomorrow, UTC ms: an instant outside is no event of a shop."""
DIGITS = re.compile("0|[1-9][0-9]{0,18}")
SURROGATES = re.compile("[\ud800-\udfff]")
"""What bytes that are no UTF-8 are read as."""


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
        return f"{self.file}:{self.line}: {self.field} = '{self.value}', expected {self.expected}"


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
                f"{_sized(path)} is no Parquet file ({error}); expected a whole one: export it again"
            ) from None
    else:
        found = [_shown(name) for _, row in islice(_rows(path), 1) for name in row]
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
            f"{_sized(path)} is truncated, damaged or no gzip archive ({error}); expected a whole one: export it again"
        ) from None


def run(db: duckdb.DuckDBPyConnection, path: Path, query: str) -> list[tuple]:  # type: ignore[type-arg]
    """Runs a query on one file; what the file has wrong becomes a message for a person."""
    try:
        return db.execute(query).fetchall()
    except duckdb.Error as error:
        raise BadData(_translate(path, str(error))) from None


def problems(path: Path, columns: Sequence[str]) -> list[Problem]:
    """The first rows of a file that are not in the format, with their lines (of Parquet: their rows)."""
    rows = _parquet_rows(path) if path.name.endswith(".parquet") else islice(_rows(path), 1, None)
    found = (_problem(path, line, row, columns) for line, row in rows)
    return list(islice((problem for problem in found if problem), EXAMPLES))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row of a CSV file, its header too."""
    try:
        with (
            pa.input_stream(str(path), compression="detect") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
        ):
            reader = csv.reader(text)
            starts = 1
            for row in reader:
                if row:
                    yield starts, row
                starts = reader.line_num + 1
    except OSError as error:
        raise BadData(_translate(path, str(error))) from None
    except csv.Error as error:
        raise BadData(f"{path}:{reader.line_num}: {error}; expected comma-separated rows") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    with pq.ParquetFile(path) as file:
        rows = (row for batch in file.iter_batches() for row in zip(*batch.to_pydict().values(), strict=True))
        for number, row in enumerate(rows, 1):
            yield number, ["" if value is None else str(value) for value in row]


def _problem(path: Path, line: int, row: list[str], columns: Sequence[str]) -> Problem | None:
    """Names the first bad field of a row; None for a good row."""
    if len(row) != len(columns):
        return Problem(path.name, line, "row", _shown(",".join(row)), f"{len(columns)} fields, it has {len(row)}")
    for field, value in zip(columns, row, strict=True):
        if expected := _expectation(field, value):
            return Problem(path.name, line, field, _shown(value), expected)
    return None


def _expectation(field: str, value: str) -> str:
    """What a field should be, if it is something else; empty if it is right."""
    if SURROGATES.search(value):
        return "text in UTF-8"
    if field == "event":
        return "" if value in EVENTS else f"one of {', '.join(EVENTS)}"
    if field == "timestamp":
        return "" if DIGITS.fullmatch(value) and EARLIEST <= int(value) < LATEST else guess(value)
    if field in ("visitorid", "itemid", "categoryid") or (field == "parentid" and value):
        right = DIGITS.fullmatch(value) and int(value) < 1 << 63
        return "" if right else "a whole number, 0 or more, as plain digits"
    return ""


def _shown(value: str) -> str:
    """A text as a message may carry it: not too long, in one line, foreign bytes as escapes."""
    text = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    return text if len(text) <= 100 else text[:99] + "…"


def _sized(path: Path) -> str:
    return f"{path} ({path.stat().st_size:,} bytes)"


def _translate(path: Path, message: str) -> str:
    if path.name.endswith(".zst"):
        return f"{_sized(path)} is truncated, damaged or no zstd archive; expected a whole one: export it again"
    return f"{_sized(path)}: cannot be read ({message.splitlines()[0]}); expected comma-separated rows in UTF-8"


def whole(field: str) -> str:
    """SQL: a text as a whole number, NULL unless it is written as plain digits (so no 1.4E+12)."""
    return f"CASE WHEN TRY_CAST({field} AS BIGINT)::VARCHAR = {field} THEN TRY_CAST({field} AS BIGINT) END"


def guess(value: str) -> str:
    """What a timestamp should be, and what a bad one looks like."""
    if re.fullmatch(r"\d(\.\d+)?E\+?\d+", value, re.IGNORECASE):
        return "milliseconds as plain digits (looks like a number that went through a spreadsheet)"
    if re.fullmatch(r"\d{9,10}(\.\d+)?", value):
        return "milliseconds (looks like seconds: multiply by 1000)"
    if re.fullmatch(r"\d{16}", value):
        return "milliseconds (looks like microseconds: divide by 1000)"
    if re.fullmatch(r"[1-9]\d{12}", value):
        year = datetime.fromtimestamp(int(value) / 1000, UTC).year
        return f"an instant of the past (this one is of the year {year}, still to come: is a clock wrong?)"
    return "UTC milliseconds since 1970 in plain digits, from the year 2000 on"
