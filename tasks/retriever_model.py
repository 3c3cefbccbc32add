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
from tasks.recsys.interactions import EVENTS, Histories, Ints, Longs
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
        """items, scores: the best `k` items of each history, by the two-tower alone.

        histories: columns `items` (itemids, oldest first) and, if known, `events` (view, addtocart, transaction).
        An itemid that is newer than the fit is recommended to whom it is a repeat.  Raises BadData for a history that
        is not in this form.
        """
        asked, itemids = self._histories(histories)
        found, scores = self.tower.recommend(asked, int((params or {}).get("k", K)))
        kept = [row >= 0 for row in found]
        return pd.DataFrame(
            {
                "items": [itemids[row[keep]].tolist() for row, keep in zip(found, kept, strict=True)],
                "scores": [row[keep].tolist() for row, keep in zip(scores, kept, strict=True)],
            }
        )

    def _histories(self, histories: pd.DataFrame) -> tuple[Histories, Longs]:
        """The histories in dense ids, and the itemid of each: those that the fit knows, then the new ones."""
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
        flat = np.concatenate([np.zeros(0, dtype=np.int64), *items])
        new = np.setdiff1d(flat, self.itemids)
        event = np.concatenate([np.zeros(0, dtype=np.int8), *codes])
        users, time = np.arange(len(items), dtype=np.int32), np.arange(len(flat), dtype=np.int64)
        return Histories(users, start, self._encoded(flat, new), event, time), np.append(self.itemids, new)

    def _encoded(self, itemids: Longs, new: Longs) -> Ints:
        """[n] dense ids of itemids, each of which the fit knows or is one of the new ones, which ascend."""
        at = np.searchsorted(self.itemids, itemids, sorter=self.order)
        known = self.order[np.minimum(at, len(self.order) - 1)]
        beyond = len(self.itemids) + np.searchsorted(new, itemids)
        return np.where(self.itemids[known] == itemids, known, beyond).astype(np.int32)


def _load_pyfunc(data_path: str) -> RetrieverModel:
    """What MLflow calls with the folder of a fit."""
    folder = Path(data_path)
    itemids: Longs = storage.read_table(folder / fits.ENCODER)["itemid"].to_numpy()
    return RetrieverModel(fits.read_tower(folder), itemids)
