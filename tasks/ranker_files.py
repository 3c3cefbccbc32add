"""The adapter to what ranks: the items' features as of a cut, the booster as text."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from tasks import storage
from tasks.failures import BadData
from tasks.recsys.features import FEATURES, ItemTable, item_table
from tasks.recsys.interactions import Interactions

BOOSTER = "ranker.txt"


def read_items(data: Path, interactions: Interactions, cut: int) -> ItemTable:
    """The items as of a cut, with their properties."""
    items = interactions.before(cut).items
    table = storage.read_table(data / "item_properties" / f"{cut}.parquet")
    category, price = np.full(items, -1, dtype=np.int32), np.full(items, np.nan, dtype=np.float32)
    at = table["item"].to_numpy()
    category[at] = table["category"].to_numpy()
    price[at] = table["price"].fill_null(float("nan")).to_numpy()
    return item_table(interactions, cut, category, price)


def write_booster(folder: Path, booster: Any) -> None:
    """Writes the trees up to the best one as LightGBM's own text."""
    (folder / BOOSTER).write_text(booster.model_to_string(num_iteration=booster.best_iteration))


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
