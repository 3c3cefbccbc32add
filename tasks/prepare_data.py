"""Reads the shop's files, checks every row, and writes the Dataset: what was known as of the night's instant."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from tasks import clickstream, storage
from tasks.clickstream import EARLIEST, LATEST, Clickstream, Problem, guess, whole
from tasks.contracts import Dataset, PrepareDataConfig, RunContext
from tasks.failures import BadConfig, BadData
from tasks.recsys import splits
from tasks.recsys.interactions import DAY, EVENTS, Interactions, Longs
from tasks.tracking import TaskRun

log = logging.getLogger(__name__)

CATEGORY, AVAILABLE, PRICE = "categoryid", "available", "790"
PROPERTIES = (CATEGORY, AVAILABLE, PRICE)


def prepare_data(config: PrepareDataConfig, run: TaskRun) -> Dataset:
    """Writes the Dataset of an instant: only events strictly before it exist."""
    source = clickstream.find(config.data)
    input_digest = storage.files_digest((path.name, path) for path in source.files)
    run.input("clickstream", input_digest, str(source.folder))
    out = run.work / "dataset"
    with duckdb.connect(config={"temp_directory": str(run.work), "preserve_insertion_order": False}) as db:
        problems, rejected = _read_events(db, source)
        _read_properties(db, source)
        _refuse(problems, rejected, _count(db, "events") + rejected, config.max_rejected_share)
        as_of = _as_of(db, config, run.context)
        _check_age(db, source, as_of, config.max_data_age_days)
        duplicates = _distinct_before(db, as_of)
        rows, users, items, time = _encode(db, as_of)
        try:
            c1, c2 = splits.quantile_cuts(time, config.first_quantile, config.second_quantile)
        except ValueError as error:
            raise BadData(f"events of {source.folder} before {_iso(as_of)}: {error}") from None
        ranker_cuts = splits.ranker_cuts(c1, c2, config.ranker_windows)
        _write(out, rows, users, items, (c1, c2), problems)
        db.register("known", pl.DataFrame({"itemid": items, "item": np.arange(len(items), dtype=np.int32)}).to_arrow())
        for cut in (c1, *ranker_cuts, c2, as_of):
            _write_properties(db, out, cut, int(rows.before(cut).items))
        _write_tree(db, source, out)
    counts = {"events": len(rows), "users": len(users), "items": len(items)}
    counts |= {"duplicates": duplicates, "rejected": rejected}
    run.metrics(counts)
    log.info("dataset as of %s: %s; cuts %s and %s", _iso(as_of), counts, _iso(c1), _iso(c2))
    return Dataset(
        **run.store(out, as_of),
        **counts,
        input_digest=input_digest,
        first_cut=c1,
        second_cut=c2,
        ranker_cuts=ranker_cuts,
        history_cap=config.history_cap,
        shards=-(-len(users) // config.users_per_shard),
    )


def _read_events(db: duckdb.DuckDBPyConnection, source: Clickstream) -> tuple[list[Problem], int]:
    """Loads the events into the table `events`; returns examples of bad rows and their number."""
    db.execute("CREATE TABLE events (ts BIGINT, visitor BIGINT, event TINYINT, item BIGINT, transaction VARCHAR)")
    names = ", ".join(f"'{name}'" for name in EVENTS)
    fields = (
        f"{whole('timestamp')} AS ts, {whole('visitorid')} AS visitor, "
        f"(list_position([{names}], event) - 1)::TINYINT AS event, {whole('itemid')} AS item, "
        "coalesce(transactionid, '') AS transaction"
    )
    valid = f"ts >= {EARLIEST} AND ts < {LATEST} AND visitor >= 0 AND item >= 0 AND event IS NOT NULL"
    problems: list[Problem] = []
    rejected = 0
    for path in source.events:
        clickstream.check_header(db, path, clickstream.EVENT_COLUMNS)
        scan = clickstream.scan(path, clickstream.EVENT_COLUMNS)
        before = _count(db, "events")
        clickstream.run(db, path, f"INSERT INTO events SELECT {fields} FROM ({scan})")
        read = _count(db, "events") - before
        log.info("read %s: %d rows", path.name, read)
        if not read:
            raise BadData(f"{path} has a header and no rows: expected events; was its export cut short?")
        bad = _count(db, f"events WHERE ({valid}) IS NOT TRUE")
        if bad:
            db.execute(f"DELETE FROM events WHERE ({valid}) IS NOT TRUE")
            problems += _examples(db, path, fields, valid)
            rejected += bad
    return problems, rejected


def _examples(db: duckdb.DuckDBPyConnection, path: Path, fields: str, valid: str) -> list[Problem]:
    """The first bad rows of an events file, with their lines, fields and values."""
    db.execute("SET preserve_insertion_order = true")
    scan = clickstream.scan(path, clickstream.EVENT_COLUMNS, numbered=True)
    names = ", ".join(f"raw.{name}" for name in clickstream.EVENT_COLUMNS[:4])
    query = (
        f"SELECT line, {names} FROM (SELECT raw, line, {fields} FROM (SELECT raw, raw.* FROM ({scan}) raw)) "
        f"WHERE ({valid}) IS NOT TRUE ORDER BY line LIMIT {clickstream.EXAMPLES}"
    )
    rows = clickstream.run(db, path, query)
    db.execute("SET preserve_insertion_order = false")
    return [_problem(path, *row) for row in rows]


def _problem(path: Path, line: int, timestamp: str, visitor: str, event: str, item: str) -> Problem:
    """Names the first bad field of a row."""
    if event not in EVENTS:
        return Problem(path.name, line, "event", event or "", f"one of {', '.join(EVENTS)}")
    for field, value in (("visitorid", visitor), ("itemid", item)):
        if not (value or "").isdecimal():
            return Problem(path.name, line, field, value or "", "a whole number")
    return Problem(path.name, line, "timestamp", timestamp or "", guess(timestamp or ""))


def _refuse(problems: Sequence[Problem], rejected: int, rows: int, allowed: float) -> None:
    """Fails when more rows are bad than the configuration allows."""
    if rejected > allowed * rows:
        raise BadData(
            f"{problems[0]} ({rejected:,} of {rows:,} event rows are bad, {rejected / rows:.2%}, "
            f"allowed {allowed:.2%}; correct them, or raise max_rejected_share)"
        )
    for problem in problems:
        log.warning("rejected %s", problem)


def _read_properties(db: duckdb.DuckDBPyConnection, source: Clickstream) -> None:
    """Loads the used properties into the table `properties`; an absent file leaves it empty, and is said."""
    db.execute("CREATE TABLE properties (ts BIGINT, itemid BIGINT, property VARCHAR, value VARCHAR)")
    if not source.properties:
        log.info(
            "no item_properties*.csv in %s: features of category, price and availability are left out", source.folder
        )
    wanted = ", ".join(f"'{name}'" for name in PROPERTIES)
    for path in source.properties:
        clickstream.check_header(db, path, clickstream.PROPERTY_COLUMNS)
        scan = clickstream.scan(path, clickstream.PROPERTY_COLUMNS)
        fields = f"{whole('timestamp')} AS ts, {whole('itemid')} AS itemid, property, value, timestamp AS text"
        bad = f"(ts >= {EARLIEST} AND ts < {LATEST} AND itemid >= 0) IS NOT TRUE"
        db.execute("DROP TABLE IF EXISTS chunk")
        kept = f"SELECT * FROM (SELECT {fields} FROM ({scan})) WHERE property IN ({wanted}) OR {bad}"
        clickstream.run(db, path, f"CREATE TABLE chunk AS {kept}")
        found = db.execute(f"SELECT text, itemid FROM chunk WHERE {bad} ORDER BY text LIMIT 1").fetchone()
        if found:
            raise BadData(f"{path}: timestamp = {found[0]!r}, itemid = {found[1]!r}: expected {guess(found[0] or '')}")
        db.execute("INSERT INTO properties SELECT ts, itemid, property, value FROM chunk")
        log.info("read %s", path.name)


def _as_of(db: duckdb.DuckDBPyConnection, config: PrepareDataConfig, context: RunContext) -> int:
    """The night's instant, UTC ms: a person's choice, else the run's date, else just after the newest event."""
    chosen = config.as_of
    if chosen is None and context.run_type in ("scheduled", "backfill"):
        chosen = context.logical_date
    if chosen is not None:
        return int(chosen.timestamp() * 1000)
    newest = db.execute("SELECT max(ts) FROM events").fetchone()
    if newest is None or newest[0] is None:
        raise BadData("no readable event row in the input: expected at least a few hundred")
    return int(newest[0]) + 1


