"""What the morning page tells of, read from the night's artifacts and from what MLflow keeps of the nights before."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tasks import candidate_files, dataset_files
from tasks.contracts import Dataset, Publication, Ranker, RecallReport
from tasks.nights import Told
from tasks.recsys import attribution, groups, ranking
from tasks.recsys.attribution import Brought
from tasks.recsys.candidates import SOURCES
from tasks.recsys.interactions import EVENTS, Histories, Interactions, Longs
from tasks.recsys.metrics import Mean

VISITORS = 10
SHOWN = 10
"""Interactions and recommendations of a visitor that the page shows."""
RESAMPLES, SEED = 1_000, 7

Measured = Mapping[str, Mapping[str, Any]]
"""Method → metric → its value, or its value with interval and n."""


@dataclass(frozen=True)
class Row:
    """An item in a visitor's history or list."""

    item: int
    category: int
    """−1: unknown"""
    about: str
    """the event and its time; of a recommendation whether it is in the history"""


@dataclass(frozen=True)
class Visitor:
    """One visitor, for a person to judge by eye."""

    visitor: int
    length: int
    """interactions in the history"""
    history: Sequence[Row]
    """the newest first"""
    shown: Sequence[Row]
    """the best first"""


@dataclass(frozen=True)
class Facts:
    """All that the page tells of."""

    dataset: Dataset
    report: RecallReport
    ranker: Ranker
    publication: Publication
    recall: Measured
    ndcg: Mapping[str, Mean]
    features: Sequence[Mapping[str, Any]]
    """empty: nothing was learned"""
    ceiling: Mean
    """recall of the candidates, whole"""
    brought: Mapping[str, Brought]
    curves: Mapping[str, Sequence[float]]
    """name of a learning curve → its values by epoch or tree"""
    daily: Longs
    """[days, event types], the newest first"""
    band: tuple[float, float] | None
    nights: Sequence[Told]
    """tonight first, then the others, that which was begun last first"""
    visitors: Sequence[Visitor]


def read_recall(folder: Path) -> Measured:
    """What `evaluate_recall` has measured."""
    found: Measured = json.loads((folder / "recall.json").read_text())
    return found


def read_ndcg(folder: Path) -> dict[str, Mean]:
    """Order → its NDCG@10, of `train_lambdarank`."""
    return {name: Mean(**found) for name, found in json.loads((folder / "ndcg.json").read_text()).items()}


def read_features(folder: Path) -> Sequence[Mapping[str, Any]]:
    """The ranker's features with what they do; empty where nothing was learned."""
    path = folder / "features.json"
    found: Sequence[Mapping[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return found


def read_brought(
    dataset: Dataset, interactions: Interactions, shards: Sequence[Path]
) -> tuple[Mean, Mapping[str, Brought]]:
    """Recall of the candidates as of c2, and what each source brings to it."""
    cut = dataset.second_cut
    _, truth = groups.judges(interactions, cut, dataset.as_of, dataset.history_cap)
    user, named = [np.zeros(0, dtype=np.int32)], [np.zeros((0, len(SOURCES)), dtype=bool)]
    for shard in shards:
        for ids, pairs in candidate_files.read_blocks(shard / "groups" / f"{cut}.parquet"):
            relevant = ranking.grades(ids[pairs.row], pairs.item, truth) > 0
            user.append(ids[pairs.row[relevant]])
            named.append(pairs.rank[relevant] > 0)
    found, by = np.concatenate(user), np.concatenate(named)
    names = [source.name for source in SOURCES]
    return (
        attribution.ceiling(found, truth, RESAMPLES, SEED),
        attribution.brought(found, by, names, truth, RESAMPLES, SEED),
    )


def read_visitors(dataset: Dataset, data: Path, recommendations: Path) -> list[Visitor]:
    """Some visitors, from the shortest history of two interactions to the longest."""
    past = dataset_files.read_histories(data, dataset.as_of)
    order = np.lexsort((past.user, past.length))
    order = order[past.length[order] > 1] if (past.length > 1).any() else order
    chosen = past.take(order[np.unique(np.linspace(0, len(order) - 1, min(VISITORS, len(order))).astype(int))])
    ids = dataset_files.read_user_ids(data)[chosen.user]
    lists = _lists(recommendations, ids)
    items = dataset_files.read_item_ids(data)
    category = dict(zip(items.tolist(), dataset_files.read_items(data, dataset.as_of)["category"], strict=False))
    return [
        _visitor(visitor, chosen.take(np.array([at])), items, lists.get(visitor, []), category)
        for at, visitor in enumerate(ids.tolist())
    ]


def _lists(recommendations: Path, visitors: Longs) -> dict[int, list[int]]:
    """Visitor → itemids, the best first."""
    readers = pl.scan_parquet(recommendations / "visitors.parquet").filter(pl.col("visitorid").is_in(visitors.tolist()))
    found = readers.join(pl.scan_parquet(recommendations / "lists.parquet"), on="list").collect()
    return dict(zip(found["visitorid"].to_list(), found["items"].to_list(), strict=True))


def _visitor(
    visitor: int, past: Histories, items: Longs, listed: Sequence[int], category: Mapping[int, int]
) -> Visitor:
    did = [int(items[item]) for item in past.item[::-1]]
    when = [datetime.fromtimestamp(time / 1000, UTC) for time in past.time[::-1].tolist()]
    what = [f"{EVENTS[event]} {at:%Y-%m-%d %H:%M}" for event, at in zip(past.event[::-1].tolist(), when, strict=True)]
    history = [Row(item, category.get(item, -1), about) for item, about in zip(did, what, strict=True)]
    shown = [Row(item, category.get(item, -1), "in the history" if item in did else "new") for item in listed]
    return Visitor(visitor, len(did), history[:SHOWN], shown[:SHOWN])
