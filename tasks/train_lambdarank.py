"""Learns the final order from label windows inside c1–c2, and measures it on c2–as_of."""

import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks import candidate_files, dataset_files, ranker_files, registry
from tasks.contracts import Candidates, Dataset, Estimate, Ranker, TrainLambdarankConfig
from tasks.recsys import baselines, groups, metrics, ranking
from tasks.recsys.candidates import SOURCES, Pairs, items_without
from tasks.recsys.features import FEATURES, features
from tasks.recsys.interactions import Histories, Interactions, Ints
from tasks.recsys.metrics import Bools, Doubles, Mean
from tasks.recsys.parallel import in_order
from tasks.recsys.ranking import Boosting, Groups
from tasks.tracking import RANKER_CURVE, RANKER_MODEL, TaskRun

log = logging.getLogger(__name__)

AT = 10
DEPTH = 300
"""Items a simple method names before the unavailable ones are left out."""
SIMPLE = ("own_history_then_popular", "own_history_then_covisitation_then_popular")
"""Baselines that order a list of ten well."""
Block = tuple[Ints, Pairs]
"""Ids [lists] of some groups, and the pairs of their candidates."""
EXPLAINED = 5_000
"""Pairs that the features' contributions are averaged over."""


@dataclass(frozen=True)
class Night:
    """What the task has at hand of the night."""

    dataset: Dataset
    data: Path
    shards: Sequence[Path]
    interactions: Interactions


@dataclass(frozen=True)
class Learned:
    """A booster, and what there is to tell of it."""

    booster: Any
    curve: Sequence[float]
    """[trees], LightGBM's own NDCG on the last window, of the booster that is stopped there: an artefact"""
    gain: Doubles
    """[features], what the splits on it gained"""
    contribution: Doubles
    """[features], mean |SHAP value|"""


def train_lambdarank(
    dataset: Dataset, candidates: list[Candidates], config: TrainLambdarankConfig, run: TaskRun
) -> Ranker:
    """Learns the final order from label windows inside c1–c2, and measures it on c2–as_of."""
    data = run.fetch(dataset)
    night = Night(dataset, data, [run.fetch(shard) for shard in candidates], dataset_files.read_interactions(data))
    learned = _learn(night, config)
    out = run.work / "ranker"
    out.mkdir()
    if learned:
        _write(out, learned, run)
    values = _measure(night, learned.booster if learned else None)
    found = {name: metrics.estimate(value, config.resamples, config.seed) for name, value in values.items()}
    best = max(SIMPLE, key=lambda name: float(values[name].sum()))
    for name, other in (("after_minus_before", "before"), ("after_minus_best_simple", best)):
        found[name] = metrics.paired(values["after"], values[other], config.resamples, config.seed)
    _report(out, found, run)
    written = run.store(out, dataset.as_of)
    return Ranker(
        **written,
        dataset_digest=dataset.digest,
        model_version=run.register(RANKER_MODEL, written) if learned else None,
        trees=learned.booster.num_trees() if learned else 0,
        ndcg_before=Estimate(**vars(found["before"])),
        ndcg_after=Estimate(**vars(found["after"])),
        baseline=best,
        ndcg_baseline=Estimate(**vars(found[best])),
        after_minus_before=Estimate(**vars(found["after_minus_before"])),
    )


def _write(out: Path, learned: Learned, run: TaskRun) -> None:
    """Writes the booster as text and as a model that MLflow loads, and what its features mean and do."""
    ranker_files.write_booster(out, learned.booster)
    registry.describe_ranker(out, ranker_files.BOOSTER, list(FEATURES))
    table = [
        {"name": name, **asdict(feature), "gain": gain, "contribution": contribution}
        for (name, feature), gain, contribution in zip(
            FEATURES.items(), learned.gain.tolist(), learned.contribution.tolist(), strict=True
        )
    ]
    (out / "features.json").write_text(json.dumps(table, indent=1))
    run.metrics({"lightgbm.ndcg_at_10_artefact": max(learned.curve)})
    run.curve(RANKER_CURVE, learned.curve)
    for row in sorted(table, key=lambda row: -row["contribution"]):
        run.metrics({f"gain.{row['name']}": row["gain"], f"contribution.{row['name']}": row["contribution"]})


def _report(out: Path, found: Mapping[str, Mean], run: TaskRun) -> None:
    """Writes and logs NDCG@10 of every order."""
    report = {name: vars(mean) for name, mean in found.items()}
    (out / "ndcg.json").write_text(json.dumps(report, indent=1, sort_keys=True))
    for name, mean in found.items():
        log.info("%s: NDCG@%d %s", name, AT, mean)
        run.metrics({f"{name}.ndcg_at_10": mean.value, f"{name}.ndcg_at_10.low": mean.low})
        run.metrics({f"{name}.ndcg_at_10.high": mean.high, f"{name}.ndcg_at_10.n": mean.n})