def _check_age(db: duckdb.DuckDBPyConnection, source: Clickstream, as_of: int, days: float) -> None:
    """A feed that stopped must not pass for a quiet night."""
    found = db.execute("SELECT min(ts), max(ts) FILTER (ts < ?) FROM events", [as_of]).fetchone()
    oldest, newest = found or (None, None)
    if newest is None:
        raise BadConfig(
            f"as_of = {_iso(as_of)}: no event before it, the oldest is of {_iso(oldest)}; choose a later as_of"
        )
    age = (as_of - newest) / DAY
    if source.is_demo:
        log.info("demo data of a fixed year: its age (newest event %.1f days before as_of) is not checked", age)
    elif age > days:
        raise BadData(
            f"the newest event before as_of {_iso(as_of)} is of {_iso(newest)}, {age:.1f} days older; allowed "
            f"{days:g} (max_data_age_days): did the feed stop?"
        )


def _distinct_before(db: duckdb.DuckDBPyConnection, as_of: int) -> int:
    """Keeps the distinct rows before as_of; returns how many duplicates went."""
    rows = _count(db, f"events WHERE ts < {as_of}")
    db.execute(f"CREATE TABLE kept AS SELECT DISTINCT * FROM events WHERE ts < {as_of}")
    db.execute("DROP TABLE events")
    duplicates = rows - _count(db, "kept")
    if duplicates:
        log.warning("removed %d exact duplicates of %d rows (%.2f %%)", duplicates, rows, 100 * duplicates / rows)
    return duplicates


