"""Ranks every list, writes the generation, and puts it in force if the gate agrees."""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import candidate_files, dataset_files, publication, ranker_files, realised_recall, registry, storage
from tasks.contracts import Candidates, Dataset, Publication, PublishRecommendationsConfig, Ranker, RecallReport
from tasks.contracts import Retriever as RetrieverArtifact
from tasks.failures import BadData
from tasks.publication import Generation, State
from tasks.recsys import gate, ranking
from tasks.recsys.gate import Facts, Verdict
from tasks.recsys.metrics import Mean
from tasks.tracking import RANKER_MODEL, RETRIEVER_MODEL, TaskRun

log = logging.getLogger(__name__)

LIST_SCHEMA = pa.schema([("list", pa.int32()), ("items", pa.list_(pa.int64())), ("scores", pa.list_(pa.float32()))])
VISITORS = 100_000
"""Visitors sent to the store at a time."""
RECALL, NDCG = "recall@50 of the blend", "NDCG@10 of the lists"
"""The figures that champions are compared by."""


@dataclass(frozen=True)
class Made:
    """What a generation holds, counted."""

    visitors: pl.DataFrame
    """visitorid, list: who reads which list, ascending by visitorid"""
    rows: int
    """(visitor, rank) rows"""
    coverage: float
    """share of the visitors whose list is full"""
    lists: int
    distinct_lists: int
    empty_lists: int


def publish_recommendations(
    dataset: Dataset,
    retriever: RetrieverArtifact,
    report: RecallReport,
    candidates: list[Candidates],
    ranker: Ranker,
    config: PublishRecommendationsConfig,
    run: TaskRun,
) -> Publication:
    """Writes the night's generation whole; the gate's verdict says whether the shop reads it from now on."""
    _check_belonging(dataset, retriever, report, candidates, ranker)
    data = run.fetch(dataset)
    shards = [run.fetch(shard) for shard in candidates]
    out = run.work / "recommendations"
    out.mkdir()
    gain = Mean(**ranker.after_minus_before.model_dump())
    serves = gate.ranker_serves(gain)
    booster = ranker_files.read_booster(run.fetch(ranker)) if serves else None
    made = _make(out, data, shards, booster, dataset.as_of, config.top)
    written = run.store(out, dataset.as_of)
    store = publication.store()
    realised = realised_recall.measure(run, store, dataset, data)
    name = f"{datetime.fromtimestamp(dataset.as_of / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}-{run.night[:8]}"
    ndcg, ranker_version = (ranker.ndcg_after, ranker.model_version) if serves else (ranker.ndcg_before, None)
    figures = {RECALL: Mean(**report.blend.model_dump()), NDCG: Mean(**ndcg.model_dump())}
    current, earlier = store.in_force(), store.find(name)
    rolled_back = earlier is not None and earlier.verdict == "rolled_back"
    facts = Facts(
        as_of=dataset.as_of,
        published_as_of=current.as_of if current else None,
        backfill=run.context.run_type == "backfill",
        baseline=report.baseline,
        suspect=dataset.suspect,
        blend_minus_baseline=Mean(**report.blend_minus_baseline.model_dump()),
        after_minus_before=gain,
        coverage=made.coverage,
        min_coverage=config.min_coverage,
        distinct_lists=made.distinct_lists,
        lists=made.lists,
        empty_lists=made.empty_lists,
        figures=figures,
        champions=registry.champions(run.client, before=retriever.model_version),
        max_drop=config.max_drop,
        publish=config.publish,
        force_reason=config.force_reason,
        rolled_back=rolled_back,
    )
    verdict, reason = gate.decide(facts)
    if current and current.name == name:  # an earlier try put it in force and ended before it could say so
        verdict, reason = _as_decided(current)
    kept: State = "rolled_back" if rolled_back and verdict == "held" else verdict
    generation = Generation(name, dataset.as_of, run.night, kept, reason, retriever.model_version, ranker_version)
    default = storage.read_table(out / "default.parquet")
    store.write(generation, _list_frames(out / "lists.parquet"), made.visitors.iter_slices(VISITORS), default)
    verdict, reason = _switch(run, store, generation, verdict, figures)
    store.prune(config.keep_generations)
    log.info("%s: %s", verdict, reason)
    users, rows = made.visitors.height, made.rows
    run.metrics({"coverage": made.coverage, "users": users, "rows": rows, "distinct_lists": made.distinct_lists})
    for target in (run.run_id, run.night):
        run.tags({"verdict": verdict, "reason": reason, "generation": name}, run_id=target)
    in_force = store.in_force()
    return Publication(
        **written,
        generation=name,
        verdict=verdict,
        reason=reason,
        in_force=in_force.name if in_force else "",
        store=store.place,
        users=users,
        rows=rows,
        realised=realised,
    )


