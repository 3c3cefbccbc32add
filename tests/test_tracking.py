"""Runs and artifacts in a real MLflow store."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks import storage, tracking
from tasks.contracts import Backup
from tasks.failures import BadConfig, BadData, Skipped, Unavailable
from tasks.tracking import TaskRun
from tests.mlflow_server import serving
from tests.world import Home

AS_OF = 1_440_000_000_000


def stored(run: TaskRun, content: str = "ten bytes!") -> Backup:
    folder = run.work / "thing"
    folder.mkdir()
    (folder / "file.txt").write_text(content)
    return Backup(**run.store(folder, AS_OF), file="file.txt")


def client(home: Home) -> MlflowClient:
    uri = home.environment["MLFLOW_TRACKING_URI"]
    return MlflowClient(uri, uri)


def test_a_retry_finds_the_night_again_and_has_a_run_of_its_own(home: Home) -> None:
    with home.task("prepare_data") as first, home.task("prepare_data", try_number=2) as second:
        assert first.night == second.night
        assert first.run_id != second.run_id
    with home.task("prepare_data", run_id="manual__2") as other:
        assert other.night != first.night
    run = client(home).get_run(first.run_id)
    assert run.info.run_name == "prepare_data"
    assert run.data.tags["mlflow.parentRunId"] == first.night
    assert run.info.status == "FINISHED"


def test_a_night_tells_the_commit_of_its_code(tmp_path: Path) -> None:
    home = Home(tmp_path, {"NIGHTJAR_COMMIT": "0123abc-dirty"})
    with home.task("prepare_data") as run:
        assert run.client.get_run(run.night).data.tags["mlflow.source.git.commit"] == "0123abc-dirty"


def test_a_mapped_task_is_named_by_its_number(home: Home) -> None:
    with home.task("generate_candidates", map_index=3) as run:
        assert client(home).get_run(run.run_id).info.run_name == "generate_candidates[3]"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "FAILED"), (SystemExit(143), "KILLED"), (Skipped("why"), "FINISHED")]
)
def test_a_run_ends_as_its_task_does(home: Home, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), home.task("backup_mysql") as run:
        raise error
    ended = client(home).get_run(run.run_id)
    assert ended.info.status == status
    assert ended.data.tags.get("skipped") == ("why" if status == "FINISHED" else None)


def test_an_artifact_is_read_back_by_the_next_task(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with home.task("backup_mysql") as run:
        artifact = stored(run)
    with home.task("evaluate_recall", [artifact]) as later:
        assert (later.fetch(artifact) / "file.txt").read_text() == "ten bytes!"
        assert later.night == run.night
    assert (artifact.size, artifact.as_of) == (10, AS_OF)
    assert client(home).get_run(later.run_id).data.tags["input.Backup"] == artifact.digest
    assert not list(tmp_path.iterdir())


def test_without_a_server_an_artifact_is_read_where_it_lies(home: Home, tmp_path: Path) -> None:
    """MLflow's own way copies it into the folder of temporary files and leaves it there."""
    with home.task("backup_mysql") as run:
        artifact = stored(run)
    with home.task("evaluate_recall", [artifact]) as later:
        assert later.fetch(artifact) == home.stored(artifact)
    assert tracking.parts(artifact.uri, ["file.txt"], tmp_path / "copies") == home.stored(artifact)
    assert not list(tmp_path.iterdir())


def test_from_a_server_the_wanted_parts_of_an_artifact_are_copied(
    new_home: Callable[[], Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_home().path
    with serving(path) as address:
        home = Home(path, {"MLFLOW_TRACKING_URI": address})
        with home.task("backup_mysql") as run:
            folder = run.work / "thing"
            for name in ("cuts/1/a", "cuts/1/b", "cuts/2/c", "d"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(name)
            artifact = Backup(**run.store(folder, AS_OF), file="d")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        some = tracking.parts(artifact.uri, ["cuts/1", "d"], tmp_path / "some")
        whole = tracking.parts(artifact.uri, [], tmp_path / "whole")
        with pytest.raises(BadData, match="run the task that made it again"):
            tracking.parts(artifact.uri, ["cuts/3"], tmp_path / "none")
    found = {one.relative_to(some).as_posix(): one.read_text() for one in some.rglob("*") if one.is_file()}
    assert found == {name: name for name in ("cuts/1/a", "cuts/1/b", "d")}
    assert storage.folder_digest(whole)[0] == artifact.digest


def test_a_changed_byte_is_refused_with_both_digests(home: Home) -> None:
    with home.task("backup_mysql") as run:
        artifact = stored(run)
    (home.stored(artifact) / "file.txt").write_text("TEN bytes!")
    with pytest.raises(BadData) as failure, home.task("evaluate_recall", [artifact]) as later:
        later.fetch(artifact)
    assert artifact.digest in str(failure.value)
    assert str(failure.value).count("sha256:") == 2


def test_an_artifact_that_is_gone_says_what_to_do(home: Home) -> None:
    with home.task("backup_mysql") as run:
        artifact = stored(run)
    lost = artifact.model_copy(update={"uri": artifact.uri.replace("/thing", "/other")})
    with pytest.raises(BadData, match="run the task that made it again"), home.task("evaluate_recall") as later:
        later.fetch(lost)


def test_inputs_of_two_nights_are_refused(home: Home) -> None:
    with home.task("backup_mysql") as run, home.task("backup_mysql", run_id="manual__2") as other:
        one, two = stored(run), stored(other)
    with pytest.raises(BadConfig, match="different nights"), home.task("evaluate_recall", [one, two]):
        pass


def test_a_server_that_does_not_answer_is_worth_a_retry(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Home(home.path, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    with (
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:9 does not answer"),
        away.task("backup_mysql"),
    ):
        pass


def test_an_absent_number_is_not_logged_as_zero(home: Home) -> None:
    with home.task("evaluate_recall") as run:
        run.metrics({"recall_at_50": None, "ndcg_at_10": 0.5})
        run.params({"long": "x" * 7_000})
    data = client(home).get_run(run.run_id).data
    assert {k: v for k, v in data.metrics.items() if "_at_" in k} == {"ndcg_at_10": 0.5}
    assert len(data.params["long"]) == 6_000
    assert data.params["long"].endswith("…")


def test_a_curve_is_read_back_in_its_order(home: Home) -> None:
    with home.task("train_two_tower") as run:
        run.curve("c1.loss", [3.0, 1.0, 2.0])
    with home.task("write_report") as later:
        assert later.read_curve("c1.loss", run.run_id) == [3.0, 1.0, 2.0]
        assert later.read_curve("c2.loss", run.run_id) == []


def test_other_bytes_for_the_same_instant_are_told_and_the_earlier_run_stays(home: Home) -> None:
    runs = []
    for number, (digest, made) in enumerate(
        (("sha256:a", "D1"), ("sha256:a", "D1"), ("sha256:b", "D1"), ("sha256:c", "D2"))
    ):
        with home.task("prepare_data", run_id=f"manual__{number}") as run:
            run.input("clickstream", digest, "somewhere")
            run.tags({"digest": made})
            run.tell_restated("clickstream", digest, made, AS_OF)
            runs.append(run.run_id)
    tags = [client(home).get_run(run_id).data.tags.get("input_restated") for run_id in runs]
    assert tags[:2] == [None, None]
    assert tags[2] in [f"{run_id}: only rows that do not exist before as_of differ" for run_id in runs[:2]]
    assert tags[3] in [f"{run_id}: what is known before as_of differs" for run_id in runs[:3]]