def _encode(db: duckdb.DuckDBPyConnection, as_of: int) -> tuple[Interactions, Longs, Longs, Longs]:
    """Interactions with dense ids, the encoders of users and items, and all instants in order."""
    columns = db.execute(
        "SELECT ts, visitor, event, item FROM kept ORDER BY ts, visitor, item, event, transaction"
    ).fetchnumpy()
    user, users = splits.dense_ids(np.asarray(columns["visitor"]))
    item, items = splits.dense_ids(np.asarray(columns["item"]))
    time = np.asarray(columns["ts"])
    return storage.sort_interactions(user, item, np.asarray(columns["event"]), time), users, items, time


def _write(
    out: Path, rows: Interactions, users: Longs, items: Longs, cuts: tuple[int, int], bad: list[Problem]
) -> None:
    """Writes the three parts, the encoders and examples of what was rejected."""
    bounds = (None, *cuts, None)
    for part, start, end in zip(storage.PARTS, bounds[:-1], bounds[1:], strict=True):
        storage.write_interactions(out / f"{part}.parquet", rows.between(start, end))
    storage.write_table(out / "users.parquet", {"visitorid": users})
    storage.write_table(out / "items.parquet", {"itemid": items})
    names = ("file", "line", "field", "value", "expected")
    schema = {name: pl.Int64 if name == "line" else pl.String for name in names}
    rejected = pl.DataFrame([[getattr(p, name) for name in names] for p in bad], schema=schema, orient="row")
    storage.write_table(out / "rejected.parquet", rejected)


def _write_properties(db: duckdb.DuckDBPyConnection, out: Path, cut: int, items: int) -> None:
    """Writes the items' properties as of a cut: the newest value before it, ties to the greatest."""
    newest = "arg_max(value, {{'t': ts, 'v': value}}) FILTER (property = '{}')"
    query = f"""
        SELECT item, coalesce(TRY_CAST({newest.format(CATEGORY)} AS INTEGER), -1)::INTEGER AS category,
               coalesce(TRY_CAST({newest.format(AVAILABLE)} AS TINYINT), -1)::TINYINT AS available,
               TRY_CAST(ltrim({newest.format(PRICE)}, 'n') AS FLOAT) AS price
        FROM properties JOIN known USING (itemid) WHERE ts < {cut} AND item < {items} GROUP BY item ORDER BY item"""
    storage.write_table(out / "item_properties" / f"{cut}.parquet", db.sql(query).pl())


def _write_tree(db: duckdb.DuckDBPyConnection, source: Clickstream, out: Path) -> None:
    """Writes the category tree: a root's parent is -1."""
    tree = pl.DataFrame(schema={"category": pl.Int32, "parent": pl.Int32})
    for path in source.tree:
        clickstream.check_header(db, path, clickstream.TREE_COLUMNS)
        scan = clickstream.scan(path, clickstream.TREE_COLUMNS)
        query = f"SELECT {whole('categoryid')} AS category, coalesce({whole('parentid')}, -1) AS parent FROM ({scan})"
        found = clickstream.run(db, path, query)
        if any(category is None for category, _ in found):
            raise BadData(f"{path}: a categoryid is not a whole number; correct the row")
        tree = pl.concat([tree, pl.DataFrame(found, schema=tree.schema, orient="row")])
    storage.write_table(out / "category_tree.parquet", tree.unique().sort("category", "parent"))


def _count(db: duckdb.DuckDBPyConnection, table: str) -> int:
    found = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(found[0]) if found else 0


def _iso(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
