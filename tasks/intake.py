"""The adapter to DuckDB: takes the shop's files in, counts every row, and tells what was known as of each cut.

All tables lie in a file of the task's own folder, so that memory stays bounded whatever the size of the input.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from tasks import bad_rows, clickstream
from tasks.bad_rows import EARLIEST, LATEST, Problem
from tasks.clickstream import EVENT_COLUMNS, PROPERTY_COLUMNS, Clickstream, whole
from tasks.failures import BadData
from tasks.recsys import splits
from tasks.recsys.interactions import DAY, EVENTS, TRANSACTION, Interactions, Longs, sort_interactions

log = logging.getLogger(__name__)

CATEGORY, AVAILABLE, PRICE = "categoryid", "available", "790"
KNOWN_PROPERTIES = (CATEGORY, AVAILABLE, PRICE)
"""Properties whose meaning is known; the values of all others are hashed words."""
OUTCOMES = ("read", "kept", "duplicates", "rejected", "later")
"""read = kept + duplicates + rejected + later; later: at or after as_of, so that it does not exist for the night."""
LISTED = 100_000
"""Rejected rows of a file that are named one by one, at most."""
STRAY = 0.001
"""Share of the events that a wrong clock may have made: more are no accident."""
MEMORY = "480MB"
"""What DuckDB may hold; it goes on in the task's folder."""

Database = duckdb.DuckDBPyConnection


