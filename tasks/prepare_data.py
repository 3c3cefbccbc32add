"""Reads the shop's files, checks every row, and writes the Dataset: what was known as of the night's instant."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from tasks import bad_rows, categories, clickstream, dataset_files, intake, property_values, storage
from tasks.clickstream import EVENT_COLUMNS, Clickstream
from tasks.contracts import Dataset, PrepareDataConfig, RunContext
from tasks.failures import BadConfig, BadData
from tasks.intake import Database, Reading
from tasks.recsys import splits, volume
from tasks.recsys.interactions import DAY, Interactions, Longs
from tasks.recsys.splits import Cuts
from tasks.tracking import TaskRun

log = logging.getLogger(__name__)

EXAMPLES = 5
"""Rejected rows that the log names."""


def prepare_data(config: PrepareDataConfig, run: TaskRun) -> Dataset:
    """Writes the Dataset of an instant: only events strictly before it exist."""
    source = clickstream.find(config.data, run.work)
    input_digest = storage.files_digest((path.name, path) for path in source.files)
    run.input("clickstream", input_digest, config.data)
    out = run.work / "dataset"
    with intake.opened(run.work) as db:
        events = intake.read_events(db, source)
        events.refuse(config.max_rejected_share)
        as_of = _as_of(db, config, run.context)
        _check_newest(db, events, source, as_of, config)
        intake.reject_without_id(db, events, as_of)
        events.refuse(config.max_rejected_share)
        intake.keep_distinct(db, events, as_of)
        suspect = _suspicions(db, events, as_of, config)
        rows, users, items, time = intake.encode(db)
        cuts = _cuts(config, as_of, time)
        dataset_files.write_interactions(out, rows, (cuts.first, cuts.second))
        dataset_files.write_encoders(out, users, items)
        properties = intake.read_properties(db, source, as_of)
        properties.refuse(config.max_rejected_share)
        _write_cuts(db, out, source, rows, items, cuts, config)
    _report(run, [events, properties])
    counts = {"events": len(rows), "users": len(users), "items": len(items)}
    counts |= {"duplicates": events.rows("duplicates")}
    counts |= {"rejected": events.rows("rejected") + properties.rows("rejected")}
    run.metrics(counts)
    log.info("dataset as of %s: %s; cuts %s", _iso(as_of), counts, ", ".join(map(_iso, cuts.every)))
    written = run.store(out, as_of)
    run.tell_restated("clickstream", input_digest, written["digest"], as_of)
    return Dataset(
        **written,
        **counts,
        input_digest=input_digest,
        first_cut=cuts.first,
        second_cut=cuts.second,
        ranker_cuts=cuts.ranker,
        history_cap=config.history_cap,
        suspect=suspect,
        shards=-(-len(users) // config.users_per_shard),
    )


def _write_cuts(
    db: Database,
    out: Path,
    source: Clickstream,
    rows: Interactions,
    items: Longs,
    cuts: Cuts,
    config: PrepareDataConfig,
) -> None:
    """Writes the tree and, for each cut, what was known as of it."""
    tree = categories.read_tree(db, source, config.max_orphan_share)
    paths = dataset_files.write_tree(out, tree).select("category", "path")
    for cut, values in property_values.as_of_cuts(db, items, cuts.every, config.frequent_properties):
        known = rows.before(cut)
        found = values.join(paths, on="category", how="left", maintain_order="left")
        dataset_files.write_cut(out, known, found, cut, config.history_cap)
        log.info("cut %s: %d users, %d items, %d with properties", _iso(cut), known.users, known.items, len(values))
    categories.check_items(source, tree, values, config.max_orphan_share)


def _as_of(db: Database, config: PrepareDataConfig, context: RunContext) -> int:
    """The night's instant, UTC ms: a person's choice, else the run's date, else just after the newest event."""
    chosen = config.as_of
    if chosen is None and context.run_type in ("scheduled", "backfill"):
        chosen = context.logical_date
    return intake.newest_event(db) + 1 if chosen is None else _ms(chosen)