def _learn(night: Night, config: TrainLambdarankConfig) -> Learned | None:
    """A booster, or None when there is too little to learn from: the blend's order is then kept."""
    cuts = (*night.dataset.ranker_cuts, night.dataset.second_cut)
    sampled, pairs, last = [], 0, _no_groups()
    for number, (cut, end) in enumerate(itertools.pairwise(cuts)):
        last = _groups(night, cut, end)
        sampled.append(ranking.down_sample(last, config.negative_share, config.seed + number))
        pairs += len(last.grade)
    early = ranking.concatenate(sampled[:-1])
    if min(len(early.size), len(last.size)) < config.min_groups:
        log.warning(
            "%d groups to learn from and %d to stop by, at least %d of each are needed: nothing is learned, the "
            "order of the candidates is kept",
            *(len(early.size), len(last.size), config.min_groups),
        )
        return None
    how = Boosting(config.max_trees, config.leaves, config.shrinkage, config.seed)
    every = ranking.concatenate(sampled)
    with ThreadPoolExecutor(1) as pool:  # on a thread of its own: LightGBM's sums are the same on one thread alone
        growing = pool.submit(ranking.refit, every, how.max_trees, how)
        stopped, curve = ranking.train(early, last, how)
        booster = ranking.first(growing.result(), stopped.best_iteration)
    log.info(
        "%d trees from %d groups, %d of their %d pairs",
        *(stopped.best_iteration, len(every.size), len(every.grade), pairs),
    )
    return Learned(
        booster,
        curve=curve,
        gain=booster.feature_importance("gain"),
        contribution=ranking.contributions(booster, last.features[:: max(1, len(last.features) // EXPLAINED)]),
    )


def _groups(night: Night, cut: int, end: int) -> Groups:
    """The groups of a cut with a positive among their candidates, graded by what followed, over all shards."""
    items = ranker_files.read_items(night.data, cut)
    past, truth = groups.learners(night.interactions, cut, end, night.dataset.history_cap)

    def graded(block: Block) -> Groups:
        ids, pairs = block
        grade = ranking.grades(ids[pairs.row], pairs.item, truth)
        return ranking.learnable(Groups(features(pairs, past.take(ids), items), grade, np.bincount(pairs.row)))

    found = ranking.concatenate([_no_groups(), *in_order(graded, _blocks(night, cut))])
    log.info("window from %d: %d groups, %d with a positive", cut, len(past), len(found.size))
    return found


def _blocks(night: Night, cut: int) -> Iterator[Block]:
    """The candidates of the groups of a cut, shard by shard."""
    for shard in night.shards:
        yield from candidate_files.read_blocks(shard / "groups" / f"{cut}.parquet")


def _no_groups() -> Groups:
    return Groups(
        np.zeros((0, len(FEATURES)), dtype=np.float32), np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.int64)
    )


def _measure(night: Night, booster: Any) -> dict[str, Doubles]:
    """NDCG@10 [groups] of every order of the c2 candidates, and of simple methods for the same groups."""
    cut = night.dataset.second_cut
    items = ranker_files.read_items(night.data, cut)
    past, truth = groups.judges(night.interactions, cut, night.dataset.as_of, night.dataset.history_cap)
    lists = dict(_simple(night, past, cut))
    names = ("before", "after", "ceiling", *(source.name for source in SOURCES))
    lists |= {name: np.full((len(past), AT), -1, dtype=np.int32) for name in names}

    def ordered(block: Block) -> tuple[Ints, list[Ints]]:
        ids, pairs = block
        after = ranking.score(booster, features(pairs, past.take(ids), items), pairs.place)
        relevant = ranking.grades(ids[pairs.row], pairs.item, truth) > 0
        return ids, [ranking.lists(pairs, by, len(ids), AT) for by in _orders(pairs, after, relevant)]

    for ids, found in in_order(ordered, _blocks(night, cut)):
        for name, listed in zip(names, found, strict=True):
            lists[name][ids] = listed
    return {name: metrics.ndcg_at(metrics.hits(listed, truth), truth, AT) for name, listed in lists.items()}


def _orders(pairs: Pairs, after: Doubles, relevant: Bools) -> Iterator[Doubles]:
    """[pairs] scores of the blend's order, the ranker's, the best there could be, and each source's."""
    yield -pairs.place.astype(np.float64)
    yield after
    yield relevant.astype(np.float64)
    for rank in pairs.rank.T:
        yield np.where(rank > 0, -rank.astype(np.float64), -np.inf)


def _simple(night: Night, asked: Histories, cut: int) -> Iterator[tuple[str, Ints]]:
    """Name and lists [groups, 10] of the simple methods.

    Under the same rule as the candidates, without the items that are unavailable; and, to see what the rule costs,
    with them.
    """
    unavailable = dataset_files.read_unavailable(night.data, cut)
    for name in SIMPLE:
        listed = baselines.BASELINES[name](night.interactions, asked, cut, DEPTH)
        yield name, items_without(listed, unavailable)[:, :AT]
        yield f"{name}.unavailable_too", listed[:, :AT]
