"""Measures the c2 fit on what people did in c2–as_of, beside the simple methods on the same users."""

import json
import logging
from collections.abc import Iterator, Mapping

import numpy as np

from tasks import dataset_files, fits
from tasks.contracts import Dataset, Estimate, EvaluateRecallConfig, RecallReport, Retriever
from tasks.recsys import baselines, evaluation, metrics, retrieval
from tasks.recsys.evaluation import DEPTHS, HEADLINE, Question
from tasks.recsys.interactions import Histories, Interactions, Ints, Longs, Truth, distinct
from tasks.recsys.metrics import Doubles, Hits, Mean
from tasks.recsys.parallel import in_order
from tasks.tracking import TaskRun

log = logging.getLogger(__name__)

MODELS = ("two_tower", "blend")
HEADLINE_METRIC = f"recall_at_{HEADLINE}"
DEEPEST = max(DEPTHS)
Rows = dict[str, object]
"""Metric → its value, or its value, interval and n."""


def evaluate_recall(dataset: Dataset, retriever: Retriever, config: EvaluateRecallConfig, run: TaskRun) -> RecallReport:
    """Writes every metric of the two-tower, the blend and each baseline; logs them to the Retriever's own run."""
    interactions = dataset_files.read_interactions(run.fetch(dataset))
    cut = dataset.second_cut
    asked = evaluation.question(interactions, cut, dataset.as_of, dataset.history_cap)
    log.info("asked about %d warm users; %d are cold", len(asked.truth), len(asked.cold))
    sources = fits.read_retriever(run.fetch(retriever), dataset, interactions, cut, DEEPEST)
    popularity = np.bincount(interactions.before(cut).item)
    first, list_of = distinct(asked.asked)
    report: dict[str, Rows] = {}
    headline: dict[str, Doubles] = {}

    def measure(method: tuple[str, Ints]) -> tuple[str, Hits, Rows]:
        return method[0], *measured(method[1], list_of, asked, popularity, config)

    for name, hit, rows in in_order(measure, _lists(sources, interactions, asked.asked.take(first), cut)):
        report[name], headline[name] = rows, metrics.recall_at(hit, asked.truth, HEADLINE)
        log.info("%s: recall@%d %s", name, HEADLINE, _told(_estimate(headline[name], config)))
        if name == "blend":
            report["losses_of_blend"] = _losses(hit, asked)
    for name, cold in _cold_lists(sources, interactions, cut).items():
        report[name] |= _cold(cold, asked.cold, config)
    best = max(baselines.BASELINES, key=lambda name: float(np.sum(headline[name])))
    gains = {name: metrics.paired(headline[name], headline[best], config.resamples, config.seed) for name in MODELS}
    report["paired"] = _paired(gains, best)
    out = run.work / "recall"
    out.mkdir()
    (out / "recall.json").write_text(json.dumps(report, indent=1, sort_keys=True))
    _log(run, retriever.run_id, report, best)
    return RecallReport(
        **run.store(out, dataset.as_of),
        dataset_digest=dataset.digest,
        two_tower=Estimate(**vars(_estimate(headline["two_tower"], config))),
        blend=Estimate(**vars(_estimate(headline["blend"], config))),
        baseline=best,
        best_baseline=Estimate(**vars(_estimate(headline[best], config))),
        blend_minus_baseline=Estimate(**vars(gains["blend"])),
    )


def _estimate(values: Doubles, config: EvaluateRecallConfig) -> Mean:
    return metrics.estimate(values, config.resamples, config.seed)


def _lists(
    sources: retrieval.Retriever, interactions: Interactions, histories: Histories, cut: int
) -> Iterator[tuple[str, Ints]]:
    """Lists [histories, 300] of the models, then of each baseline."""
    nothing = np.zeros((0, DEEPEST), dtype=np.int32)
    answers = [(nothing, nothing), *((tower, blend.item) for tower, blend in sources.answers(histories, DEEPEST))]
    for name, blocks in zip(MODELS, zip(*answers, strict=True), strict=True):
        yield name, np.concatenate(blocks)
    yield from baselines.every(interactions, histories, cut, DEEPEST)


