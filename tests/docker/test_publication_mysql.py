"""The published recommendations on the stack's real MySQL: the demands on SQLite, and the faults of a server."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import polars as pl
import pymysql
import pytest

from tasks.failures import BadConfig, Unavailable
from tasks.publication import Generation, State, Store, store
from tasks.publication_mysql import MysqlStore
from tests.docker.stack import REPO, Stack

pytestmark = pytest.mark.docker

DEFAULT = pl.DataFrame({"itemid": [7, 8], "score": [1.0, 0.5]})


def generation(name: str, as_of: int, verdict: State = "promoted") -> Generation:
    return Generation(name, as_of, "night", verdict, "good", "1", "1")


def lists(item: int) -> list[pl.DataFrame]:
    return [pl.DataFrame({"list": [0, 1], "items": [[item, 2], [3]], "scores": [[0.5, 0.25], [0.125]]})]


def visitors() -> list[pl.DataFrame]:
    return [pl.DataFrame({"visitorid": [30, 10, 20], "list": [0, 1, 0]})]


def publish(place: Store, name: str, as_of: int, item: int) -> bool:
    place.write(generation(name, as_of), lists(item), visitors(), DEFAULT)
    return place.switch(name)


@pytest.fixture
def mysql(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store in a database of its own."""
    stack.sql("DROP DATABASE IF EXISTS spare", user="root", database="mysql")
    stack.sql("CREATE DATABASE spare", user="root", database="mysql")
    stack.sql("GRANT ALL ON spare.* TO 'nightjar'@'%'", user="root", database="mysql")
    stack.sql("GRANT SELECT ON spare.* TO 'shop'@'%'", user="root", database="mysql")
    monkeypatch.setenv("NIGHTJAR_RECOMMENDATIONS", f"mysql://nightjar@{stack.mysql_host}:3306/spare")
    monkeypatch.setenv("NIGHTJAR_RECOMMENDATIONS_PASSWORD_FILE", str(stack.secrets / "mysql_nightjar"))
    yield store()
    stack.sql("DROP DATABASE spare", user="root", database="mysql")


def shop_reads(stack: Stack, visitor: int) -> str | None:
    """The one SELECT of a shop's backend, as its own user."""
    rows = stack.sql(f"SELECT items FROM recommendations WHERE visitorid = {visitor}", database="spare")
    return str(rows[0][0]) if rows else None


def test_it_is_the_mysql_store_and_shows_no_password(mysql: Store, stack: Stack) -> None:
    assert isinstance(mysql, MysqlStore) and mysql.in_force() is None
    assert mysql.place == f"mysql://nightjar@{stack.mysql_host}:3306/spare"


def test_a_generation_is_in_force_after_the_switch_and_a_reader_sees_one_or_the_other(
    mysql: Store, stack: Stack
) -> None:
    assert publish(mysql, "a", 1, item=100)
    seen: list[str | None] = []

    def watched() -> Iterator[pl.DataFrame]:
        for frame in lists(200):
            yield frame
            seen.append(shop_reads(stack, 20))

    mysql.write(generation("b", 2), watched(), visitors(), DEFAULT)
    mysql.write(generation("a", 1), watched(), visitors(), DEFAULT)  # a second try of the night that is in force
    assert seen == ["[100,2]", "[100,2]"]
    assert shop_reads(stack, 20) == "[200,2]"
    assert mysql.switch("b") and shop_reads(stack, 99) is None


def test_rows_and_order_are_those_of_sqlite(mysql: Store, tmp_path: Path) -> None:
    lite = Store(tmp_path / "recommendations.db")
    for place in (mysql, lite):
        publish(place, "a", 1, item=100)
    assert mysql.read(None).equals(lite.read(None))
    assert mysql.in_force() == lite.in_force()


def test_an_earlier_as_of_never_replaces_a_later_one(mysql: Store, stack: Stack) -> None:
    assert publish(mysql, "new", 20, item=100)
    assert not publish(mysql, "old", 10, item=200)
    mysql.hold("old", "late")
    assert shop_reads(stack, 20) == "[100,2]"


