"""`make prune` on a real MLflow store and a real SQLite file: what is removed, and what stays whatever its age."""

from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from tasks import nights, prune, publication, tracking
from tasks.contracts import Publication
from tasks.nights import Night
from tasks.publication import Generation
from tasks.tracking import RANKER_MODEL, RETRIEVER_MODEL, TaskRun
from tests.world import Home

DEFAULT = pl.DataFrame({"itemid": [7], "score": [1.0]})
FILES = ("dataset", "models")


def store(run: TaskRun, name: str) -> None:
    folder = run.work / name
    folder.mkdir()
    (folder / "large.bin").write_bytes(b"x" * 1_000)
    written = run.store(folder, 1)
    run.metrics({"recall_at_50": 0.5})
    for model in (RETRIEVER_MODEL, RANKER_MODEL) if name == "models" else ():
        run.register(model, written)


def make_night(home: Home, number: int) -> str:
    """A night of two tasks, each with a file of its own, and its generation; its id."""
    night = ""
    for name, task in zip(FILES, ("prepare_data", "train_two_tower"), strict=True):
        with home.task(task, run_id=f"manual__{number}") as run:
            store(run, name)
            night = run.night
    run.finish_night()
    generation = Generation(f"g{number}", number, night, "promoted", "good", str(number), str(number))
    publication.store().write(generation, [], [], DEFAULT)
    return night


def point(alias: str, model: str, version: int) -> None:
    tracking.connect().set_registered_model_alias(model, alias, str(version))


def files(home: Home) -> dict[str, list[str]]:
    """Night → the names of the artifacts that it has."""
    client = tracking.connect()
    found: dict[str, list[str]] = {}
    for path in sorted(home.path.glob("mlflow/artifacts/*/artifacts/*/large.bin")):
        night = client.get_run(path.parents[2].name).data.tags[tracking.PARENT]
        found.setdefault(night, []).append(path.parent.name)
    return {night: sorted(names) for night, names in found.items()}


@pytest.fixture
def shop(home: Home) -> list[str]:
    """Five nights, the first one first; the newest is champion, challenger and in force."""
    made = [make_night(home, number) for number in range(1, 6)]
    for model in (RETRIEVER_MODEL, RANKER_MODEL):
        point("champion", model, 5)
        point("challenger", model, 5)
    publication.store().switch("g5")
    return made


def names() -> list[str]:
    return [one.name for one in publication.store().generations()]