def measured(
    lists: Ints, list_of: Longs, asked: Question, popularity: Longs, config: EvaluateRecallConfig
) -> tuple[Hits, Rows]:
    """The hits of one method's lists, and every metric of them: for all that counts, and for each part of it.

    lists: [histories, 300]; list_of: [users] which one is a user's; popularity: [items] interactions before the cut.
    """
    hit = metrics.hits(lists, asked.truth, list_of)
    rows: Rows = {}
    for part, counts in evaluation.populations(asked).items():
        values = evaluation.of_population(hit, asked.truth, counts)
        found = evaluation.estimates(values, config.resamples, config.seed)
        rows |= {f"{part}.{name}" if part else name: vars(mean) for name, mean in found.items()}
    bias = metrics.average_popularity(lists, HEADLINE, popularity)[list_of]
    return hit, rows | {
        f"coverage_at_{HEADLINE}": metrics.coverage(lists, HEADLINE, len(popularity)),
        f"average_popularity_at_{HEADLINE}": vars(_estimate(bias, config)),
        f"popularity_bias_at_{HEADLINE}": metrics.popularity_bias(bias, popularity),
    }


def _losses(hit: Hits, asked: Question) -> Rows:
    shares = evaluation.losses(hit, asked)
    pairs = len(asked.truth.item) + len(asked.cold.item)
    text = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    log.info("where recall is lost, shares of %d relevant pairs: %s", pairs, text or "none")
    return {**shares, "n": pairs}


def _cold_lists(sources: retrieval.Retriever, interactions: Interactions, cut: int) -> dict[str, Ints]:
    """What somebody without a history gets, [1, 300], of the methods that have something to say."""
    none, rows = np.zeros(0, dtype=np.int32), np.zeros(2, dtype=np.int64)
    nobody = Histories(np.zeros(1, dtype=np.int32), rows, none, none.astype(np.int8), none.astype(np.int64))
    (stranger,) = sources.blended(nobody, DEEPEST)
    popular = {name: baselines.SINGLE[name] for name in ("popular_7_days", "popular_14_days")}
    return {"blend": stranger.item} | {n: one(interactions, nobody, cut, DEEPEST) for n, one in popular.items()}


def _cold(lists: Ints, cold: Truth, config: EvaluateRecallConfig) -> Rows:
    hit = metrics.hits(np.broadcast_to(lists, (len(cold), DEEPEST)), cold)
    found = evaluation.estimates(evaluation.per_user(hit, cold), config.resamples, config.seed)
    return {f"cold_users.{name}": vars(mean) for name, mean in found.items()}


def _paired(gains: Mapping[str, Mean], best: str) -> Rows:
    """Each model against the best baseline, with the verdict in words."""
    rows: Rows = {}
    for name, gain in gains.items():
        verdict = metrics.verdict(gain)
        log.info("%s minus the best baseline, %s: %s; verdict: %s", name, best, _told(gain), verdict)
        rows[f"{name}_minus_{best}"] = {**vars(gain), "verdict": verdict}
    return rows


def _log(run: TaskRun, retriever_run: str, report: Mapping[str, Rows], best: str) -> None:
    """Logs each value under method and metric, interval and n beside it; of lesser baselines the headline alone."""
    flat: dict[str, float | None] = {}
    for method, rows in report.items():
        whole = method not in baselines.BASELINES or method == best
        for name, value in rows.items():
            if whole or name == HEADLINE_METRIC:
                flat |= _flat(f"{method}.{name}", value)
    for target in (run.run_id, retriever_run):
        run.metrics(flat, run_id=target)


def _flat(name: str, value: object) -> dict[str, float | None]:
    """A value under its name; of an estimate the mean under its name, the rest under name.low, name.high, name.n."""
    if not isinstance(value, dict):
        return {name: float(value) if isinstance(value, int | float) else None}
    numbers = {key: one for key, one in value.items() if key != "verdict"}
    return {name if key == "value" else f"{name}.{key}": one for key, one in numbers.items()}


def _told(mean: Mean) -> str:
    """An estimate for a person."""
    if mean.value is None or mean.low is None:
        return f"no interval, n = {mean.n}"
    return f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}], n = {mean.n}"
