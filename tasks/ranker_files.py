"""The adapter to what ranks: the items' features as of a cut, the booster as text."""

from pathlib import Path
from typing import Any

import lightgbm
import polars as pl

from tasks import dataset_files
from tasks.failures import BadData
from tasks.recsys.features import FEATURES, ItemTable, item_table

BOOSTER = "ranker.txt"


def read_items(data: Path, cut: int) -> ItemTable:
    """The items as of a cut, with their properties."""
    table = dataset_files.read_items(data, cut).with_columns(pl.col("price").fill_null(float("nan")))
    return item_table({name: table[name].to_numpy() for name in table.columns if table[name].dtype.is_numeric()})


def write_booster(folder: Path, booster: Any) -> None:
    """Writes the trees as LightGBM's own text."""
    (folder / BOOSTER).write_text(booster.model_to_string())


def read_booster(folder: Path) -> Any:
    """The booster, or None when the ranker learned nothing; refuses one of other features."""
    if not (folder / BOOSTER).is_file():
        return None
    booster = lightgbm.Booster(model_file=str(folder / BOOSTER))
    if booster.feature_name() != list(FEATURES):
        raise BadData(
            f"{folder / BOOSTER}: made of features {booster.feature_name()}, this code computes {list(FEATURES)}: "
            "train the ranker again"
        )
    return booster