@dataclass
class Reading:
    """What became of every row of one kind of file."""

    kind: str
    columns: Sequence[str]
    files: Sequence[Path]
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(file name, event type, outcome) → rows"""
    ids_before: int = 0
    """instant, UTC ms, before which a transaction needs its id"""

    def add(self, path: Path, event: str, outcome: str, rows: int) -> None:
        """Counts rows."""
        self.counts[path.name, event, outcome] += rows

    def rows(self, outcome: str) -> int:
        """Rows of an outcome."""
        return sum(rows for (_, _, one), rows in self.counts.items() if one == outcome)

    def problems(self) -> Iterator[Problem]:
        """The rejected rows, named; file by file."""
        bad = {file for (file, _, outcome), rows in self.counts.items() if outcome == "rejected" and rows}
        for path in self.files:
            if path.name in bad:
                yield from islice(bad_rows.problems(path, self.columns, self.ids_before), LISTED)

    def refuse(self, allowed: float) -> None:
        """Fails when more than the allowed share of the rows are bad."""
        rejected, read = self.rows("rejected"), self.rows("read")
        if rejected > allowed * read:
            first = next(self.problems(), None) or f"{self.files[0].name}: a row that cannot be read"
            raise BadData(
                f"{first} ({rejected:,} of {read:,} {self.kind} rows are bad, {rejected / read:.2%}, allowed "
                f"{allowed:.2%}; correct them, or raise max_rejected_share)"
            )


@contextmanager
def opened(folder: Path) -> Iterator[Database]:
    """A database of its own in the folder, gone afterwards."""
    file = folder / "intake.duckdb"
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(folder),
        "preserve_insertion_order": False,
    }
    with duckdb.connect(str(file), config=settings) as db:
        db.execute("PRAGMA force_compression = 'uncompressed'")  # compressing takes longer than all that is asked of it
        yield db
    file.unlink()


def read_events(db: Database, source: Clickstream) -> Reading:
    """Loads the events into the table `events`; rows that are not in the format are marked there, and counted."""
    db.execute(
        "CREATE TABLE events (file SMALLINT, ts BIGINT, visitor BIGINT, event TINYINT, item BIGINT, "
        "transaction VARCHAR, ok BOOLEAN)"
    )
    names = ", ".join(f"'{name}'" for name in EVENTS)
    fields = (
        f"{whole('timestamp')} AS ts, {whole('visitorid')} AS visitor, (list_position([{names}], event) - 1)::TINYINT "
        f"AS event, {whole('itemid')} AS item, coalesce(transactionid, '') AS transaction"
    )
    ok = f"ts >= {EARLIEST} AND ts < {LATEST} AND visitor >= 0 AND item >= 0 AND event IS NOT NULL"
    reading = Reading("event", EVENT_COLUMNS, source.events)
    for number, path in enumerate(source.events):
        clickstream.check(path, EVENT_COLUMNS)
        scan = clickstream.scan(path, EVENT_COLUMNS)
        read = f"SELECT {number}, *, ({ok}) IS TRUE FROM (SELECT {fields} FROM ({scan}))"
        clickstream.run(db, path, f"INSERT INTO events {read}")
        if not _count_file(db, reading, path, number):
            raise BadData(f"{path} has a header and no rows: expected events; was its export cut short?")
    return reading


def read_properties(db: Database, source: Clickstream, as_of: int) -> Reading:
    """Loads the properties into the table `properties`; absent files leave it empty, and that is said."""
    db.execute(
        "CREATE TABLE properties (file SMALLINT, ts BIGINT, itemid BIGINT, property VARCHAR, value VARCHAR, ok BOOLEAN)"
    )
    if not source.properties:
        log.info(
            "no item_properties*.csv in %s: features of category, price and availability are left out", source.folder
        )
    fields = f"{whole('timestamp')} AS ts, {whole('itemid')} AS itemid, property, value"
    ok = (
        f"ts >= {EARLIEST} AND ts < {LATEST} AND itemid >= 0 AND CASE property "
        f"WHEN '{AVAILABLE}' THEN value IN ('0', '1') "
        f"WHEN '{CATEGORY}' THEN {whole('value')} BETWEEN 0 AND {(1 << 31) - 1} ELSE true END"
    )
    reading = Reading("property", PROPERTY_COLUMNS, source.properties)
    for number, path in enumerate(source.properties):
        clickstream.check(path, PROPERTY_COLUMNS)
        scan = clickstream.scan(path, PROPERTY_COLUMNS)
        read = f"SELECT {number}, *, ({ok}) IS TRUE FROM (SELECT {fields} FROM ({scan}))"
        clickstream.run(db, path, f"INSERT INTO properties {read}")
        _count_file(db, reading, path, number)
        later, kept = _row(
            db,
            "SELECT count(*) FILTER (ts >= ?), count(*) FILTER (ts < ?) FROM properties WHERE ok AND file = ?",
            [as_of, as_of, number],
        )
        reading.add(path, "", "later", later)
        reading.add(path, "", "kept", kept)
    return reading


def _count_file(db: Database, reading: Reading, path: Path, number: int) -> int:
    """Counts the rows that a file has, and those of them that are bad."""
    counts = [(None, left_out := clickstream.lines_left_out(db, path), left_out)]
    table, event = ("events", "event") if reading.columns is EVENT_COLUMNS else ("properties", "NULL")
    query = f"SELECT {event}, count(*), count(*) FILTER (NOT ok) FROM {table} WHERE file = ? GROUP BY 1"
    for code, read, rejected in [*counts, *db.execute(query, [number]).fetchall()]:
        name = "" if code is None else EVENTS[code]
        reading.add(path, name, "read", read)
        reading.add(path, name, "rejected", rejected)
    rows = sum(rows for (file, _, outcome), rows in reading.counts.items() if (file, outcome) == (path.name, "read"))
    log.info("read %s: %d rows", path.name, rows)
    return rows


def newest_event(db: Database) -> int:
    """Instant of the newest event, UTC ms."""
    (newest,) = _row(db, "SELECT max(ts) FROM events WHERE ok")
    if newest is None:
        raise BadData("no readable event row in the input: expected at least a few hundred")
    return newest


def span(db: Database, as_of: int) -> tuple[int, int | None]:
    """Instants of the oldest event and of the newest one before as_of, UTC ms."""
    oldest, newest = _row(db, "SELECT min(ts), max(ts) FILTER (ts < ?) FROM events WHERE ok", [as_of])
    return oldest, newest


def stray_end(db: Database, reading: Reading, as_of: int, gap: int) -> tuple[Path, int, int] | None:
    """Whether the newest events before as_of are a handful (0.1 %) that lie a gap (ms) after all others.

    Returns the file and the instant of the first of them, and the instant where the others end.
    """
    query = "SELECT min(ts), max(ts), count(*) FROM events WHERE ok AND ts < ? GROUP BY ts // ? ORDER BY 1"
    days = np.array(db.execute(query, [as_of, DAY]).fetchall(), dtype=np.int64).reshape(-1, 3)
    first, last, rows = days.T
    after = rows[::-1].cumsum()[::-1][1:]
    stray = np.flatnonzero((first[1:] - last[:-1] > gap) & (after <= STRAY * rows.sum()))
    if not len(stray):
        return None
    instant = int(first[1:][stray[0]])
    (number,) = _row(db, "SELECT min(file) FROM events WHERE ok AND ts = ?", [instant])
    return reading.files[number], instant, int(last[stray[0]])


def reject_without_id(db: Database, reading: Reading, as_of: int) -> None:
    """Marks transactions without an id before as_of as bad, where others have one."""
    where = f"ok AND ts < {as_of} AND event = {TRANSACTION}"
    with_id, without = _row(
        db, f"SELECT count(*) FILTER (transaction <> ''), count(*) FILTER (transaction = '') FROM events WHERE {where}"
    )
    if not with_id or not without:
        return
    missing = f"{where} AND transaction = ''"
    for number, rows in db.execute(f"SELECT file, count(*) FROM events WHERE {missing} GROUP BY 1").fetchall():
        reading.add(reading.files[number], EVENTS[TRANSACTION], "rejected", rows)
    db.execute(f"UPDATE events SET ok = false WHERE {missing}")
    reading.ids_before = as_of


def keep_distinct(db: Database, reading: Reading, as_of: int) -> None:
    """Makes `kept` of the good events before as_of, without exact duplicates: the first file's row stays."""
    db.execute(
        f"""CREATE TABLE kept AS SELECT ts, visitor, event, item, transaction, min(file) AS file
        FROM events WHERE ok AND ts < {as_of} GROUP BY ts, visitor, event, item, transaction"""
    )
    kept = dict(_by_file(db, "SELECT file, event, count(*) FROM kept GROUP BY 1, 2"))
    good = f"SELECT file, event, count(*) FILTER (ts < {as_of}), count(*) FROM events WHERE ok GROUP BY 1, 2"
    for number, event, before, rows in db.execute(good).fetchall():
        path, name = reading.files[number], EVENTS[event]
        reading.add(path, name, "later", rows - before)
        reading.add(path, name, "kept", kept.get((number, event), 0))
        reading.add(path, name, "duplicates", before - kept.get((number, event), 0))
    db.execute("DROP TABLE events")


