"""Measures the c2 fit on what people did in c2–as_of, beside the simple methods on the same users."""

import json
import logging
from collections.abc import Iterator, Mapping

import numpy as np

from tasks import dataset_files, fits
from tasks.contracts import Dataset, Estimate, EvaluateRecallConfig, RecallReport, Retriever
from tasks.recsys import baselines, evaluation, metrics
from tasks.recsys.evaluation import DEPTHS, HEADLINE, Question
from tasks.recsys.interactions import Interactions, Ints
from tasks.recsys.metrics import Doubles, Mean
from tasks.tracking import TaskRun

log = logging.getLogger(__name__)

MODELS = ("two_tower", "blend")
HEADLINE_METRIC = f"recall_at_{HEADLINE}"


def evaluate_recall(dataset: Dataset, retriever: Retriever, config: EvaluateRecallConfig, run: TaskRun) -> RecallReport:
    """Writes every metric of the two-tower, the blend and each baseline; logs them to the Retriever's own run."""
    interactions = dataset_files.read_interactions(run.fetch(dataset))
    cut, deepest = dataset.second_cut, max(DEPTHS)
    asked = evaluation.question(interactions, cut, dataset.as_of, dataset.history_cap)
    log.info("asked about %d warm users; %d are cold", len(asked.truth), len(asked.cold))
    sources = fits.read_retriever(run.fetch(retriever), dataset, interactions, cut, deepest)
    values: dict[str, dict[str, Doubles]] = {}
    report: dict[str, object] = {}
    lists = {
        "two_tower": sources.tower.recommend(asked.asked, deepest)[0],
        "blend": np.concatenate([_nobody(deepest), *(b.item for b in sources.blended(asked.asked, deepest))]),
    }
    for name, found in _with_baselines(lists, interactions, asked, cut, deepest):
        values[name] = evaluation.per_user(found, asked.truth)
        report[name] = _rows(found, asked, interactions.before(cut), config)
        log.info("%s: recall@%d %s", name, HEADLINE, _short(_headline(values[name], config)))
    report["cold_users.popular"] = _cold(asked, sources.popular, config)
    best = max(baselines.BASELINES, key=lambda name: float(np.sum(values[name][HEADLINE_METRIC])))
    gain = metrics.paired(
        values["blend"][HEADLINE_METRIC], values[best][HEADLINE_METRIC], config.resamples, config.seed
    )
    tower_gain = metrics.paired(
        values["two_tower"][HEADLINE_METRIC], values[best][HEADLINE_METRIC], config.resamples, config.seed
    )
    report["paired"] = {f"blend_minus_{best}": vars(gain), f"two_tower_minus_{best}": vars(tower_gain)}
    log.info("blend minus the best baseline, %s: %s", best, _short(gain))
    out = run.work / "recall"
    out.mkdir()
    (out / "recall.json").write_text(json.dumps(report, indent=1, sort_keys=True))
    _log(run, retriever.run_id, report)
    return RecallReport(
        **run.store(out, dataset.as_of),
        dataset_digest=dataset.digest,
        two_tower=Estimate(**vars(_headline(values["two_tower"], config))),
        blend=Estimate(**vars(_headline(values["blend"], config))),
        baseline=best,
        best_baseline=Estimate(**vars(_headline(values[best], config))),
        blend_minus_baseline=Estimate(**vars(gain)),
    )


def _nobody(k: int) -> Ints:
    return np.zeros((0, k), dtype=np.int32)


def _headline(values: Mapping[str, Doubles], config: EvaluateRecallConfig) -> Mean:
    return metrics.estimate(values[HEADLINE_METRIC], config.resamples, config.seed)


def _with_baselines(
    lists: Mapping[str, Ints], interactions: Interactions, asked: Question, cut: int, k: int
) -> Iterator[tuple[str, Ints]]:
    """The models' lists, then each baseline's."""
    yield from lists.items()
    for name, baseline in baselines.BASELINES.items():
        yield name, baseline(interactions, asked.asked, cut, k)


def _rows(lists: Ints, asked: Question, known: Interactions, config: EvaluateRecallConfig) -> dict[str, object]:
    """Every metric of one method: for all that counts, and for each part of it; coverage and popularity bias."""
    rows: dict[str, object] = {}
    for part, counts in evaluation.populations(asked).items():
        found = evaluation.estimates(
            evaluation.of_population(lists, asked.truth, counts), config.resamples, config.seed
        )
        rows |= {f"{part}.{name}" if part else name: vars(mean) for name, mean in found.items()}
    popularity = np.bincount(known.item, minlength=known.items)
    bias = metrics.average_popularity(lists, HEADLINE, popularity)
    rows["coverage_at_50"] = metrics.coverage(lists, HEADLINE, known.items)
    rows["average_popularity_at_50"] = vars(metrics.estimate(bias, config.resamples, config.seed))
    return rows


def _cold(asked: Question, popular: Ints, config: EvaluateRecallConfig) -> dict[str, object]:
    """What users without a history get: the most popular items."""
    lists = np.tile(popular, (len(asked.cold), 1))
    found = evaluation.estimates(evaluation.per_user(lists, asked.cold), config.resamples, config.seed)
    return {name: vars(mean) for name, mean in found.items()}


def _log(run: TaskRun, retriever_run: str, report: Mapping[str, object]) -> None:
    """Logs each value under the method's and the metric's name, its interval and n beside it."""
    flat: dict[str, float | None] = {}
    for method, rows in report.items():
        for name, value in rows.items() if isinstance(rows, dict) else ():
            if isinstance(value, dict):
                flat |= {f"{method}.{name}{'.' + k if k != 'value' else ''}": v for k, v in value.items()}
            else:
                flat[f"{method}.{name}"] = value
    for target in (run.run_id, retriever_run):
        run.metrics(flat, run_id=target)


def _short(mean: Mean) -> str:
    if mean.value is None or mean.low is None:
        return f"no interval, n = {mean.n}"
    return f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}], n = {mean.n}"
