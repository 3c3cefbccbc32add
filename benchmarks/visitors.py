"""More visitors of the same shop, for benchmarks of what a shop costs that grows."""

import shutil
from pathlib import Path

import numpy as np

from benchmarks.nights import Night
from tasks import dataset_files
from tasks.contracts import Dataset, PrepareDataConfig, RunContext
from tasks.recsys.interactions import Interactions, histories, sort_interactions
from tasks.tracking import task_run


def more(known: Interactions, times: int) -> Interactions:
    """Interactions of `times` as many visitors with the same items.

    To each visitor others are added who did the same, save that the newest interaction is with an item drawn from all
    interactions before it: so they have histories of their own, as long and about as popular, and nobody meets an
    item before it is known.  Ids stay in the order of first appearance.
    """
    rng = np.random.default_rng(0)
    order = np.argsort(known.time, kind="stable")
    earlier = np.empty(len(known), dtype=np.int64)
    earlier[order] = np.arange(len(known))
    newest = np.flatnonzero(np.diff(known.user, append=-1))
    item = np.tile(known.item, (times, 1))
    drawn = (rng.random((times - 1, len(newest))) * (earlier[newest] + 1)).astype(np.int64)
    item[1:, newest] = known.item[order][drawn]
    user = known.user[None, :] * times + np.arange(times, dtype=np.int32)[:, None]
    return sort_interactions(
        user.reshape(-1), item.reshape(-1), np.tile(known.event, times), np.tile(known.time, times)
    )


def with_more(night: Night, times: int) -> Dataset:
    """The night's Dataset with `times` as many visitors, in the store: all of it that generate_candidates reads."""
    dataset = night.dataset
    context = RunContext.model_validate({"dag_id": "bench", "run_id": f"{times} times the visitors"})
    with task_run("prepare_data", context, [dataset]) as run:
        folder = run.work / "dataset"
        shutil.copytree(night.data, folder)
        rows = more(night.interactions, times)
        for part in (*dataset_files.PARTS, _histories(dataset)):
            shutil.rmtree(folder / part)
        dataset_files.write_interactions(folder, rows, (dataset.first_cut, dataset.second_cut))
        asked = histories(rows, dataset.as_of, dataset.history_cap)
        dataset_files.write_histories(folder / _histories(dataset), asked)
        a_shard = PrepareDataConfig.model_fields["users_per_shard"].default
        counts = {"users": len(asked), "events": len(rows), "shards": -(-len(asked) // a_shard)}
        return dataset.model_copy(update={**run.store(folder, dataset.as_of), **counts})


def _histories(dataset: Dataset) -> Path:
    return Path("cuts", str(dataset.as_of), "histories")
