"""Scores the generation of the last earlier as_of on what people did since; a step of publish_recommendations."""

import json
import logging
from pathlib import Path

import numpy as np

from tasks import dataset_files, reader
from tasks.contracts import Dataset, Estimate, Realised
from tasks.publication import Generation, Store
from tasks.recsys import evaluation, realised
from tasks.recsys.interactions import DAY, Ints, Longs
from tasks.recsys.realised import BASELINES, DEPTH, GENERATION, MINUS, Report
from tasks.tracking import TaskRun

log = logging.getLogger(__name__)

RESAMPLES, SEED = 1_000, 7


def measure(run: TaskRun, store: Store, dataset: Dataset, data: Path) -> Realised | None:
    """Logs the metrics to this run and the night's, and realised.json beside the artifact; None: nothing to score.

    Beside and not in it: what was published before is no input of the night, and must not change its digest.
    """
    earlier = [one for one in store.generations() if one.as_of < dataset.as_of]
    if not earlier:
        log.info("realised recall: %s has no generation of an earlier as_of", store.place)
        return None
    generation = earlier[-1]
    report = _score(store, generation, dataset, data)
    days = (dataset.as_of - generation.as_of) / DAY
    for name in (GENERATION, MINUS, *BASELINES):
        log.info("realised recall@50 of %.1f days, %s: %s", days, name, report[name]["recall_at_50"])
    told = {"scored": generation.name, "from": generation.as_of, "to": dataset.as_of, "methods": _plain(report)}
    out = run.work / "realised"
    out.mkdir()
    (out / "realised.json").write_text(json.dumps(told, indent=1, sort_keys=True))
    run.attach(out)
    for target in (run.run_id, run.night):
        run.metrics(_metrics(report), run_id=target)
    return Realised(
        generation=generation.name,
        days=days,
        recall=_estimate(report, GENERATION, "recall_at_50"),
        ndcg=_estimate(report, GENERATION, "ndcg_at_10"),
        baseline=BASELINES[-1],
        baseline_recall=_estimate(report, BASELINES[-1], "recall_at_50"),
        recall_minus_baseline=_estimate(report, MINUS, "recall_at_50"),
    )


def _score(store: Store, generation: Generation, dataset: Dataset, data: Path) -> Report:
    interactions = dataset_files.read_interactions(data)
    asked = evaluation.question(interactions, generation.as_of, dataset.as_of, dataset.history_cap)
    visitors, items = dataset_files.read_user_ids(data), dataset_files.read_item_ids(data)
    shown = reader.lists_of(store, generation.name, visitors[asked.truth.user], DEPTH)
    stranger = reader.default_list(store, generation.name, DEPTH)
    return realised.score(
        interactions, asked, generation.as_of, _dense(shown, items), _dense(stranger, items), RESAMPLES, SEED
    )


def _dense(itemids: Longs, known: Longs) -> Ints:
    """itemids of any shape → dense ids; -1 where `known`, dense id → itemid, lacks it."""
    order = np.argsort(known)
    place = order[np.minimum(np.searchsorted(known, itemids, sorter=order), len(known) - 1)]
    return np.where(known[place] == itemids, place, -1).astype(np.int32)


def _estimate(report: Report, method: str, metric: str) -> Estimate:
    return Estimate(**vars(report[method][metric]))


def _plain(report: Report) -> dict[str, dict[str, dict[str, float | None]]]:
    return {method: {name: vars(mean) for name, mean in found.items()} for method, found in report.items()}


def _metrics(report: Report) -> dict[str, float | None]:
    """The generation's under realised.METRIC, the others' under realised.METHOD.METRIC, interval and n beside each."""
    flat: dict[str, float | None] = {}
    for method, found in report.items():
        whole = method == GENERATION
        for name, mean in found.items():
            if whole or "." not in name:  # of the others the whole is enough here; realised.json has the parts
                key = f"realised.{name}" if whole else f"realised.{method}.{name}"
                flat |= {key: mean.value, f"{key}.low": mean.low, f"{key}.high": mean.high, f"{key}.n": mean.n}
    return flat
