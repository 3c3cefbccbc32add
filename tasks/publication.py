"""The adapter to the published recommendations: generations side by side, a pointer to the one in force.

A generation's rows are written beside the others and checked; then one transaction moves the pointer.  A reader sees
the old generation or the new one, whole.  Embedded runs keep them in SQLite, here; `publication_mysql` has the
same store on MySQL.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import polars as pl

from tasks.failures import BadConfig, BadData
from tasks.recsys.gate import Verdict

SCHEMA = """
CREATE TABLE IF NOT EXISTS generation (
    name TEXT PRIMARY KEY, as_of INTEGER NOT NULL, night TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL,
    retriever_version TEXT NOT NULL, ranker_version TEXT, default_items TEXT NOT NULL, default_scores TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS list (
    generation TEXT NOT NULL, list INTEGER NOT NULL, items TEXT NOT NULL, scores TEXT NOT NULL,
    PRIMARY KEY (generation, list)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS visitor (
    generation TEXT NOT NULL, visitorid INTEGER NOT NULL, list INTEGER NOT NULL,
    PRIMARY KEY (generation, visitorid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS in_force (
    only INTEGER PRIMARY KEY CHECK (only = 1), generation TEXT NOT NULL REFERENCES generation (name));
CREATE VIEW IF NOT EXISTS recommendations AS
    SELECT visitorid, items, scores, generation
    FROM in_force JOIN visitor USING (generation) JOIN list USING (generation, list);
"""
"""What a shop's backend reads: SELECT items FROM recommendations WHERE visitorid = ?, and default_items of the
generation in force for a visitor who is not there."""


State = Verdict | Literal["rolled_back"]
"""What was decided of a generation: by the gate, or by a person who took it out of force."""
IN_FORCE = ("promoted", "first", "forced")
"""Verdicts of a generation that is in force, or was."""


@dataclass(frozen=True)
class Generation:
    """One night's recommendations, as they are kept."""

    name: str
    as_of: int
    night: str
    verdict: State
    reason: str
    retriever_version: str
    ranker_version: str | None


class Rows(Protocol):
    """What a query gives."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""


class Database(Protocol):
    """A connection as this store uses it; placeholders are question marks."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows:
        """Runs one statement."""

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> object:
        """Runs one statement for each row."""


@dataclass(frozen=True)
class Store:
    """The SQLite file of the embedded runs.  A store on another database differs in how it connects and locks."""

    path: Path
    WRITTEN: ClassVar = "rowid"
    """the column that grows with each generation that is written"""

    @property
    def place(self) -> str:
        """Where it is, for a person; never with a password."""
        return str(self.path)

    def exists(self) -> bool:
        """Whether there can be anything in it."""
        return self.path.is_file()

    @contextmanager
    def transaction(self, db: Database) -> Iterator[None]:
        """All or nothing; takes the write lock at once."""
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    @contextmanager
    def connection(self) -> Iterator[Database]:
        """A connection that commits nothing by itself."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(SCHEMA)
            yield db

    def in_force(self) -> Generation | None:
        """The generation that the shop reads."""
        with self.connection() as db:
            return _in_force(db)

    def find(self, name: str) -> Generation | None:
        """The generation of a name."""
        return next((one for one in self.generations() if one.name == name), None)

    def generations(self) -> list[Generation]:
        """All that are kept, by as_of, then in the order of writing."""
        with self.connection() as db:
            return by_as_of(self._generations(db))

    def write(
        self,
        generation: Generation,
        lists: Iterable[pl.DataFrame],
        visitors: Iterable[pl.DataFrame],
        default: pl.DataFrame,
    ) -> None:
        """Writes a generation beside the others, not in force, and checks that every row arrived.

        lists: frames of list, items, scores (one row a list, best first); visitors: frames of visitorid, list;
        default: itemid, score, best first.
        """
        row = (*vars(generation).values(), *_texts(default.select(pl.col("itemid", "score").implode())).row(0))
        with self.connection() as db, self.transaction(db):
            _forget(db, generation.name)
            db.execute(f"INSERT INTO generation VALUES ({','.join('?' * len(row))})", row)
            for table, frames in (("list", lists), ("visitor", visitors)):
                sent = sum(_insert(db, table, generation.name, frame) for frame in frames)
                count = f"SELECT count(*) FROM {table} WHERE generation = ?"
                (found,) = db.execute(count, (generation.name,)).fetchone()
                if found != sent:
                    raise BadData(f"{self.place}: {found} of {sent} rows arrived in {table}; nothing was switched")

    def switch(self, name: str) -> bool:
        """Puts a generation in force unless a later one is, in one transaction; returns whether it did."""
        with self.connection() as db, self.transaction(db):
            current = _in_force(db)
            (as_of,) = db.execute("SELECT as_of FROM generation WHERE name = ?", (name,)).fetchone()
            if current is not None and current.as_of > as_of:
                return False
            db.execute("DELETE FROM in_force")
            db.execute("INSERT INTO in_force VALUES (1, ?)", (name,))
            return True

    def hold(self, name: str, reason: str) -> None:
        """Records that a generation was held after all."""
        with self.connection() as db, self.transaction(db):
            _judge(db, name, "held", reason)

    def roll_back(self, name: str | None) -> tuple[Generation, Generation]:
        """Puts a named generation in force, or the one that was before; returns it and the one it replaces.

        In one transaction.  What was in force since an older one is marked rolled back; a target that was held, or
        rolled back before, becomes forced.
        """
        with self.connection() as db, self.transaction(db):
            generations, current = by_as_of(self._generations(db)), _in_force(db)
            if current is None:
                raise BadConfig(f"no generation is in force in {self.place}: there is nothing to roll back")
            target = _target(generations, current, name, self.place)
            names = [one.name for one in generations]
            for one in generations[names.index(target.name) + 1 : names.index(current.name) + 1]:
                if one.verdict in IN_FORCE:
                    _judge(db, one.name, "rolled_back", f"rolled back to {target.name}; before: {one.reason}")
            if target.verdict not in IN_FORCE:
                target = replace(target, verdict="forced", reason=f"put in force by hand; before: {target.reason}")
                _judge(db, target.name, target.verdict, target.reason)
            db.execute("DELETE FROM in_force")
            db.execute("INSERT INTO in_force VALUES (1, ?)", (target.name,))
            return target, current

    def outdated(self, keep: int) -> list[str]:
        """What `prune` would forget."""
        with self.connection() as db:
            return outdated(self._generations(db), _in_force(db), keep)

    def prune(self, keep: int) -> None:
        """Forgets what `outdated` names."""
        with self.connection() as db, self.transaction(db):
            for name in outdated(self._generations(db), _in_force(db), keep):
                _forget(db, name)

    def _generations(self, db: Database) -> list[Generation]:
        """In the order of writing."""
        return [
            Generation(*row)
            for row in db.execute(f"SELECT {_COLUMNS} FROM generation ORDER BY {self.WRITTEN}").fetchall()
        ]

    def read(self, name: str | None) -> pl.DataFrame:
        """The rows visitorid, rank (from 1), itemid, score of a generation, by default the one in force; sorted."""
        with self.connection() as db:
            names = [row[0] for row in db.execute("SELECT name FROM generation ORDER BY as_of, name").fetchall()]
            current = _in_force(db)
            chosen = name or (current.name if current else None)
            if chosen not in names:
                known = ", ".join(names) or "none yet: run `make run` first"
                what = f"no generation {chosen}" if chosen else "no generation is in force"
                raise BadConfig(f"{what} in {self.place}; there are: {known}")
            query = (
                "SELECT visitorid, items, scores FROM visitor JOIN list USING (generation, list) WHERE generation = ?"
            )
            rows = pl.DataFrame(
                list(db.execute(query, (chosen,)).fetchall()),
                schema={"visitorid": pl.Int64, "items": pl.String, "scores": pl.String},
                orient="row",
            )
        numbers = (
            pl.col("items").str.json_decode(pl.List(pl.Int64)),
            pl.col("scores").str.json_decode(pl.List(pl.Float64)),
        )
        pairs = rows.with_columns(*numbers).rename({"items": "itemid", "scores": "score"}).explode("itemid", "score")
        pairs = pairs.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("visitorid"))
        return pairs.select("visitorid", "rank", "itemid", "score").sort("visitorid", "rank")


def by_as_of(generations: Iterable[Generation]) -> list[Generation]:
    """From the order of writing to that of as_of; of one as_of, in the order of writing."""
    return sorted(generations, key=lambda one: one.as_of)


def previous(generations: Iterable[Generation], current: Generation) -> Generation | None:
    """The one that was in force before: the last by as_of that was put in force and not rolled back.

    The pointer moves forward in as_of alone, and back by a rollback alone, so this order is that of its moves.
    """
    names = [one for one in by_as_of(generations) if one.verdict in IN_FORCE or one.name == current.name]
    before = names[: [one.name for one in names].index(current.name)]
    return before[-1] if before else None


def outdated(generations: Sequence[Generation], current: Generation | None, keep: int) -> list[str]:
    """Names, of generations in the order of writing, of those that nothing needs.

    The `keep` written last stay.  So do the one in force, the one before it, for a rollback, and that of the last
    as_of, which the next night compares with what people did: a backfill of many old days must push out none of them.
    """
    needed = {one.name for one in generations[-keep:]} | {one.name for one in by_as_of(generations)[-1:]}
    if current:
        before = previous(generations, current)
        needed |= {current.name} | ({before.name} if before else set())
    return [one.name for one in generations if one.name not in needed]


def store() -> Store:
    """The store that NIGHTJAR_RECOMMENDATIONS names."""
    place = os.environ.get("NIGHTJAR_RECOMMENDATIONS", "")
    if not place:
        raise BadConfig(
            "NIGHTJAR_RECOMMENDATIONS is not set: expected the path of an SQLite file, or mysql://user@host:3306/database"
        )
    if place.startswith("mysql:"):
        from tasks.publication_mysql import MysqlStore  # late: its driver is of no use elsewhere

        return MysqlStore.at(place)
    return Store(Path(place))


def _insert(db: Database, table: str, generation: str, frame: pl.DataFrame) -> int:
    """Inserts a frame's rows, lists as JSON texts; returns their number."""
    rows = ((generation, *row) for row in _texts(frame).iter_rows())
    db.executemany(f"INSERT INTO {table} VALUES (?{', ?' * frame.width})", rows)
    return frame.height


def _texts(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its lists of numbers as JSON texts, fractions to six places."""
    return frame.select(_text(name, kind) if isinstance(kind, pl.List) else name for name, kind in frame.schema.items())


def _text(name: str, kind: pl.List) -> pl.Expr:
    number = pl.element().cast(pl.Float64).round(6) if kind.inner.is_float() else pl.element()
    return pl.format("[{}]", pl.col(name).list.eval(number.cast(pl.String)).list.join(",")).alias(name)


_COLUMNS = "name, as_of, night, verdict, reason, retriever_version, ranker_version"


def _in_force(db: Database) -> Generation | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM generation JOIN in_force ON name = generation").fetchone()
    return Generation(*row) if row else None


def _target(generations: Sequence[Generation], current: Generation, name: str | None, place: str) -> Generation:
    """The generation of the name, or the one that was in force before the current one."""
    found = next((one for one in generations if one.name == name), None) if name else previous(generations, current)
    if found is None:
        known = ", ".join(f"{one.name} ({one.verdict})" for one in generations)
        what = f"no generation {name} in {place}" if name else f"nothing was in force before {current.name}"
        raise BadConfig(f"{what}; expected TO= (--to) one of those there are: {known}")
    return found


def _judge(db: Database, name: str, verdict: State, reason: str) -> None:
    db.execute("UPDATE generation SET verdict = ?, reason = ? WHERE name = ?", (verdict, reason, name))


def _forget(db: Database, name: str) -> None:
    for table in ("visitor", "list"):
        db.execute(f"DELETE FROM {table} WHERE generation = ?", (name,))
    db.execute("DELETE FROM generation WHERE name = ?", (name,))
