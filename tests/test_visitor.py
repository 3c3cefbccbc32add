"""`make visitor`: what one visitor did, gets and why, from a real small night."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tasks import dataset_files, nights, publication, tracking, visitor
from tasks.demo_data import make_demo_data
from tasks.recsys.candidates import SOURCES
from tasks.recsys.interactions import EVENTS
from tasks.recsys.synthetic import DemoConfig
from tests.test_verbs import BETTER, Night, run_night
from tests.world import Home

NOBODY = 987_654_321


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "shop"
    make_demo_data(folder, DemoConfig(scale=0.003))
    return folder


@pytest.fixture(scope="module")
def night(new_home: Callable[[], Home], shop: Path) -> Night:
    return run_night(new_home(), shop, BETTER)


@pytest.fixture(autouse=True)
def environment(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in night.home.environment.items():
        monkeypatch.setenv(variable, value)


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = visitor.main([str(one) for one in arguments])
    return code, *capsys.readouterr()


def known(night: Night) -> list[int]:
    """The visitors of the shortest and the longest history of each shard."""
    data, as_of = night.home.stored(night.artifacts["dataset"]), night.artifacts["dataset"].as_of
    past, ids = dataset_files.read_histories(data, as_of), dataset_files.read_user_ids(data)
    found = []
    for shard in night.artifacts["candidates"]:
        users = pl.read_parquet(night.home.stored(shard) / "users.parquet")["user"].to_numpy()
        length = past.length[np.searchsorted(past.user, users)]
        found += [int(ids[users[length.argmin()]]), int(ids[users[length.argmax()]])]
    return found


def test_the_list_is_the_published_one_whoever_asks(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    published = publication.store().read(None)
    everybody = known(night)
    assert len(everybody) > 2, "more than one shard"
    for one in everybody:
        code, out, _ = asked(capsys, one, "--json")
        found = json.loads(out)
        mine = published.filter(visitorid=one)
        assert (code, found["differs"], found["length"], found["in_force"]) == (0, "", 50, True)
        shown = [(row["item"], row["score"]) for row in found["listed"]]
        assert [item for item, _ in shown] == mine["itemid"].to_list()[: visitor.SHOWN]
        assert [score for _, score in shown] == pytest.approx(mine["score"].to_list()[: visitor.SHOWN], abs=1e-5)
        assert not {row["item"] for row in found["missed"]} & set(mine["itemid"].to_list())
        assert all(row["score"] <= mine["score"][-1] + 1e-5 for row in found["missed"])


def test_candidates_have_their_sources_and_reasons(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    names = {source.name for source in SOURCES}
    found = json.loads(asked(capsys, known(night)[1], "--json")[1])
    own = {did["item"] for did in found["history"]}
    for row in found["listed"] + found["missed"]:
        assert row["sources"] and set(row["sources"]) <= names
        assert ("own_history" in row["sources"]) == (row["item"] in own)
        moved = [reason["moved"] for reason in row["reasons"]]
        assert moved and moved[:-1] == sorted(moved[:-1], reverse=True)


def test_the_history_is_what_the_events_say(night: Night, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = known(night)[1]
    found = json.loads(asked(capsys, one, "--json")[1])["history"]
    rows = pl.read_csv(shop / "events.csv").filter(
        pl.col("visitorid") == one, pl.col("timestamp") < night.artifacts["dataset"].as_of
    )
    expected = rows.select("itemid", "event", "timestamp").unique().rows()
    assert 1 < len(found) == min(len(expected), 50)
    newest = sorted(expected, key=lambda row: row[2])[-len(found) :]
    assert {(did["item"], did["event"], did["time"]) for did in found} == set(newest)
    times = [did["time"] for did in found]
    assert times == sorted(times, reverse=True)


def test_a_person_reads_it(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, said = asked(capsys, known(night)[1])
    assert (code, said) == (0, "")
    assert "(in force), as of 2015-09-10 00:00 UTC" in out.splitlines()[0]
    assert any(event in out for event in EVENTS)
    assert "gets 50 items; the first 10" in out and "just missed the list\n  51  item" in out
    assert out.endswith("the same list as is published\n")
    assert len(out.splitlines()) < 90 and max(map(len, out.splitlines())) < 140


def test_a_stranger_gets_the_default_list(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = asked(capsys, NOBODY)
    assert code == 0 and "not known" in out
    found = json.loads(asked(capsys, NOBODY, "--json")[1])
    popular = pl.read_parquet(night.home.stored(night.artifacts["publication"]) / "default.parquet")["itemid"]
    assert (found["known"], found["default"], found["listed"]) == (False, popular.to_list()[: visitor.SHOWN], [])


@contextmanager
def changed(sql: str) -> Iterator[None]:
    """The store otherwise, for a while."""
    path = publication.store().place
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(":memory:")) as before:
        db.backup(before)
        db.execute(sql)
        db.commit()
        yield
        before.backup(db)


def test_another_list_than_the_published_one_is_said_loudly(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    with changed("UPDATE list SET items = '[1,' || substr(items, 2), scores = '[9,' || substr(scores, 2)"):
        code, out, said = asked(capsys, known(night)[0])
    assert code == 65
    assert "NOT THE PUBLISHED LIST: at rank 1 item 1 (9.000000) is published" in said
    assert "NOT THE PUBLISHED LIST" in out and "the same list" not in out


def test_a_generation_that_is_not_there_is_refused_with_those_there_are(
    night: Night, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = asked(capsys, 1, "--generation", "z")
    assert code == 78 and "no generation z" in said and night.artifacts["publication"].generation in said


def test_what_the_night_tried_since_changes_nothing(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    """Another ranker, of a try after the publication, is not that of the generation."""
    inputs = {name: night.artifacts[name] for name in ("dataset", "candidates")}
    other = night.home.run("train_lambdarank", {"max_trees": 2, "min_groups": 1, "resamples": 100}, inputs)
    assert other.digest != night.artifacts["ranker"].digest
    code, out, _ = asked(capsys, known(night)[1], "--generation", night.artifacts["publication"].generation)
    assert code == 0 and "the same list" in out


def test_an_empty_home_is_told(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = asked(capsys, 1)
    assert code == 64 and "nothing was published yet" in said


def test_nothing_is_copied_where_there_is_no_server(night: Night, tmp_path: Path) -> None:
    """By a process of its own, whose folder of temporary files is empty before and after."""
    command = [sys.executable, "-m", "tasks.visitor", str(known(night)[0])]
    subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, check=True, stdout=subprocess.DEVNULL)
    assert not list(tmp_path.iterdir())


def test_files_that_were_removed_are_told(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    one, client = known(night)[0], tracking.connect()
    folder = night.home.stored(night.artifacts["ranker"])
    gone = folder.rename(folder.with_name("elsewhere"))
    assert asked(capsys, one)[0] == 65
    client.set_tag(night.artifacts["dataset"].night, nights.PRUNED, "2015-10-01")
    code, _, said = asked(capsys, one)
    client.delete_tag(night.artifacts["dataset"].night, nights.PRUNED)
    gone.rename(folder)
    assert code == 65 and "were removed on 2015-10-01: its lists are still there" in said
    assert asked(capsys, one)[0] == 0
