"""The adapter to MLflow; beside `registry` (models) and `nights` (what is kept) the only module that knows it.

One parent run a night, made by the first task and found again by the tags of its Airflow run; one child run a task
and try, named after the task.  An artifact is a folder of a child run; its URI is runs:/<run id>/<folder>.
"""

import logging
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Dataset as InputDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks import storage
from tasks.contracts import Artifact, RunContext
from tasks.failures import BadConfig, BadData, Skipped, Unavailable

log = logging.getLogger(__name__)

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # a bar has no place in a log

EXPERIMENT = "nightjar"
RETRIEVER_MODEL, RANKER_MODEL = "nightjar-retriever", "nightjar-ranker"
"""Names in the model registry."""
TOWER_CURVES = ("loss", "validation_recall_at_50")
"""What `train_two_tower` logs an epoch, under FIT.CURVE; the second of the fit of c1 alone."""
RANKER_CURVE = "lightgbm.by_tree.ndcg_at_10_artefact"
"""What `train_lambdarank` logs a tree."""
PARENT = "mlflow.parentRunId"
NAME = "mlflow.runName"
PARAM_LIMIT = 6_000
DATASET_DIGEST_LIMIT = 36


class Written(TypedDict):
    """The fields of an artifact that storing it gives."""

    uri: str
    digest: str
    size: int
    night: str
    as_of: int


