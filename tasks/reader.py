"""Reading what is published: one visitor's list, as a shop's backend does or of any generation; those of some."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import numpy.typing as npt

from tasks.publication import Database, Store
from tasks.recsys.interactions import Longs

ASKED_AT_ONCE = 500
"""Visitors named in one statement."""


@contextmanager
def reading(store: Store) -> Iterator[Database]:
    """A connection for many calls of `recommended`, to an SQLite store that is there; it can change nothing.

    Another database is read by the shop's own driver and pool: the two statements of `recommended` are all there is.
    """
    with closing(sqlite3.connect(f"{store.path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        yield db


def recommended(db: Database, visitorid: int) -> list[int]:
    """The items for a visitor, best first; the default list for one who is not known.  Empty: nothing is in force.

    Each call sees one generation, whole: each statement reads the pointer and the list at one instant.
    """
    row = db.execute("SELECT items FROM recommendations WHERE visitorid = ?", (visitorid,)).fetchone()
    if row is None:
        row = db.execute("SELECT default_items FROM generation JOIN in_force ON name = generation").fetchone()
    items: list[int] = json.loads(row[0]) if row else []
    return items


def published(store: Store, generation: str, visitorid: int) -> tuple[int, list[int], list[float]] | None:
    """A visitor's list in a generation: its number, its itemids and their scores, best first; None: not known."""
    with store.connection() as db:
        query = (
            "SELECT list, items, scores FROM visitor JOIN list USING (generation, list) "
            "WHERE generation = ? AND visitorid = ?"
        )
        row = db.execute(query, (generation, visitorid)).fetchone()
    return (int(row[0]), json.loads(row[1]), json.loads(row[2])) if row else None


def default_list(store: Store, generation: str, k: int) -> Longs:
    """[k]: itemids that a generation shows a visitor who is not in it, best first, -1 where the list ends."""
    with store.connection() as db:
        query = "SELECT default_items FROM generation WHERE name = ?"
        items = json.loads(db.execute(query, (generation,)).fetchone()[0])[:k]
    return np.array(items + [-1] * (k - len(items)), dtype=np.int64)


def lists_of(store: Store, generation: str, visitors: npt.NDArray[np.integer], k: int) -> Longs:
    """[visitors] → [visitors, k]: itemids that a generation shows each of them, best first, -1 where a list ends.

    Whoever is not in it is shown its default list.  Only these visitors' rows are read.
    """
    found = np.tile(default_list(store, generation, k), (len(visitors), 1))
    with store.connection() as db:
        for start in range(0, len(visitors), ASKED_AT_ONCE):
            part = [int(visitor) for visitor in visitors[start : start + ASKED_AT_ONCE]]
            place = {visitor: start + number for number, visitor in enumerate(part)}
            query = (
                "SELECT visitorid, items FROM visitor JOIN list USING (generation, list) "
                f"WHERE generation = ? AND visitorid IN ({','.join('?' * len(part))})"
            )
            for visitor, items in db.execute(query, (generation, *part)).fetchall():
                listed = json.loads(items)[:k]
                found[place[visitor]] = listed + [-1] * (k - len(listed))
    return found
