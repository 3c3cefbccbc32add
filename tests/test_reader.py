"""What a shop reads, and the lists of some visitors, from a real SQLite file."""

import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tasks import reader
from tasks.publication import Generation, Store

DEFAULT = pl.DataFrame({"itemid": [7, 8], "score": [1.0, 0.5]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a folder" / "recommendations.db")


def write(store: Store, name: str, as_of: int, items: list[list[int]], visitors: list[int]) -> None:
    """A generation in which the n-th visitor reads the n-th list."""
    scores = [[1 / (rank + 2) for rank in range(len(row))] for row in items]
    lists = pl.DataFrame({"list": range(len(items)), "items": items, "scores": scores}).cast({"items": pl.List(int)})
    who = pl.DataFrame({"visitorid": visitors, "list": range(len(visitors))})
    store.write(Generation(name, as_of, "night", "promoted", "good", "1", None), [lists], [who], DEFAULT)


def test_a_visitor_gets_the_list_in_force_and_a_stranger_the_default_one(store: Store) -> None:
    write(store, "a", 1, [[1, 2], [3]], [10, 20])
    with reader.reading(store) as db:
        assert reader.recommended(db, 10) == []
        store.switch("a")
        assert [reader.recommended(db, visitor) for visitor in (10, 20, 99)] == [[1, 2], [3], [7, 8]]
        write(store, "b", 2, [[5]], [10])
        assert reader.recommended(db, 10) == [1, 2]
        store.switch("b")
        assert [reader.recommended(db, visitor) for visitor in (10, 20)] == [[5], [7, 8]]


def test_a_reader_can_change_nothing_and_makes_no_store(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError), reader.reading(store) as db:
        reader.recommended(db, 10)
    assert not store.path.exists()
    write(store, "a", 1, [[1]], [10])
    with reader.reading(store) as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM list")


def test_lists_of_some_visitors_are_as_long_as_asked_and_strangers_are_shown_the_default(store: Store) -> None:
    write(store, "a", 1, [[1, 2, 3], [4], []], [10, 20, 30])
    asked = np.array([5, 10, 20, 30])
    assert reader.lists_of(store, "a", asked, 2).tolist() == [[7, 8], [1, 2], [4, -1], [-1, -1]]
    assert reader.lists_of(store, "a", asked, 3)[0].tolist() == [7, 8, -1]
    assert reader.lists_of(store, "a", asked[:0], 2).shape == (0, 2)


def test_a_list_of_any_generation_has_its_number_and_scores(store: Store) -> None:
    write(store, "a", 1, [[1, 2], []], [10, 20])
    write(store, "b", 2, [[3]], [20])
    assert reader.published(store, "a", 10) == (0, [1, 2], [0.5, 0.333333])
    assert reader.published(store, "a", 20) == (1, [], [])
    assert reader.published(store, "b", 20) == (0, [3], [0.5])
    assert reader.published(store, "b", 10) is None


def test_more_visitors_than_one_statement_may_name(store: Store) -> None:
    many = reader.ASKED_AT_ONCE * 2 + 1
    write(store, "a", 1, [[visitor, 1] for visitor in range(many)], list(range(many)))
    write(store, "other", 2, [[9]], [0])
    asked = np.arange(many + 3)
    found = reader.lists_of(store, "a", asked, 2)
    assert found[:many, 0].tolist() == list(range(many))
    assert found[many:].tolist() == [[7, 8]] * 3