def _check_belonging(
    dataset: Dataset, retriever: RetrieverArtifact, report: RecallReport, shards: list[Candidates], ranker: Ranker
) -> None:
    """Refuses artifacts that were not made of one another."""
    pairs = [("Retriever", retriever.dataset_digest, dataset.digest), ("Ranker", ranker.dataset_digest, dataset.digest)]
    pairs += [("RecallReport", report.dataset_digest, dataset.digest)]
    pairs += [(f"Candidates[{one.shard}]", one.retriever_digest, retriever.digest) for one in shards]
    for name, found, expected in pairs:
        if found != expected:
            raise BadData(f"{name} was made from {found}, this night has {expected}: run the night again, whole")
    if sorted(one.shard for one in shards) != list(range(dataset.shards)):
        raise BadData(f"candidates of shards {[one.shard for one in shards]}, expected 0 … {dataset.shards - 1}")


def _rank(path: Path, data: Path, shards: list[Path], booster: Any, as_of: int, top: int) -> tuple[pl.DataFrame, int]:
    """Writes the best `top` items of every list; returns each list's length and how many lists differ."""
    items = ranker_files.read_items(data, as_of)
    item_ids, past = dataset_files.read_item_ids(data), dataset_files.read_histories(data, as_of)
    lengths: list[pl.DataFrame] = []
    different: set[bytes] = set()
    with pq.ParquetWriter(path, LIST_SCHEMA, compression="zstd") as writer:
        for shard in shards:
            user_of = storage.read_table(shard / "lists.parquet")
            for ids, pairs in candidate_files.read_blocks(shard / "serve.parquet"):
                users = user_of["user"].to_numpy()[np.searchsorted(user_of["list"].to_numpy(), ids)]
                asked = past.take(np.searchsorted(past.user, users))
                position, scores = ranking.best(booster, pairs, asked, items, top)
                row = pairs.row[position]
                start = np.searchsorted(row, np.arange(len(ids) + 1)).astype(np.int32)
                best = item_ids[pairs.item[position]]
                columns = [pa.array(ids)] + [
                    pa.ListArray.from_arrays(start, pa.array(values)) for values in (best, scores.astype("f4"))
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=LIST_SCHEMA))
                lengths.append(pl.DataFrame({"list": ids, "length": np.diff(start)}))
                different.update(best[a:b].tobytes() for a, b in itertools.pairwise(start))
                log.info("ranked %d lists", sum(one.height for one in lengths))
    return pl.concat(lengths), len(different)


def _make(out: Path, data: Path, shards: list[Path], booster: Any, as_of: int, top: int) -> Made:
    """Writes the lists, who reads which, and the default list; without a booster in the order of the candidates."""
    lengths, distinct = _rank(out / "lists.parquet", data, shards, booster, as_of, top)
    visitors = _visitors(data, shards)
    storage.write_table(out / "visitors.parquet", visitors)
    popular = storage.read_table(shards[0] / "default.parquet")["item"].to_numpy()[:top]
    scores = (1 / np.arange(1, len(popular) + 1)).astype(np.float32)
    storage.write_table(
        out / "default.parquet", {"itemid": dataset_files.read_item_ids(data)[popular], "score": scores}
    )
    full = lengths.filter(pl.col("length") >= min(top, len(popular)))
    return Made(
        visitors=visitors,
        rows=int(visitors.join(lengths, on="list")["length"].sum()),
        coverage=visitors.join(full, on="list", how="semi").height / max(visitors.height, 1),
        lists=lengths.height,
        distinct_lists=distinct,
        empty_lists=lengths.filter(pl.col("length") == 0).height,
    )


def _visitors(data: Path, shards: list[Path]) -> pl.DataFrame:
    """visitorid, list: who reads which list, ascending by visitorid."""
    ids = dataset_files.read_user_ids(data)
    users = pl.concat([storage.read_table(shard / "users.parquet") for shard in shards])
    return pl.DataFrame({"visitorid": ids[users["user"].to_numpy()], "list": users["list"]}).sort("visitorid")


def _list_frames(path: Path) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield pl.DataFrame(file.read_row_group(group))


def _as_decided(generation: Generation) -> tuple[Verdict, str]:
    """What an earlier try decided of the generation that is in force."""
    if generation.verdict == "held" or generation.verdict == "rolled_back":
        raise BadData(f"generation {generation.name} is in force and {generation.verdict}: expected it promoted")
    return generation.verdict, generation.reason


def _switch(
    run: TaskRun, store: publication.Store, generation: Generation, verdict: Verdict, figures: dict[str, Mean]
) -> tuple[Verdict, str]:
    """Carries the verdict out: the pointer first, the aliases last and together; returns what came of it."""
    reason = generation.reason
    if verdict != "held" and not store.switch(generation.name):
        verdict, reason = "held", "a generation of a later as_of was put in force meanwhile"
        store.hold(generation.name, reason)
    versions = {RETRIEVER_MODEL: generation.retriever_version, RANKER_MODEL: generation.ranker_version}
    registry.record(run.client, generation.retriever_version, figures)
    if verdict != "held" or run.context.run_type != "backfill":
        registry.point(run.client, "challenger", versions)
    if verdict != "held":
        registry.enthrone(run.client, versions, verdict)
    return verdict, reason
