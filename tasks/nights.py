"""The adapter to the nights that MLflow keeps: what of them ran, what it told, which files it left, removing those.

Beside `tracking` and `registry` the only module that knows MLflow.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks.failures import BadData, CannotWrite, Unavailable
from tasks.tracking import DATASET_DIGEST_LIMIT, EXPERIMENT, PARENT, tracking_uri

PRUNED = "nightjar.pruned"
"""Tag of a night whose files were removed, and of the model versions that were among them: when."""
SEARCHED_AT_ONCE = 1_000
"""Runs of a page of MLflow's answer."""
DEAD = 7 * 86_400_000
"""Milliseconds after which a run that never ended is not believed to be in progress; no task may take that long."""


@dataclass(frozen=True)
class Night:
    """A night that still has its files."""

    run_id: str
    name: str
    """of its run, for a person"""
    last: int
    """when a task of it began or ended last, UTC ms"""
    running: bool
    """in progress: what it wrote is being read"""
    runs: tuple[str, ...]
    """the runs of its tasks, each try one; they have the files"""


@dataclass(frozen=True)
class Spent:
    """What the last try of a task that ended well has used."""

    seconds: float
    """from the start to the end of its run"""
    peak_memory: float | None
    """bytes of its process at its largest"""


@dataclass(frozen=True)
class Published:
    """The runs that wrote what a generation was made from."""

    dataset: str
    ranker: str
    candidates: tuple[str, ...]
    """by number of the shard"""


@dataclass(frozen=True)
class Told:
    """What a night has left in numbers; they stay when its files go."""

    run_id: str
    as_of: int | None
    """UTC ms; None: it never came to know"""
    verdict: str
    """what became of its generation; empty: it published none"""
    metrics: Mapping[str, float]
    """of all its tasks"""
    spent: Mapping[str, Spent]
    """task, of a mapped one with its number in brackets → what it has used"""


def newest(client: MlflowClient, count: int) -> list[Told]:
    """The nights that were begun last, the newest first."""
    return [_told(client, parent) for parent in _search(client, "tags.`nightjar.night` = 'true'", count)]


def told(client: MlflowClient, run_id: str) -> Told:
    """What one night has left, so far."""
    return _told(client, client.get_run(run_id))


def published(client: MlflowClient, night: str, generation: str) -> Published:
    """The runs that wrote what a generation of a night was made from, whatever the night has tried since.

    Raises BadData when the night's files were removed, or MLflow knows nothing of it.
    """
    try:
        parent = client.get_run(night)
        tries = _search(client, f"tags.`{PARENT}` = '{night}'")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise BadData(f"MLflow at {tracking_uri()} knows no night {night}, which made {generation}") from None
        raise Unavailable(f"MLflow at {tracking_uri()}: {error}") from error
    if PRUNED in parent.data.tags:
        raise BadData(
            f"the files of the night that made {generation} were removed on {parent.data.tags[PRUNED]}: its lists "
            "are still there, but why they are as they are cannot be seen; expected a generation of a later night"
        )
    last = next((run for run in tries if run.data.tags.get("generation") == generation), None)
    if last is None:
        raise BadData(f"no task of the night {night} says that it has published {generation}: run the night again")
    return _made_from(last, tries, generation)


def _made_from(publication: Run, tries: list[Run], generation: str) -> Published:
    """By digest: a dataset input has the address of the first artifact of the same bytes, maybe of another night."""
    inputs = publication.inputs.dataset_inputs if publication.inputs else []
    read = {(one.dataset.name, one.dataset.digest) for one in inputs}
    found: dict[str, dict[int, str]] = {"Dataset": {}, "Ranker": {}, "Candidates": {}}
    for run in tries:
        digest = run.data.tags.get("digest", "").removeprefix("sha256:")[:DATASET_DIGEST_LIMIT]
        for name, runs in found.items():
            if (name, digest) in read:
                runs.setdefault(int(run.data.params.get("shard", 0)), run.info.run_id)
    missing = [name for name, runs in found.items() if sorted(runs) != list(range(len(runs))) or not runs]
    if missing:
        raise BadData(f"the night that made {generation} has no {' and no '.join(missing)} any more: run it again")
    candidates = found["Candidates"]
    return Published(
        found["Dataset"][0], found["Ranker"][0], tuple(candidates[shard] for shard in range(len(candidates)))
    )