def test_the_newest_written_stay_and_so_does_what_a_rollback_or_the_next_night_needs(
    mysql: Store, stack: Stack
) -> None:
    publish(mysql, "before", 8, item=1)
    publish(mysql, "in force", 9, item=1)
    mysql.write(generation("of the last as_of", 10, "held"), lists(1), visitors(), DEFAULT)
    for number in range(4):
        mysql.write(generation(f"old {number}", number, "held"), lists(1), visitors(), DEFAULT)
    mysql.write(generation("old 1", 1, "held"), lists(1), visitors(), DEFAULT)  # a second try: written last
    assert mysql.outdated(keep=2) == ["old 0", "old 2"]
    mysql.prune(keep=2)
    with pytest.raises(BadConfig, match=r"no generation gone .*are: old 1, old 3, before, in force, of the last as_of"):
        mysql.read("gone")
    assert mysql.outdated(keep=2) == []
    for table, rows in {"generation": 5, "list": 10, "visitor": 15}.items():
        assert stack.sql(f"SELECT count(*) FROM {table}", database="spare") == [(rows,)]


def test_a_generation_is_found_by_its_name(mysql: Store) -> None:
    wanted = Generation("a", 1, "night", "held", "ü 🐦 ' \\ ? %s", "12", None)
    mysql.write(wanted, [], [], DEFAULT)
    assert mysql.find("a") == wanted
    assert mysql.find("gone") is None


def test_a_generation_without_rows_is_written(mysql: Store) -> None:
    mysql.write(generation("a", 1), [lists(1)[0].clear()], [visitors()[0].clear()], DEFAULT)
    assert mysql.switch("a") and mysql.read(None).is_empty()


def test_a_rollback_puts_the_one_before_in_force(mysql: Store, stack: Stack) -> None:
    publish(mysql, "a", 1, item=100)
    publish(mysql, "b", 2, item=200)
    target, replaced = mysql.roll_back(None)
    assert (target.name, replaced.name) == ("a", "b")
    assert shop_reads(stack, 20) == "[100,2]"
    assert [one.verdict for one in mysql.generations()] == ["promoted", "rolled_back"]
    with pytest.raises(BadConfig, match=r"nothing was in force before a; .*a \(promoted\), b \(rolled_back\)"):
        mysql.roll_back(None)
    assert publish(mysql, "c", 3, item=300)
    assert mysql.roll_back(None)[0].name == "a"


def test_a_rollback_by_name_takes_what_lies_between_along_and_forces_what_was_held(mysql: Store, stack: Stack) -> None:
    for number, name in enumerate("abc", start=1):
        publish(mysql, name, number, item=100 * number)
    mysql.write(generation("held", 2, "held"), lists(900), visitors(), DEFAULT)
    assert mysql.roll_back("a")[0] == generation("a", 1)
    verdicts = {one.name: one.verdict for one in mysql.generations()}
    assert verdicts == {"a": "promoted", "b": "rolled_back", "held": "held", "c": "rolled_back"}
    assert shop_reads(stack, 20) == "[100,2]"
    target, replaced = mysql.roll_back("held")
    assert (target, replaced.name) == (mysql.find("held"), "a")
    assert (target.verdict, target.reason) == ("forced", "put in force by hand; before: good")
    assert shop_reads(stack, 20) == "[900,2]"


def test_a_rollback_waits_for_a_writer(mysql: Store, stack: Stack) -> None:
    publish(mysql, "a", 1, item=100)
    publish(mysql, "b", 2, item=200)
    back = threading.Thread(target=mysql.roll_back, args=(None,))

    def writing() -> Iterator[pl.DataFrame]:
        back.start()
        time.sleep(1)
        assert back.is_alive() and shop_reads(stack, 20) == "[200,2]"
        yield from lists(300)

    mysql.write(generation("c", 3), writing(), visitors(), DEFAULT)
    back.join()
    assert shop_reads(stack, 20) == "[100,2]"


def move(place: Store, chance: Random, number: int) -> object:
    """One thing that a night or a person may do to a store; what came of it."""
    name = chance.choice([one.name for one in place.generations()] or ["none"])
    what = chance.choice(("publish", "publish", "publish", "hold", "roll back", "prune"))
    if what == "publish":
        verdict: State = chance.choice(("first", "promoted", "forced", "held"))
        ranker = chance.choice(("1", None))
        new = Generation(chance.choice("abcdef"), chance.randrange(6), "night", verdict, "good", str(number), ranker)
        place.write(new, lists(number), visitors(), DEFAULT)
        return verdict != "held" and place.switch(new.name)
    if what == "roll back":
        return place.roll_back(chance.choice((None, name)))
    if what == "hold":
        place.hold(name, "late")
    else:
        place.prune(chance.choice((2, 3)))
    return None


