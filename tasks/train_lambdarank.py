"""Learns the final order from label windows inside c1–c2, and measures it on c2–as_of."""

import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks import candidate_files, dataset_files, ranker_files
from tasks.contracts import Candidates, Dataset, Estimate, Ranker, TrainLambdarankConfig
from tasks.recsys import baselines, metrics, ranking
from tasks.recsys.candidates import SOURCES
from tasks.recsys.features import FEATURES, features
from tasks.recsys.interactions import Interactions, Ints, Truth, truth_between
from tasks.recsys.metrics import Doubles
from tasks.recsys.ranking import Boosting, Groups
from tasks.tracking import RANKER_MODEL, TaskRun

log = logging.getLogger(__name__)

AT = 10
SIMPLE = ("own_history_then_popular", "own_history_then_covisitation_then_popular")
"""Baselines that order a list of ten well."""


@dataclass(frozen=True)
class Night:
    """What the task has at hand of the night."""

    dataset: Dataset
    data: Path
    shards: Sequence[Path]
    interactions: Interactions


def train_lambdarank(
    dataset: Dataset, candidates: list[Candidates], config: TrainLambdarankConfig, run: TaskRun
) -> Ranker:
    """Writes the booster as text, and NDCG@10 before and after it with the simple methods beside."""
    data = run.fetch(dataset)
    night = Night(dataset, data, [run.fetch(shard) for shard in candidates], dataset_files.read_interactions(data))
    booster = _learn(night, config)
    out = run.work / "ranker"
    out.mkdir()
    trees = 0
    if booster is not None:
        trees = int(booster.best_iteration)
        ranker_files.write_booster(out, booster)
        run.metrics({"lightgbm.ndcg_at_10_artefact": booster.best_score["lightgbm"][f"ndcg@{AT}"]})
        for name, gain in zip(FEATURES, booster.feature_importance("gain"), strict=True):
            run.metrics({f"gain.{name}": float(gain)})
    values = _measure(night, booster)
    found = {name: metrics.estimate(value, config.resamples, config.seed) for name, value in values.items()}
    gain = metrics.paired(values["after"], values["before"], config.resamples, config.seed)
    report = {name: vars(mean) for name, mean in {**found, "after_minus_before": gain}.items()}
    (out / "ndcg.json").write_text(json.dumps(report, indent=1, sort_keys=True))
    (out / "features.json").write_text(json.dumps(dict(FEATURES), indent=1))
    for name, mean in {**found, "after_minus_before": gain}.items():
        log.info("%s: NDCG@%d %s", name, AT, mean)
        run.metrics({f"{name}.ndcg_at_10": mean.value, f"{name}.ndcg_at_10.low": mean.low})
        run.metrics({f"{name}.ndcg_at_10.high": mean.high, f"{name}.ndcg_at_10.n": mean.n})
    written = run.store(out, dataset.as_of)
    best = max(SIMPLE, key=lambda name: float(values[name].sum()))
    return Ranker(
        **written,
        dataset_digest=dataset.digest,
        model_version=run.register(RANKER_MODEL, written) if booster is not None else None,
        trees=trees,
        ndcg_before=Estimate(**vars(found["before"])),
        ndcg_after=Estimate(**vars(found["after"])),
        baseline=best,
        ndcg_baseline=Estimate(**vars(found[best])),
        after_minus_before=Estimate(**vars(gain)),
    )


def _learn(night: Night, config: TrainLambdarankConfig) -> Any:
    """A booster, or None when there is too little to learn from: the blend's order is then kept."""
    cuts = (*night.dataset.ranker_cuts, night.dataset.second_cut)
    parts = []
    for cut, end in itertools.pairwise(cuts):
        users, groups = _groups(night, cut, end)
        parts.append(ranking.learnable(groups))
        log.info("window from %d: %d groups, %d with a positive", cut, len(users), len(parts[-1].size))
    training, validation = ranking.concatenate(parts[:-1]), parts[-1]
    if min(len(training.size), len(validation.size)) < config.min_groups:
        log.warning(
            "%d groups to learn from and %d to stop by, at least %d of each are needed: nothing is learned, the "
            "order of the candidates is kept",
            *(len(training.size), len(validation.size), config.min_groups),
        )
        return None
    sampled = ranking.down_sample(training, config.negative_share, config.seed)
    log.info(
        "learning from %d groups, %d of their %d pairs", len(sampled.size), len(sampled.grade), len(training.grade)
    )
    how = Boosting(config.max_trees, config.leaves, config.shrinkage, config.seed)
    return ranking.train(sampled, validation, how)


def _groups(night: Night, cut: int, end: int) -> tuple[Ints, Groups]:
    """Users [groups] and the groups of a cut, over all shards, with what the users did until the end."""
    items = ranker_files.read_items(night.data, cut)
    past = dataset_files.read_histories(night.data, cut)
    truth = truth_between(night.interactions, cut, end)
    users, parts = [np.zeros(0, dtype=np.int32)], []
    for shard in night.shards:
        for ids, pairs in candidate_files.read_blocks(shard / "groups" / f"{cut}.parquet"):
            asked = past.take(np.searchsorted(past.user, ids))
            grade = ranking.grades(ids[pairs.row], pairs.item, truth)
            parts.append(Groups(features(pairs, asked, items), grade, np.bincount(pairs.row)))
            users.append(ids)
    return np.concatenate(users), ranking.concatenate(parts or [_no_groups()])


def _no_groups() -> Groups:
    return Groups(
        np.zeros((0, len(FEATURES)), dtype=np.float32), np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.int64)
    )


def _measure(night: Night, booster: Any) -> dict[str, Doubles]:
    """NDCG@10 [users] of every order of the c2 candidates, and of simple methods for the same users."""
    cut = night.dataset.second_cut
    past = dataset_files.read_histories(night.data, cut)
    items = ranker_files.read_items(night.data, cut)
    truth = truth_between(night.interactions, cut, night.dataset.as_of)
    found: dict[str, list[Doubles]] = {name: [] for name in ("before", "after", "ceiling")}
    found |= {source.name: [] for source in SOURCES}
    found |= {name: [] for name in SIMPLE}
    blocks = [b for s in night.shards for b in candidate_files.read_blocks(s / "groups" / f"{cut}.parquet")]
    for ids, pairs in blocks:
        asked = past.take(np.searchsorted(past.user, ids))
        mine = truth.where(np.isin(truth.user, ids)[truth.row])
        score = ranking.score(booster, features(pairs, asked, items), pairs.place)
        orders = {"before": -pairs.place.astype(np.float64), "after": score}
        orders["ceiling"] = np.minimum(ranking.grades(ids[pairs.row], pairs.item, truth), 1).astype(np.float64)
        for index, source in enumerate(SOURCES):
            named = pairs.rank[:, index]
            orders[source.name] = np.where(named > 0, -named.astype(np.float64), -np.inf)
        for name, by in orders.items():
            listed = ranking.lists(pairs, by, len(ids), AT)
            found[name].append(_ndcg(listed, mine))
        for name in SIMPLE:
            found[name].append(_ndcg(baselines.BASELINES[name](night.interactions, asked, cut, AT), mine))
    return {name: np.concatenate([np.zeros(0), *values]) for name, values in found.items()}


def _ndcg(lists: Ints, truth: Truth) -> Doubles:
    return metrics.ndcg_at(metrics.hits(lists, truth), truth, AT)
