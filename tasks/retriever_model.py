"""The registered retriever as MLflow loads it: `mlflow.pyfunc.load_model("models:/nightjar-retriever@champion")`.

Usable by itself: the folder of a fit carries its checkpoint, index, encoder and the code that reads them.

    model.predict(pd.DataFrame({"items": [[3, 5]], "events": [["view", "addtocart"]]}), params={"k": 50})

gives one row a history with the itemids and their scores, best first.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks import fits, storage
from tasks.failures import BadData
from tasks.recsys.interactions import EVENTS, Histories, Longs
from tasks.recsys.retrieval import Tower

K = 300
"""Items a history, unless params say otherwise."""


class RetrieverModel:
    """A fit that answers histories of itemids."""

    def __init__(self, tower: Tower, itemids: Longs) -> None:
        self.tower = tower
        self.itemids = itemids
        self.order = np.argsort(itemids)

    def predict(self, histories: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """items, scores: the best `k` items of each history, by the two-tower alone; itemids that it lacks are skipped.

        histories: columns `items` (itemids, oldest first) and, if known, `events` (view, addtocart, transaction).
        Raises BadData for a history that is not in this form.
        """
        found, scores = self.tower.recommend(self._histories(histories), int((params or {}).get("k", K)))
        kept = [row >= 0 for row in found]
        return pd.DataFrame(
            {
                "items": [self.itemids[row[keep]].tolist() for row, keep in zip(found, kept, strict=True)],
                "scores": [row[keep].tolist() for row, keep in zip(scores, kept, strict=True)],
            }
        )

    def _histories(self, histories: pd.DataFrame) -> Histories:
        if "items" not in histories:
            raise BadData(
                f"histories have the columns {', '.join(map(str, histories.columns))}; expected items and, if known, "
                "events"
            )
        items = [np.asarray(one, dtype=np.int64) for one in histories["items"]]
        events = histories["events"] if "events" in histories else [["view"] * len(one) for one in items]
        for number, (item, event) in enumerate(zip(items, events, strict=True)):
            if len(item) != len(event) or not set(event) <= set(EVENTS):
                raise BadData(f"history {number}: events {list(event)}, expected {len(item)} of {', '.join(EVENTS)}")
        codes = [np.array([EVENTS.index(name) for name in event], dtype=np.int8) for event in events]
        start = np.concatenate([[0], np.cumsum([len(one) for one in items])]).astype(np.int64)
        flat = self._encoded(np.concatenate([np.zeros(0, dtype=np.int64), *items]))
        event = np.concatenate([np.zeros(0, dtype=np.int8), *codes])
        users = np.arange(len(items), dtype=np.int32)
        whole = Histories(users, start, np.maximum(flat, 0), event, np.arange(len(flat), dtype=np.int64))
        return whole.where(flat >= 0)

    def _encoded(self, itemids: Longs) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """[n]: dense ids, −1 for an item that was unknown at the fit's cut."""
        at = np.searchsorted(self.itemids, itemids, sorter=self.order)
        code = self.order[np.minimum(at, len(self.order) - 1)]
        return np.where(self.itemids[code] == itemids, code, -1).astype(np.int32)


def _load_pyfunc(data_path: str) -> RetrieverModel:
    """What MLflow calls with the folder of a fit."""
    folder = Path(data_path)
    itemids: Longs = storage.read_table(folder / fits.ENCODER)["itemid"].to_numpy()
    return RetrieverModel(fits.read_tower(folder), itemids)
