"""Reads the shop's files, checks every row, and writes the Dataset: what was known as of the night's instant."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from tasks import clickstream, storage
from tasks.clickstream import EARLIEST, LATEST, Clickstream, Problem, whole
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
        events = _read_events(db, source)
        properties = _read_properties(db, source)
        for bad, name in ((events, "event"), (properties, "property")):
            _refuse(bad, name, config.max_rejected_share)
        as_of = _as_of(db, config, run.context)
        _check_age(db, source, as_of, config.max_data_age_days)
        duplicates = _distinct_before(db, as_of)
        rows, users, items, time = _encode(db, as_of)
        try:
            c1, c2 = splits.quantile_cuts(time, config.first_quantile, config.second_quantile)
            ranker_cuts = splits.ranker_cuts(c1, c2, config.ranker_windows)
        except ValueError as error:
            raise BadData(f"events of {source.folder} before {_iso(as_of)}: {error}") from None
        _write(out, rows, users, items, (c1, c2))
        db.register("known", pl.DataFrame({"itemid": items, "item": np.arange(len(items), dtype=np.int32)}).to_arrow())
        for cut in (c1, *ranker_cuts, c2, as_of):
            _write_properties(db, out, cut, int(rows.before(cut).items))
        _write_tree(db, source, out)
    counts = {"events": len(rows), "users": len(users), "items": len(items)}
    counts |= {"duplicates": duplicates, "rejected": events.rejected + properties.rejected}
    run.metrics(counts)
    if counts["rejected"]:
        run.attach(_write_rejected(run.work / "rejected", [*events.problems, *properties.problems]))
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


@dataclass
class Bad:
    """What reading one kind of file found."""

    rows: int = 0
    """read, bad ones included"""
    rejected: int = 0
    problems: list[Problem] = field(default_factory=list)
    """the first bad rows of every file"""

    def add(self, path: Path, columns: Sequence[str], rows: int, rejected: int) -> None:
        """Counts a file, and looks for its bad rows if there are any."""
        self.rows += rows
        self.rejected += rejected
        if rejected:
            unnamed = Problem(path.name, 0, "row", "", "a row that can be read")
            self.problems += clickstream.problems(path, columns) or [unnamed]


def _read_events(db: duckdb.DuckDBPyConnection, source: Clickstream) -> Bad:
    """Loads the good rows of the events into the table `events`."""
    db.execute("CREATE TABLE events (ts BIGINT, visitor BIGINT, event TINYINT, item BIGINT, transaction VARCHAR)")
    names = ", ".join(f"'{name}'" for name in EVENTS)
    fields = (
        f"{whole('timestamp')} AS ts, {whole('visitorid')} AS visitor, "
        f"(list_position([{names}], event) - 1)::TINYINT AS event, {whole('itemid')} AS item, "
        "coalesce(transactionid, '') AS transaction"
    )
    valid = f"ts >= {EARLIEST} AND ts < {LATEST} AND visitor >= 0 AND item >= 0 AND event IS NOT NULL"
    bad = Bad()
    for path in source.events:
        clickstream.check(path, clickstream.EVENT_COLUMNS)
        scan = clickstream.scan(path, clickstream.EVENT_COLUMNS)
        before = _count(db, "events")
        clickstream.run(db, path, f"INSERT INTO events SELECT {fields} FROM ({scan})")
        left_out = clickstream.lines_left_out(db, path)
        read = _count(db, "events") - before + left_out
        log.info("read %s: %d rows", path.name, read)
        if not read:
            raise BadData(f"{path} has a header and no rows: expected events; was its export cut short?")
        invalid = _count(db, f"events WHERE ({valid}) IS NOT TRUE")
        if invalid:
            db.execute(f"DELETE FROM events WHERE ({valid}) IS NOT TRUE")
        bad.add(path, clickstream.EVENT_COLUMNS, read, invalid + left_out)
    return bad


def _refuse(bad: Bad, kind: str, allowed: float) -> None:
    """Fails when more rows are bad than the configuration allows."""
    if bad.rejected > allowed * bad.rows:
        raise BadData(
            f"{bad.problems[0]} ({bad.rejected:,} of {bad.rows:,} {kind} rows are bad, "
            f"{bad.rejected / bad.rows:.2%}, allowed {allowed:.2%}; correct them, or raise max_rejected_share)"
        )
    for problem in bad.problems:
        log.warning("rejected %s", problem)


def _read_properties(db: duckdb.DuckDBPyConnection, source: Clickstream) -> Bad:
    """Loads the used properties into the table `properties`; an absent file leaves it empty, and is said."""
    db.execute("CREATE TABLE properties (ts BIGINT, itemid BIGINT, property VARCHAR, value VARCHAR)")
    if not source.properties:
        log.info(
            "no item_properties*.csv in %s: features of category, price and availability are left out", source.folder
        )
    wanted = ", ".join(f"'{name}'" for name in PROPERTIES)
    invalid = f"(ts >= {EARLIEST} AND ts < {LATEST} AND itemid >= 0) IS NOT TRUE"
    bad = Bad()
    for path in source.properties:
        clickstream.check(path, clickstream.PROPERTY_COLUMNS)
        scan = clickstream.scan(path, clickstream.PROPERTY_COLUMNS)
        fields = f"{whole('timestamp')} AS ts, {whole('itemid')} AS itemid, property, value"
        kept = f"SELECT * FROM (SELECT {fields} FROM ({scan})) WHERE property IN ({wanted}) OR {invalid}"
        clickstream.run(db, path, f"CREATE OR REPLACE TABLE chunk AS {kept}")
        rejected = clickstream.lines_left_out(db, path) + _count(db, f"chunk WHERE {invalid}")
        db.execute(f"INSERT INTO properties SELECT * FROM chunk WHERE NOT ({invalid})")
        rows = 0
        if rejected:  # how many there are matters only then
            ((good,),) = clickstream.run(db, path, f"SELECT count(*) FROM ({scan})")
            rows = good + clickstream.lines_left_out(db, path)
        bad.add(path, clickstream.PROPERTY_COLUMNS, rows, rejected)
        log.info("read %s", path.name)
    return bad


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


def _write(out: Path, rows: Interactions, users: Longs, items: Longs, cuts: tuple[int, int]) -> None:
    """Writes the three parts and the encoders."""
    bounds = (None, *cuts, None)
    for part, start, end in zip(storage.PARTS, bounds[:-1], bounds[1:], strict=True):
        storage.write_interactions(out / f"{part}.parquet", rows.between(start, end))
    storage.write_table(out / "users.parquet", {"visitorid": users})
    storage.write_table(out / "items.parquet", {"itemid": items})


def _write_rejected(out: Path, problems: Sequence[Problem]) -> Path:
    """Writes examples of what was rejected; not into the Dataset, whose digest knows no files and lines."""
    storage.write_table(out / "rejected.parquet", pl.DataFrame([asdict(problem) for problem in problems]))
    return out


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
        clickstream.check(path, clickstream.TREE_COLUMNS)
        scan = clickstream.scan(path, clickstream.TREE_COLUMNS)
        query = f"SELECT {whole('categoryid')} AS category, coalesce({whole('parentid')}, -1) AS parent FROM ({scan})"
        found = clickstream.run(db, path, query)
        clickstream.lines_left_out(db, path)
        for problem in clickstream.problems(path, clickstream.TREE_COLUMNS):
            raise BadData(f"{problem}; correct the row")
        tree = pl.concat([tree, pl.DataFrame(found, schema=tree.schema, orient="row")])
    storage.write_table(out / "category_tree.parquet", tree.unique().sort("category", "parent"))


def _count(db: duckdb.DuckDBPyConnection, table: str) -> int:
    found = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(found[0]) if found else 0


def _iso(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