def test_the_plan_removes_nothing(shop: list[str], home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune.main(["--nights", "2", "--generations", "2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in told if line.startswith("remove  night")] == [
        f"remove  night manual__{number}" for number in (3, 2, 1)
    ]
    assert all("0.0 MB of files; its metrics stay" in line for line in told if line.startswith("remove  night"))
    assert [line for line in told if "generation g" in line] == [
        f"remove  generation g{number} of {home.path}/recommendations.db" for number in (1, 2, 3)
    ]
    assert told[-1].startswith("to remove: 3 nights, 0.0 MB, and 3 generations; nothing was removed")
    assert files(home) == dict.fromkeys(shop, sorted(FILES))
    assert len(names()) == 5


def test_old_nights_lose_their_files_and_keep_their_numbers(shop: list[str], home: Home) -> None:
    client = MlflowClient(home.environment["MLFLOW_TRACKING_URI"])
    (old,) = [night for night in nights.with_files(client) if night.run_id == shop[0]]
    assert nights.size(client, old) == 2_000
    assert prune.main(["--nights", "2", "--generations", "2", "--yes"]) == 0
    assert files(home) == dict.fromkeys(shop[3:], sorted(FILES))
    assert names() == ["g4", "g5"]
    assert {client.get_run(run_id).data.metrics["recall_at_50"] for run_id in old.runs} == {0.5}
    assert nights.PRUNED in client.get_model_version(RETRIEVER_MODEL, "1").tags
    assert nights.PRUNED not in client.get_model_version(RETRIEVER_MODEL, "5").tags
    assert {night.run_id for night in nights.with_files(client)} == set(shop[3:])


def test_the_morning_page_of_an_old_night_stays_on_its_own_run(shop: list[str], home: Home, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("good morning")
    with home.task("write_report", run_id="manual__1") as run:
        run.attach(tmp_path / "report")
        run.attach(tmp_path / "report", run_id=run.night)
    for number in (6, 7):
        make_night(home, number)
    prune.main(["--nights", "1", "--generations", "2", "--yes"])
    pages = [path.parents[2].name for path in home.path.glob("mlflow/artifacts/*/artifacts/report/report.html")]
    assert pages == [run.night]


def test_what_an_alias_names_stays_with_all_it_was_made_from(
    shop: list[str], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    point("champion", RETRIEVER_MODEL, 1)
    point("reference", RANKER_MODEL, 2)
    prune.main(["--nights", "1", "--generations", "2", "--yes"])
    # the fourth: its generation is the one to roll back to
    assert files(home) == {shop[at]: sorted(FILES) for at in (0, 1, 3, 4)}
    told = capsys.readouterr().out
    assert "nightjar-retriever@champion" in told
    assert "nightjar-ranker@reference" in told
    assert "its generation g4 is kept" in told


def test_the_publication_in_force_stays_however_old(
    shop: list[str], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    put = publication.store()
    with put.connection() as db, put.transaction(db):
        db.execute("UPDATE in_force SET generation = 'g1'")
    prune.main(["--nights", "1", "--generations", "2", "--yes"])
    assert set(files(home)) == {shop[0], shop[3], shop[4]}
    assert "its generation g1 is in force" in capsys.readouterr().out
    assert names() == ["g1", "g4", "g5"]


def test_a_night_in_progress_stays(shop: list[str], home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with home.task("evaluate_recall", run_id="manual__7") as run:
        store(run, "dataset")
        for number in (8, 9):
            make_night(home, number)
        prune.main(["--nights", "1", "--generations", "2", "--yes"])
        assert run.night in files(home)
        assert "night manual__7" in capsys.readouterr().out.split("it is in progress")[0]
    run.finish_night()
    for number in (10, 11, 12):
        make_night(home, number)
    prune.main(["--nights", "1", "--generations", "2", "--yes"])
    assert run.night not in files(home)


def test_a_night_that_begins_between_plan_and_removal_stays(shop: list[str], home: Home) -> None:
    client = tracking.connect()
    (old,) = [night for night in nights.with_files(client) if night.run_id == shop[0]]
    assert not nights.in_progress(client, old)
    with home.task("prepare_data", run_id="manual__1"):
        assert nights.in_progress(client, old)


def test_a_run_that_was_killed_long_ago_is_not_in_progress(shop: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    client = tracking.connect()
    night = next(night for night in nights.with_files(client) if night.run_id == shop[0])
    client.update_run(night.runs[0], status="RUNNING")
    assert nights.in_progress(client, night)
    monkeypatch.setattr(nights, "DEAD", 0)
    assert not nights.in_progress(client, night)


def test_it_can_be_done_twice_and_nothing_is_left_to_do(shop: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert prune.main(["--nights", "2", "--generations", "2", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "removed: 0 nights, 0.0 MB, and 0 generations"


def test_where_nothing_was_published_there_is_nothing_to_remove(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune.main([]) == 0
    assert "0 nights" in capsys.readouterr().out
    assert not (home.path / "recommendations.db").exists()


@pytest.mark.parametrize("arguments", [["--nights", "0"], ["--nights", "-3"], ["--generations", "1"]])
def test_to_keep_none_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prune.main(arguments)
    assert ended.value.code == 2
    assert "expected a whole number from" in capsys.readouterr().err


def test_the_rule_by_hand() -> None:
    found = [Night(name, name, -place, name == "d", ()) for place, name in enumerate("abcdef")]
    remove, stays = prune.decide(found, {"b": "named", "e": "named"}, keep=2)
    assert [night.name for night in remove] == ["c", "f"]
    assert [(night.name, why) for night, why in stays] == [("d", "it is in progress"), ("e", "named")]


def of(home: Home, night: str) -> Publication:
    """What a night published, as its next task has it."""
    with home.task("publish_recommendations", run_id="manual__5") as run:
        assert run.night == night
        (run.work / "recommendations").mkdir()
        (run.work / "recommendations" / "lists.parquet").write_bytes(b"x")
        written = run.store(run.work / "recommendations", 5)
    facts = {"generation": "g5", "verdict": "promoted", "reason": "good", "in_force": "g5", "store": "here"}
    return Publication.model_validate({**written, **facts, "users": 1, "rows": 1, "realised": None})


def test_a_night_prunes_those_before_it_and_keeps_what_it_told(shop: list[str], home: Home) -> None:
    publication = of(home, shop[4])
    config = {"keep_nights": 2, "keep_generations": 2}
    pruned = home.run("prune_nights", config, {"publication": publication}, run_id="manual__5")
    assert (pruned.nights, pruned.freed) == (3, 6_000)
    assert files(home) == dict.fromkeys(shop[3:], sorted(FILES))
    (told,) = home.stored(pruned).glob("*")
    lines = told.read_text().splitlines()
    assert len([line for line in lines if line.startswith("remove  night")]) == 3
    assert lines[-1] == "removed: 3 nights, 0.0 MB, and 3 generations"


def test_a_night_that_is_to_keep_all_removes_nothing(shop: list[str], home: Home) -> None:
    publication = of(home, shop[4])
    pruned = home.run("prune_nights", {"keep_nights": 0}, {"publication": publication}, run_id="manual__5")
    assert (pruned.nights, pruned.freed) == (0, 0)
    assert files(home) == dict.fromkeys(shop, sorted(FILES))
