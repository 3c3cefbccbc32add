"""The adapter to MLflow's model format: makes a folder of files loadable by `mlflow.pyfunc.load_model`.

Beside `tracking` the only module that knows MLflow.  What it writes depends on the files and the code alone, so that an
artifact that carries it keeps its digest.
"""

import shutil
from importlib.metadata import version
from pathlib import Path

import tasks
from tasks import storage

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