def after(place: Store, chance: Random, number: int) -> tuple[object, ...]:
    """What a move came to, and everything that the store tells then."""
    try:
        came = move(place, chance, number)
    except BadConfig as error:
        came = str(error).replace(place.place, "the store")
    current = place.in_force()
    rows = place.read(None).rows() if current else []
    return came, rows, current, place.generations(), place.outdated(2)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_to_it_it_answers_as_sqlite_does(mysql: Store, tmp_path: Path, seed: int) -> None:
    lite, here, there = Store(tmp_path / "recommendations.db"), Random(seed), Random(seed)
    for number in range(25):
        assert after(mysql, here, number) == after(lite, there, number), f"move {number}"


KILLED = """
import os, signal
from tests.docker.test_publication_mysql import DEFAULT, generation, lists, visitors
from tasks.publication import store

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killing():
    yield lists(200)[0]
    if {point!r} == "while writing":
        die()

store().write(generation("b", 2), killing(), visitors(), DEFAULT)
die()
"""


@pytest.mark.parametrize("point", ["while writing", "before the switch"])
def test_a_writer_that_is_killed_leaves_the_old_generation_whole(mysql: Store, stack: Stack, point: str) -> None:
    publish(mysql, "a", 1, item=100)
    code = textwrap.dedent(KILLED.format(point=point))
    path = os.pathsep.join([str(REPO), str(REPO / "plugins")])
    killed = subprocess.run([sys.executable, "-c", code], check=False, cwd=REPO, env={**os.environ, "PYTHONPATH": path})
    assert killed.returncode == -signal.SIGKILL
    assert shop_reads(stack, 20) == "[100,2]"
    assert publish(mysql, "b", 2, item=200)
    assert shop_reads(stack, 20) == "[200,2]" and mysql.read("b").height == 5


def test_two_writers_wait_for_each_other(mysql: Store) -> None:
    writers = [threading.Thread(target=publish, args=(mysql, f"n{number}", number, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    current = mysql.in_force()
    assert current is not None and current.name == "n3"
    assert all(mysql.read(f"n{number}").height == 5 for number in range(4))


def test_a_server_that_goes_away_while_writing_is_worth_a_retry(mysql: Store, stack: Stack) -> None:
    publish(mysql, "a", 1, item=100)

    def cut() -> Iterator[pl.DataFrame]:
        yield lists(200)[0]
        stack.compose("restart", "--timeout", "10", "mysql")
        yield pl.DataFrame({"list": [5], "items": [[1]], "scores": [[0.5]]})

    with pytest.raises(Unavailable, match="the old generation is in force, and a retry writes anew"):
        mysql.write(generation("b", 2), cut(), visitors(), DEFAULT)
    end = time.monotonic() + 120
    while True:
        try:
            assert shop_reads(stack, 20) == "[100,2]"
            break
        except pymysql.Error:
            assert time.monotonic() < end
            time.sleep(1)
    assert publish(store(), "b", 2, item=200)
    assert shop_reads(stack, 20) == "[200,2]"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://nightjar:geheim@h/d", "holds a password"),
        ("mysql://h/d", "expected mysql://user@host:3306/database"),
        ("mysql://u@h", "expected mysql://user@host:3306/database"),
    ],
)
def test_an_address_that_is_none_is_told_without_the_password(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTJAR_RECOMMENDATIONS", url)
    with pytest.raises(BadConfig, match=words) as told:
        store()
    assert "geheim" not in str(told.value)


def test_a_wrong_password_is_told(mysql: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong").write_text("wrong")
    monkeypatch.setenv("NIGHTJAR_RECOMMENDATIONS_PASSWORD_FILE", str(tmp_path / "wrong"))
    with pytest.raises(BadConfig, match=r"Access denied .*is it the right password file"):
        mysql.in_force()
