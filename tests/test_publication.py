"""Generations beside each other in a real SQLite file, read by a second connection, killed for real."""

import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tasks.failures import BadConfig
from tasks.publication import Generation, State, Store

DEFAULT = pl.DataFrame({"itemid": [7, 8], "score": [1.0, 0.5]})


def generation(name: str, as_of: int, verdict: State = "promoted") -> Generation:
    return Generation(name, as_of, "night", verdict, "good", "1", "1")


def lists(item: int) -> list[pl.DataFrame]:
    return [pl.DataFrame({"list": [0, 1], "items": [[item, 2], [3]], "scores": [[0.5, 0.25], [0.125]]})]


def visitors() -> list[pl.DataFrame]:
    return [pl.DataFrame({"visitorid": [30, 10, 20], "list": [0, 1, 0]})]


def publish(store: Store, name: str, as_of: int, item: int) -> bool:
    store.write(generation(name, as_of), lists(item), visitors(), DEFAULT)
    return store.switch(name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "recommendations.db")


def shop_reads(store: Store, visitor: int) -> str | None:
    """The one SELECT of a shop's backend, on a connection of its own."""
    with sqlite3.connect(store.path) as db:
        row = db.execute("SELECT items FROM recommendations WHERE visitorid = ?", (visitor,)).fetchone()
    return row and str(row[0])


def test_a_generation_is_not_in_force_before_the_switch(store: Store) -> None:
    assert publish(store, "a", 1, item=100)
    store.write(generation("b", 2), lists(200), visitors(), DEFAULT)
    assert shop_reads(store, 20) == "[100,2]"
    assert store.switch("b")
    assert shop_reads(store, 20) == "[200,2]"
    assert shop_reads(store, 99) is None


def test_a_reader_sees_the_old_generation_while_the_new_one_is_written(store: Store) -> None:
    publish(store, "a", 1, item=100)
    seen: list[str | None] = []

    def watched() -> Iterator[pl.DataFrame]:
        for frame in lists(200):
            yield frame
            seen.extend([shop_reads(store, 20), str(store.read("a").height)])

    store.write(generation("b", 2), watched(), visitors(), DEFAULT)
    store.write(generation("a", 1), watched(), visitors(), DEFAULT)  # a second try of the night that is in force
    assert seen == ["[100,2]", "5"] * 2
    assert shop_reads(store, 20) == "[200,2]"


def test_rows_are_ranked_from_one_and_sorted(store: Store) -> None:
    publish(store, "a", 1, item=100)
    assert store.read(None).rows() == [
        (10, 1, 3, 0.125),
        (20, 1, 100, 0.5),
        (20, 2, 2, 0.25),
        (30, 1, 100, 0.5),
        (30, 2, 2, 0.25),
    ]
    assert store.read(None).columns == ["visitorid", "rank", "itemid", "score"]


def test_an_earlier_as_of_never_replaces_a_later_one(store: Store) -> None:
    assert publish(store, "new", 20, item=100)
    assert not publish(store, "old", 10, item=200)
    assert shop_reads(store, 20) == "[100,2]"
    assert store.read("old").height == store.read("new").height
    assert publish(store, "same day, again", 20, item=300)


def test_the_newest_written_stay_and_so_does_what_a_rollback_or_the_next_night_needs(store: Store) -> None:
    publish(store, "before", 8, item=1)
    publish(store, "in force", 9, item=1)
    store.write(generation("of the last as_of", 10, "held"), lists(1), visitors(), DEFAULT)
    for number in range(4):
        store.write(generation(f"old {number}", number, "held"), lists(1), visitors(), DEFAULT)
    store.prune(keep=2)
    with pytest.raises(BadConfig, match=r"gone .*there are: old 2, old 3, before, in force, of the last as_of"):
        store.read("gone")
    publish(store, "next", 11, item=1)
    store.prune(keep=2)
    assert [one.name for one in store.generations()] == ["old 3", "in force", "next"]


def test_an_unknown_generation_is_told_from_an_empty_store(store: Store) -> None:
    with pytest.raises(BadConfig, match="make run"):
        store.read(None)


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.test_publication import DEFAULT, Store, generation, lists, visitors
from pathlib import Path

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killing():
    yield lists(200)[0]
    if {point!r} == "while writing":
        die()

store = Store(Path({path!r}))
store.write(generation("b", 2), killing(), visitors(), DEFAULT)
die()
"""


@pytest.mark.parametrize("point", ["while writing", "before the switch"])
def test_a_writer_that_is_killed_leaves_the_old_generation_whole(store: Store, point: str) -> None:
    publish(store, "a", 1, item=100)
    code = textwrap.dedent(KILLED.format(root=str(Path(__file__).parents[1]), point=point, path=str(store.path)))
    killed = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL
    assert shop_reads(store, 20) == "[100,2]"
    assert publish(store, "b", 2, item=200)
    assert shop_reads(store, 20) == "[200,2]"
    assert store.read("b").height == 5
