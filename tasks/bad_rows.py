"""Names the rows of the shop's files that are not in the format: file, line, field, value, what was expected.

A slow second reading, row by row, done only when the fast one has counted something wrong.
"""

import csv
import io
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.failures import BadData
from tasks.recsys.interactions import DAY, EVENTS

EARLIEST, LATEST = 946_684_800_000, int(time.time() * 1000) + DAY
"""2000-01-01 and tomorrow, UTC ms: an instant outside is no event of a shop."""
WHOLE_NUMBER = "a whole number, 0 or more, as plain digits"
DIGITS = re.compile("0|[1-9][0-9]{0,18}")
SURROGATES = re.compile("[\ud800-\udfff]")
"""What bytes that are no UTF-8 are read as."""


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


def problems(path: Path, columns: Sequence[str], ids_before: int = 0) -> Iterator[Problem]:
    """The rows of a file that are not in the format, with their lines (of Parquet: their rows).

    `ids_before`: instant, UTC ms, before which a transaction needs its transactionid.
    """
    found = _parquet_rows(path) if path.name.endswith(".parquet") else islice(rows(path), 1, None)
    for line, row in found:
        problem = _problem(path, line, row, columns) or _without_id(path, line, row, columns, ids_before)
        if problem:
            yield problem


def line_of(path: Path, columns: Sequence[str], wanted: Mapping[str, str]) -> int:
    """Line of the first row of a file with these values; 0 when there is none."""
    at = {columns.index(field): value for field, value in wanted.items()}
    for line, row in _parquet_rows(path) if path.name.endswith(".parquet") else rows(path):
        if len(row) == len(columns) and all(row[column] == value for column, value in at.items()):
            return line
    return 0


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
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
        raise BadData(unreadable(path, str(error))) from None
    except csv.Error as error:
        raise BadData(f"{path}:{reader.line_num}: {error}; expected comma-separated rows") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    with pq.ParquetFile(path) as file:
        found = (row for batch in file.iter_batches() for row in zip(*batch.to_pydict().values(), strict=True))
        for number, row in enumerate(found, 1):
            yield number, ["" if value is None else str(value) for value in row]


def _problem(path: Path, line: int, row: list[str], columns: Sequence[str]) -> Problem | None:
    """Names the first bad field of a row; None for a good row."""
    if len(row) != len(columns):
        return Problem(path.name, line, "row", shown(",".join(row)), f"{len(columns)} fields, it has {len(row)}")
    values = dict(zip(columns, row, strict=True))
    for field, value in values.items():
        if expected := _expectation(field, value, values.get("property", "")):
            return Problem(path.name, line, field, shown(value), expected)
    return None


def _without_id(path: Path, line: int, row: list[str], columns: Sequence[str], before: int) -> Problem | None:
    """Names a transaction without an id, where others have one."""
    values = dict(zip(columns, row, strict=True))
    if values.get("event") != "transaction" or values["transactionid"] or int(values["timestamp"]) >= before:
        return None
    return Problem(path.name, line, "transactionid", "", "the transaction's id, as other transactions have one")


def _expectation(field: str, value: str, kind: str) -> str:
    """What a field should be, if it is something else; empty if it is right.  `kind`: the property of a value."""
    if SURROGATES.search(value):
        return "text in UTF-8"
    if field == "event":
        return "" if value in EVENTS else f"one of {', '.join(EVENTS)}"
    if field == "timestamp":
        return "" if DIGITS.fullmatch(value) and EARLIEST <= int(value) < LATEST else guess(value)
    if field == "value" and kind == "available":
        return "" if value in ("0", "1") else "0 or 1, whether the item is available"
    number = field in ("visitorid", "itemid", "categoryid") or (field == "parentid" and value)
    if number or (field == "value" and kind == "categoryid"):
        right = DIGITS.fullmatch(value) and int(value) < (1 << 31 if field in ("value", "categoryid") else 1 << 63)
        return "" if right else WHOLE_NUMBER
    return ""


def shown(value: str) -> str:
    """A text as a message may carry it: not too long, in one line, foreign bytes as escapes."""
    text = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    return text if len(text) <= 100 else text[:99] + "…"


def sized(path: Path) -> str:
    """A file's path with its size, for a message."""
    return f"{path} ({path.stat().st_size:,} bytes)"


def unreadable(path: Path, message: str) -> str:
    """What a file that could not be read to its end has wrong."""
    if path.name.endswith(".zst"):
        return f"{sized(path)} is truncated, damaged or no zstd archive; expected a whole one: export it again"
    return f"{sized(path)}: cannot be read ({message.splitlines()[0]}); expected comma-separated rows in UTF-8"


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
