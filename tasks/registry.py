"""The adapter to MLflow's models: the format that makes a folder loadable, the registry's aliases, champions' records.

Beside `tracking` and `nights` the only module that knows MLflow.  What it writes into a folder depends on the files
and the code alone, so that an artifact that carries it keeps its digest.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tasks
from tasks import storage
from tasks.failures import Unavailable
from tasks.recsys.gate import Record
from tasks.recsys.metrics import Mean
from tasks.tracking import RETRIEVER_MODEL

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPIONS = 30
"""Champions that a night is compared with: a month in which each took over."""
SEARCHED = 1_000
"""Newest versions that they are looked for among."""
RETRIEVER_PACKAGES = ("faiss-cpu", "numpy", "pandas", "polars", "pyarrow", "pydantic", "scipy", "torch")
RANKER_PACKAGES = ("lightgbm", "numpy", "pandas")


def describe_retriever(folder: Path, identity: str) -> None:
    """Makes the folder of a fit a model that takes histories: columns items, events; and gives items, scores."""
    from mlflow.models import ModelSignature  # imported late: it takes as long as a small task
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, ColSpec

    signature = ModelSignature(
        inputs=Schema(
            [ColSpec(Array(DataType.long), "items"), ColSpec(Array(DataType.string), "events", required=False)]
        ),
        outputs=Schema([ColSpec(Array(DataType.long), "items"), ColSpec(Array(DataType.float), "scores")]),
        params=ParamSchema([ParamSpec("k", DataType.integer, 300)]),
    )
    source = Path(tasks.__file__).parent
    shutil.copytree(source, folder / "code" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    _write(folder, identity, signature, "tasks.retriever_model", RETRIEVER_PACKAGES, data=".", code="code")


def describe_ranker(folder: Path, booster: str, features: list[str]) -> None:
    """Makes the folder of a booster (its file name) a model that takes feature columns and gives scores."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, Schema
    from mlflow.types.schema import ColSpec

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.float, name) for name in features]),
        outputs=Schema([ColSpec(DataType.double)]),
    )
    identity = storage.file_digest(folder / booster)
    _write(folder, identity, signature, "mlflow.lightgbm", RANKER_PACKAGES, data=booster, code=None)


def _write(
    folder: Path, identity: str, signature: object, loader: str, packages: tuple[str, ...], data: str, code: str | None
) -> None:
    from mlflow import pyfunc
    from mlflow.models import Model

    model = Model(utc_time_created=None, model_uuid=identity[:32], signature=signature)
    model.utc_time_created = "1970-01-01 00:00:00"  # the run has the time; the file is to be the same each time
    if loader == "mlflow.lightgbm":
        model.add_flavor("lightgbm", lgb_version=version("lightgbm"), data=data, model_class="lightgbm.basic.Booster")
    pyfunc.add_to_model(model, loader_module=loader, data=data, code=code)
    model.save(folder / "MLmodel")
    pins = "".join(f"{name}=={version(name)}\n" for name in packages)
    (folder / "requirements.txt").write_text(pins)


def champions(client: "MlflowClient", before: str) -> list[Record]:
    """What the last champions reached, newest first; `before`: only versions of the retriever older than this one.

    Only those that took over and were not rolled back since have a record.
    """
    found = client.search_model_versions(
        f"name = '{RETRIEVER_MODEL}'", max_results=SEARCHED, order_by=["version_number DESC"]
    )
    crowned = [
        one for one in found if one.tags.get("champion") and "figures" in one.tags and int(one.version) < int(before)
    ]
    return [
        Record(
            name=f"version {one.version}",
            as_of=int(one.tags["as_of"]),
            forced=one.tags["champion"] == "forced",
            figures={name: Mean(**mean) for name, mean in json.loads(one.tags["figures"]).items()},
        )
        for one in crowned[:CHAMPIONS]
    ]


def record(client: "MlflowClient", retriever_version: str, figures: Mapping[str, Mean]) -> None:
    """Records what a night reached, on its retriever's version: a measure of later ones once it is a champion."""
    texts = json.dumps({name: vars(mean) for name, mean in figures.items()})
    client.set_model_version_tag(RETRIEVER_MODEL, retriever_version, "figures", texts)


def enthrone(
    client: "MlflowClient", versions: Mapping[str, str | None], verdict: str, withdrawn: Sequence[str] = ()
) -> None:
    """Makes these versions the champions, as the verdict says, and the retrievers `withdrawn` no measure of others.

    Raises Unavailable when the store does not answer; doing it again is harmless.
    """
    from mlflow.exceptions import MlflowException

    try:
        for version in withdrawn:
            client.set_model_version_tag(RETRIEVER_MODEL, version, "champion", "")
        client.set_model_version_tag(RETRIEVER_MODEL, str(versions[RETRIEVER_MODEL]), "champion", verdict)
        point(client, "champion", versions)
    except MlflowException as error:
        raise Unavailable(f"MLflow's registry refused it: {error}") from error


def point(client: "MlflowClient", alias: Literal["champion", "challenger"], versions: Mapping[str, str | None]) -> None:
    """Points an alias of each registered model at a version; where there is none, takes the alias away."""
    for model, number in versions.items():
        if number is not None:
            client.set_registered_model_alias(model, alias, number)
        elif client.search_registered_models(f"name = '{model}'"):
            client.delete_registered_model_alias(model, alias)