@dataclass
class TaskRun:
    """One try of one task: what it reads from and writes to MLflow, and a folder of its own to work in."""

    client: MlflowClient
    night: str
    run_id: str
    context: RunContext
    work: Path
    _fetched: dict[str, Path] = field(default_factory=dict)

    def fetch(self, artifact: Artifact) -> Path:
        """The local folder of an artifact, after its digest was checked."""
        if artifact.uri not in self._fetched:
            self._fetched[artifact.uri] = storage.verify(self._download(artifact.uri), artifact.digest)
        return self._fetched[artifact.uri]

    def _download(self, uri: str) -> Path:
        """Where the artifact lies, without a server; else a copy in this try's own folder, which goes with it."""
        copies = None if _is_local(tracking_uri()) else self.work / "fetched" / str(len(self._fetched))
        return _downloaded(uri, copies)

    def store(self, folder: Path, as_of: int) -> Written:
        """Logs a folder as this run's artifact, under its own name."""
        digest, size = storage.folder_digest(folder)
        started = time.monotonic()
        self.client.log_artifacts(self.run_id, str(folder), artifact_path=folder.name)
        log.info("stored %s: %.1f MB in %.1f s, %s", folder.name, size / 1e6, time.monotonic() - started, digest)
        self.tags({"digest": digest})
        uri = f"runs:/{self.run_id}/{folder.name}"
        return Written(uri=uri, digest=digest, size=size, night=self.night, as_of=as_of)

    def attach(self, folder: Path, run_id: str | None = None) -> None:
        """Logs a folder for a person to look at, under its own name, to this run or another; no task reads it."""
        self.client.log_artifacts(run_id or self.run_id, str(folder), artifact_path=folder.name)

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs settings; MLflow would cut a long value silently, so it is cut here, visibly."""
        texts = {key: str(value) for key, value in values.items()}
        params = [Param(k, v if len(v) <= PARAM_LIMIT else v[: PARAM_LIMIT - 1] + "…") for k, v in texts.items()]
        self.client.log_batch(self.run_id, params=params)

    def metrics(self, values: Mapping[str, float | None], run_id: str | None = None) -> None:
        """Logs numbers to this run or another; an absent value (n = 0) is not logged."""
        now = int(time.time() * 1000)
        found = [Metric(key, float(value), now, 0) for key, value in values.items() if value is not None]
        for at in range(0, len(found), 1_000):
            self.client.log_batch(run_id or self.run_id, metrics=found[at : at + 1_000])

    def curve(self, name: str, values: Sequence[float]) -> None:
        """Logs numbers under one name, at the steps 1, 2, …"""
        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for step, value in enumerate(values, 1)]
        for at in range(0, len(metrics), 1_000):
            self.client.log_batch(self.run_id, metrics=metrics[at : at + 1_000])

    def read_curve(self, name: str, run_id: str) -> list[float]:
        """What a run logged under a name, by step; empty where it logged nothing."""
        found = self.client.get_metric_history(run_id, name)
        return [one.value for one in sorted(found, key=lambda metric: (metric.step, metric.timestamp))]

    def setting(self, artifact: Artifact, name: str) -> str:
        """A setting of the task that wrote an artifact."""
        return str(self.client.get_run(run_of(artifact)).data.params[name])

    def tags(self, values: Mapping[str, str], run_id: str | None = None) -> None:
        """Sets tags on this run or another."""
        for key, value in values.items():
            self.client.set_tag(run_id or self.run_id, key, value)

    def input(self, name: str, digest: str, source: str) -> None:
        """Records what the run read.  MLflow keeps 36 characters of a digest; the tag keeps all."""
        short = digest.removeprefix("sha256:")[:DATASET_DIGEST_LIMIT]
        dataset = InputDataset(name=name, digest=short, source_type="local", source=source)
        tag = InputTag("mlflow.data.context", name)
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset=dataset, tags=[tag])])
        self.tags({f"input.{name}": digest})

    def tell_restated(self, name: str, input_digest: str, digest: str, as_of: int) -> None:
        """Tags the run when an earlier one of the same as_of read other bytes.  That one stays as it was."""
        self.tags({"as_of": str(as_of)})
        experiment = self.client.get_run(self.run_id).info.experiment_id
        earlier = self.client.search_runs(
            [experiment],
            f"tags.as_of = '{as_of}' and tags.`input.{name}` != '{input_digest}' and attributes.status = 'FINISHED'",
        )
        if not earlier:
            return
        same = earlier[0].data.tags.get("digest") == digest
        told = "only rows that do not exist before as_of differ" if same else "what is known before as_of differs"
        log.warning("input restated: run %s of the same as_of read other bytes; %s", earlier[0].info.run_id, told)
        self.tags({"input_restated": f"{earlier[0].info.run_id}: {told}"})

    def register(self, model: str, artifact: Written, folder: str = "") -> str:
        """Makes a folder of the artifact the newest version of a registered model; returns its number."""
        try:
            self.client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        path = "/".join(part for part in (artifact["uri"].rsplit("/", 1)[1], folder) if part)
        source = f"{self.client.get_run(self.run_id).info.artifact_uri}/{path}"
        tags = {"digest": artifact["digest"], "as_of": str(artifact["as_of"]), "run_type": self.context.run_type}
        return str(self.client.create_model_version(model, source, self.run_id, tags=tags).version)

    def finish_night(self) -> None:
        """Marks the night's own run as finished: its last task has done its work."""
        self.client.set_terminated(self.night, "FINISHED")


def run_of(artifact: Artifact) -> str:
    """The MLflow run that wrote an artifact."""
    return artifact.uri.removeprefix("runs:/").partition("/")[0]


def tracking_uri() -> str:
    """Where MLflow's store is, from MLFLOW_TRACKING_URI."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise BadConfig("MLFLOW_TRACKING_URI is not set: expected sqlite:///path/mlflow.db or http://host:port")
    return uri


@contextmanager
def task_run(task: str, context: RunContext, inputs: Sequence[Artifact]) -> Iterator[TaskRun]:
    """The MLflow run of one try of a task, below the run of its night; its end state is the task's."""
    client, experiment = _connect()
    nights = {artifact.night for artifact in inputs} or {_night(client, experiment, context)}
    if len(nights) > 1:
        raise BadConfig(f"{task}: its inputs are of different nights ({', '.join(sorted(nights))}); pass one night's")
    (night,) = nights
    name = task if context.map_index < 0 else f"{task}[{context.map_index}]"
    tags = {**_airflow_tags(context), NAME: name, PARENT: night, "airflow.task_id": task}
    run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    work = Path(tempfile.mkdtemp(prefix=f"{task}-"))
    run = TaskRun(client, night, run_id, context, work)
    try:
        for artifact in inputs:
            run.input(type(artifact).__name__, artifact.digest, artifact.uri)
        yield run
        used = resource.getrusage(resource.RUSAGE_SELF)
        run.metrics({"cpu_seconds": used.ru_utime + used.ru_stime, "peak_memory_bytes": _peak_memory()})
    except Skipped as error:
        run.tags({"skipped": str(error)})
        client.set_terminated(run_id, "FINISHED")
        raise
    except BaseException as error:
        state = "KILLED" if isinstance(error, SystemExit | KeyboardInterrupt) else "FAILED"
        for ended in (run_id, night):
            client.set_terminated(ended, state)
        raise
    else:
        client.set_terminated(run_id, "FINISHED")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def copy(uri: str, folder: Path) -> Path:
    """Copies a file of an artifact, runs:/RUN/FOLDER/FILE, into a folder; returns its path there."""
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=tracking_uri()))