def with_files(client: MlflowClient) -> list[Night]:
    """The nights whose files were not removed, the one that ran last first."""
    with _translated():
        parents = _search(client, "tags.`nightjar.night` = 'true'")
        found = [_night(client, parent) for parent in parents if PRUNED not in parent.data.tags]
    return sorted(found, key=lambda night: (-night.last, night.run_id))


def in_progress(client: MlflowClient, night: Night) -> bool:
    """Whether a task of it has begun since it was read."""
    with _translated():
        return _night(client, client.get_run(night.run_id)).running


def named_by_aliases(client: MlflowClient) -> dict[str, str]:
    """Night → an alias of a registered model, any model and any alias, that names a version which it made."""
    found: dict[str, str] = {}
    with _translated():
        for model in client.search_registered_models():
            for alias, number in model.aliases.items():
                run_id = client.get_model_version(model.name, number).run_id
                night = client.get_run(run_id).data.tags.get(PARENT) if run_id else None
                if night:
                    found[night] = f"{model.name}@{alias}"
    return found


def size(client: MlflowClient, night: Night) -> int:
    """Bytes of all files of its runs."""
    with _translated():
        return sum(_bytes(client, run_id, None) for run_id in night.runs)


def remove_files(client: MlflowClient, night: Night) -> None:
    """Removes all files of its runs; runs, metrics, params and tags stay.  Cut short, it can be done again."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with _translated():
        for run_id in night.runs:
            files = get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=tracking_uri())
            for entry in client.list_artifacts(run_id):
                files.delete_artifacts(entry.path)  # type: ignore[no-untyped-call]
            for version in client.search_model_versions(f"run_id = '{run_id}'"):
                client.set_model_version_tag(version.name, version.version, PRUNED, now)
        client.set_tag(night.run_id, PRUNED, now)


def _night(client: MlflowClient, parent: Run) -> Night:
    runs = _search(client, f"tags.`{PARENT}` = '{parent.info.run_id}'")
    every = [parent.info, *(run.info for run in runs)]
    last = max(max(info.start_time, info.end_time or 0) for info in every)
    alive = any(info.status == "RUNNING" for info in every) and time.time() * 1000 - last < DEAD
    return Night(parent.info.run_id, parent.info.run_name, last, alive, tuple(run.info.run_id for run in runs))


def _told(client: MlflowClient, parent: Run) -> Told:
    tries = _search(client, f"tags.`{PARENT}` = '{parent.info.run_id}' and attributes.status = 'FINISHED'")
    last = {str(run.info.run_name): run for run in reversed(tries)}  # a later try takes the place of an earlier one
    as_of = next((run.data.tags["as_of"] for run in last.values() if "as_of" in run.data.tags), None)
    return Told(
        run_id=str(parent.info.run_id),
        as_of=int(as_of) if as_of else None,
        verdict=parent.data.tags.get("verdict", ""),
        metrics={name: value for run in last.values() for name, value in run.data.metrics.items()},
        spent={
            name: Spent((run.info.end_time - run.info.start_time) / 1000, run.data.metrics.get("peak_memory_bytes"))
            for name, run in last.items()
            if "skipped" not in run.data.tags
        },
    )


def _search(client: MlflowClient, condition: str, count: int = sys.maxsize) -> list[Run]:
    """The newest runs of the experiment that meet the condition, the newest first."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found: list[Run] = []
    token: str | None = None
    while experiment is not None:
        page = client.search_runs(
            [experiment.experiment_id],
            condition,
            max_results=min(count - len(found), SEARCHED_AT_ONCE),
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        found += page
        token = page.token
        if not token or len(found) >= count:
            break
    return found


def _bytes(client: MlflowClient, run_id: str, folder: str | None) -> int:
    entries = client.list_artifacts(run_id, folder)
    return sum(_bytes(client, run_id, one.path) if one.is_dir else one.file_size or 0 for one in entries)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise Unavailable(f"MLflow at {tracking_uri()}: {error}; what was not removed stays, do it again") from error
    except OSError as error:
        raise CannotWrite(f"{error.strerror}: {error.filename}; what was not removed stays, do it again") from None