def _by_file(db: Database, query: str) -> Iterator[tuple[tuple[int, int], int]]:
    return (((file, event), rows) for file, event, rows in db.execute(query).fetchall())


def daily(db: Database, as_of: int, days: int) -> Longs:
    """[days with data, event types]: events of the 24 hours before as_of, then of the 24 before these, and so on."""
    query = f"SELECT ({as_of} - 1 - ts) // {DAY} AS back, event, count(*) FROM kept WHERE back < {days} GROUP BY 1, 2"
    rows = np.array(db.execute(query).fetchall(), dtype=np.int64).reshape(-1, 3)
    table = np.zeros((days, len(EVENTS)), dtype=np.int64)
    table[rows[:, 0], rows[:, 1]] = rows[:, 2]
    (oldest,) = _row(db, "SELECT min(ts) FROM kept")
    return table[: (as_of - oldest) // DAY]  # a day that the data do not cover whole is none to compare with


def encode(db: Database) -> tuple[Interactions, Longs, Longs, Longs]:
    """Interactions with dense ids, the encoders of users and items, and all instants in order."""
    columns = db.execute(
        "SELECT ts, visitor, event, item FROM kept ORDER BY ts, visitor, item, event, transaction"
    ).fetchnumpy()
    db.execute("DROP TABLE kept")
    user, users = splits.dense_ids(np.asarray(columns.pop("visitor")))
    item, items = splits.dense_ids(np.asarray(columns.pop("item")))
    time = np.asarray(columns["ts"])
    return sort_interactions(user, item, np.asarray(columns["event"]), time), users, items, time


def reconciliation(readings: Sequence[Reading]) -> pl.DataFrame:
    """file, event, and the rows of each outcome; the event is empty where a row has none that can be read."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for reading in readings:
        counts.update(reading.counts)
    keys = sorted({(file, event) for file, event, _ in counts})
    rows = [(*key, *(counts[*key, outcome] for outcome in OUTCOMES)) for key in keys]
    return pl.DataFrame(rows, schema=["file", "event", *OUTCOMES], orient="row").filter(pl.col("read") > 0)


def rejected(readings: Sequence[Reading]) -> list[Problem]:
    """Every rejected row of all files."""
    return list(chain.from_iterable(reading.problems() for reading in readings))


def _row(db: Database, query: str, values: Sequence[int] = ()) -> tuple[int, ...]:
    found: tuple[int, ...] = db.execute(query, list(values)).fetchall()[0]
    return found