def parts(uri: str, names: Sequence[str], folder: Path) -> Path:
    """An artifact's folder with at least these of its files and folders: where it lies, or copies in a new `folder`.

    No names: all of it.  Unchecked, as a digest is of a whole artifact.  Raises BadData for what MLflow does not have.
    """
    local = _is_local(tracking_uri())
    if local or not names:
        return _downloaded(uri, None if local else folder)
    for name in names:
        _downloaded(f"{uri}/{name}", (folder / name).parent)
    return folder


def _downloaded(uri: str, copies: Path | None) -> Path:
    """A file or folder of MLflow's, copied into a folder, which is made; None: where it lies."""
    try:
        if copies is None:
            return _lying(uri)
        copies.mkdir(parents=True, exist_ok=True)
        return copy(uri, copies)
    except (OSError, MlflowException) as error:
        if isinstance(error, MlflowException) and error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise BadData(f"artifact {uri} is not in MLflow ({error}): run the task that made it again") from None


def _lying(uri: str) -> Path:
    """Where runs:/RUN/PATH lies on this machine.  MLflow resolves a runs:/ address by a copy that nobody removes."""
    run_id, _, path = uri.removeprefix("runs:/").partition("/")
    root = _connect()[0].get_run(run_id).info.artifact_uri
    return Path(get_artifact_repository(root).download_artifacts(path))  # type: ignore[no-untyped-call]


def connect() -> MlflowClient:
    """A client of the store that answers, for what is no task."""
    return _connect()[0]


def _connect() -> tuple[MlflowClient, str]:
    """A client and the id of the experiment, made at the first use."""
    uri = tracking_uri()
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return client, str(experiment.experiment_id)
        return client, str(client.create_experiment(EXPERIMENT, artifact_location=_artifact_location(uri)))
    except MlflowException as error:
        raise Unavailable(f"MLflow at {uri} does not answer: {error}; is it up, is the address right?") from error


def _artifact_location(uri: str) -> str | None:
    """Beside the database when there is no server; a server knows its own."""
    if not _is_local(uri):
        return None
    folder = Path(unquote(urlparse(uri).path)[1:]).resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "artifacts").as_uri()


def _is_local(uri: str) -> bool:
    """True without a server: database and artifacts are files of this machine."""
    return urlparse(uri).scheme == "sqlite"


def _peak_memory() -> int:
    """Bytes of this process at its largest.  The kernel's ru_maxrss starts at that of the parent, VmHWM does not."""
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _night(client: MlflowClient, experiment: str, context: RunContext) -> str:
    """The parent run of this Airflow run; a retry of the first task finds it again."""
    tags = {**_airflow_tags(context), "nightjar.night": "true"}
    found = client.search_runs([experiment], " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items()))
    if found:
        return str(found[0].info.run_id)
    commit = os.environ.get("NIGHTJAR_COMMIT", "")
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return str(client.create_run(experiment, run_name=f"night {context.run_id}", tags=tags).info.run_id)


def _airflow_tags(context: RunContext) -> dict[str, str]:
    return {"airflow.dag_id": context.dag_id, "airflow.run_id": context.run_id}