def _check_newest(db: Database, events: Reading, source: Clickstream, as_of: int, config: PrepareDataConfig) -> None:
    """A feed that stopped must not pass for a quiet night, nor a wrong clock for tonight."""
    oldest, newest = intake.span(db, as_of)
    if newest is None:
        raise BadConfig(
            f"as_of = {_iso(as_of)}: no event before it, the oldest is of {_iso(oldest)}; choose a later as_of"
        )
    age = (as_of - newest) / DAY
    if source.is_demo:
        log.info("demo data of a fixed year: its age (newest event %.1f days before as_of) is not checked", age)
    elif age > config.max_data_age_days:
        raise BadData(
            f"the newest event before as_of {_iso(as_of)} is of {_iso(newest)}, {age:.1f} days older; allowed "
            f"{config.max_data_age_days:g} (max_data_age_days): did the feed stop?"
        )
    stray = intake.stray_end(db, events, as_of, int(config.max_gap_days * DAY))
    if stray:
        file, value, end = stray
        line = bad_rows.line_of(file, EVENT_COLUMNS, {"timestamp": str(value)})
        raise BadData(
            f"{file.name}:{line}: timestamp = '{value}' ({_iso(value)}), expected one not long after {_iso(end)}, when "
            f"the other events before as_of end: is a clock wrong? Correct it, or raise max_gap_days"
        )


def _suspicions(db: Database, events: Reading, as_of: int, config: PrepareDataConfig) -> tuple[str, ...]:
    """What is odd about the input but no reason to fail; said here, and by the gate."""
    found = list(volume.suspicions(intake.daily(db, as_of, 1 + volume.DAYS), config.volume_tolerance))
    duplicates, kept = events.rows("duplicates"), events.rows("kept")
    share = duplicates / max(duplicates + kept, 1)
    if duplicates:
        log.warning("removed %d exact duplicates of %d rows (%.2f %%)", duplicates, duplicates + kept, 100 * share)
    if share > config.max_duplicate_share:
        found.append(f"{duplicates:,} exact duplicates of {duplicates + kept:,} events ({share:.1%}){_copies(events)}")
    for one in found:
        log.warning("suspect: %s", one)
    return tuple(found)


def _copies(events: Reading) -> str:
    """What the duplicates look like: files of the same bytes, or every row twice."""
    seen: dict[str, Path] = {}
    for path in events.files:
        twin = seen.setdefault(storage.file_digest(path), path)
        if twin is not path:
            return f": {twin.name} and {path.name} have the same bytes"
    full = events.rows("duplicates") >= events.rows("kept")
    return ": it looks like a second full copy of the export" if full else ""


def _cuts(config: PrepareDataConfig, as_of: int, time: Longs) -> Cuts:
    """The cuts that the configuration asks for: instants, days before as_of, or else quantiles of the events."""
    try:
        first, second = _chosen(config, as_of) or splits.quantile_cuts(
            time, config.first_quantile, config.second_quantile
        )
        splits.check(time, first, second)
        return Cuts(first, splits.ranker_cuts(first, second, config.ranker_windows), second, as_of)
    except ValueError as error:
        raise BadData(f"events of {config.data} before {_iso(as_of)}: {error}") from None


def _chosen(config: PrepareDataConfig, as_of: int) -> tuple[int, int] | None:
    """The two cuts, UTC ms, where a person has chosen them."""
    if config.first_cut and config.second_cut:
        return _ms(config.first_cut), _ms(config.second_cut)
    if config.validation_days and config.test_days:
        second = as_of - round(config.test_days * DAY)
        return second - round(config.validation_days * DAY), second
    return None


def _report(run: TaskRun, readings: Sequence[Reading]) -> None:
    """Attaches what became of every row; not to the Dataset, whose digest knows no files and lines."""
    out = run.work / "intake"
    table = intake.reconciliation(readings)
    storage.write_table(out / "reconciliation.parquet", table)
    (out / "reconciliation.json").write_text(json.dumps(table.to_dicts(), indent=1))
    for row in table.iter_rows(named=True):
        log.info("%s", ", ".join(f"{name} {value}" for name, value in row.items() if value != ""))
    problems = intake.rejected(readings)
    if problems:
        storage.write_table(out / "rejected.parquet", pl.DataFrame([asdict(problem) for problem in problems]))
    for problem in problems[:EXAMPLES]:
        log.warning("rejected %s", problem)
    run.attach(out)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _iso(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
