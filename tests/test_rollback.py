"""`make rollback`: the pointer and the champions go back, in a real store and a real registry."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import pytest

from tasks import publication, registry, rollback, tracking
from tasks.publication import Generation, State, Store
from tasks.recsys.metrics import Mean
from tasks.tracking import RANKER_MODEL, RETRIEVER_MODEL
from tests.world import Home

DEFAULT = pl.DataFrame({"itemid": [7], "score": [1.0]})


@dataclass(frozen=True)
class Shop:
    """A store and a registry with three nights that were published, and a held one."""

    home: Home
    store: Store

    def in_force(self) -> str:
        current = self.store.in_force()
        return current.name if current else ""

    def champions(self) -> tuple[str, str]:
        client = tracking.connect()
        found = (client.get_model_version_by_alias(model, "champion") for model in (RETRIEVER_MODEL, RANKER_MODEL))
        one, other = (str(version.version) for version in found)
        return one, other

    def verdicts(self) -> dict[str, str]:
        return {one.name: one.verdict for one in self.store.generations()}

    def measures(self) -> set[str]:
        return {record.name for record in registry.champions(tracking.connect(), before="99")}


@pytest.fixture
def shop(home: Home) -> Iterator[Shop]:
    store = publication.store()
    with home.task("train_two_tower") as run:
        folder = run.work / "model"
        folder.mkdir()
        (folder / "weights").write_text("1")
        written = run.store(folder, 1)
        nights: dict[str, State] = {"a": "first", "b": "promoted", "held": "held", "c": "promoted"}
        for number, (name, verdict) in enumerate(nights.items(), start=1):
            versions = {model: run.register(model, written) for model in (RETRIEVER_MODEL, RANKER_MODEL)}
            generation = Generation(name, number, "night", verdict, "its reason", *versions.values())
            store.write(generation, [], [], DEFAULT)
            registry.record(run.client, versions[RETRIEVER_MODEL], {"recall": Mean(0.1, 0.05, 0.2, 9)})
            if verdict != "held":
                store.switch(name)
                registry.enthrone(run.client, versions, verdict)
    yield Shop(home, store)


def test_the_generation_before_comes_back_with_its_champions(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert (shop.in_force(), shop.champions()) == ("c", ("4", "4"))
    assert rollback.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "in force: b, in place of c",
        "champion: nightjar-retriever 2, nightjar-ranker 2",
    ]
    assert (shop.in_force(), shop.champions()) == ("b", ("2", "2"))
    assert shop.verdicts() == {"a": "first", "b": "promoted", "held": "held", "c": "rolled_back"}
    assert shop.measures() == {"version 1", "version 2"}
    assert rollback.main([]) == 0
    assert shop.in_force() == "a"


def test_what_lies_between_is_rolled_back_too_and_a_later_night_takes_over(shop: Shop) -> None:
    assert rollback.main(["--to", "a"]) == 0
    assert shop.verdicts() == {"a": "first", "b": "rolled_back", "held": "held", "c": "rolled_back"}
    assert shop.measures() == {"version 1"}
    shop.store.write(Generation("d", 9, "night", "promoted", "good", "4", "4"), [], [], DEFAULT)
    assert shop.store.switch("d")
    assert rollback.main([]) == 0
    assert shop.in_force() == "a"


def test_a_held_generation_and_one_that_was_rolled_back_are_forced_by_name(shop: Shop) -> None:
    assert rollback.main(["--to", "held"]) == 0
    assert (shop.in_force(), shop.champions()) == ("held", ("3", "3"))
    assert rollback.main(["--to", "c"]) == 0
    assert (shop.in_force(), shop.champions()) == ("c", ("4", "4"))
    assert shop.verdicts() == {"a": "first", "b": "promoted", "held": "forced", "c": "forced"}
    reason = next(one.reason for one in shop.store.generations() if one.name == "c")
    assert reason.startswith("put in force by hand; before: rolled back to held; before: its reason")


def test_done_again_it_mends_what_was_cut_short(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.store.roll_back("b")  # the pointer alone, as when the registry went away
    assert shop.champions() == ("4", "4")
    assert rollback.main(["--to", "b"]) == 0
    assert "in force already: b" in capsys.readouterr().out
    assert (shop.in_force(), shop.champions()) == ("b", ("2", "2"))
    assert shop.measures() == {"version 1", "version 2"}


def test_an_unknown_name_is_refused_with_those_there_are(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert rollback.main(["--to", "z"]) == 78
    assert "no generation z" in (said := capsys.readouterr().err)
    assert "a (first), b (promoted), held (held), c (promoted)" in said
    assert shop.in_force() == "c"


def test_before_the_first_there_is_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert rollback.main(["--to", "a"]) == 0
    assert rollback.main([]) == 78
    assert "nothing was in force before a" in capsys.readouterr().err
    assert (shop.in_force(), shop.champions()) == ("a", ("1", "1"))


def test_nothing_moves_while_the_registry_does_not_answer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert rollback.main([]) == 75
    assert "does not answer" in capsys.readouterr().err
    assert shop.in_force() == "c"


def test_an_empty_home_is_told(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert rollback.main([]) == 64
    assert "nothing was published yet" in capsys.readouterr().err
