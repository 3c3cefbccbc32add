"""Generates one shard's candidates: what is served as of the night, and the groups that the ranker learns from."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks import candidate_files, dataset_files, fits, storage
from tasks.contracts import Candidates, Dataset, GenerateCandidatesConfig, Retriever
from tasks.failures import BadConfig
from tasks.recsys import candidates, groups, interactions
from tasks.recsys.interactions import Interactions
from tasks.tracking import TaskRun

log = logging.getLogger(__name__)


def generate_candidates(
    dataset: Dataset, retriever: Retriever, config: GenerateCandidatesConfig, run: TaskRun
) -> Candidates:
    """Writes the candidates of the distinct histories and of the ranker's groups that fall into this shard."""
    if config.shard >= dataset.shards:
        raise BadConfig(f"shard = {config.shard}: the dataset has {dataset.shards} shards, numbered from 0")
    data, fitted = run.fetch(dataset), run.fetch(retriever)
    known = dataset_files.read_interactions(data)
    out = run.work / "candidates"
    out.mkdir()
    users, lists, pairs = _serve(out, data, fitted, dataset, known, config)
    windows = (*dataset.ranker_cuts, dataset.second_cut)
    for cut, end in zip(windows, (*windows[1:], dataset.as_of), strict=True):
        _groups(out / "groups" / f"{cut}.parquet", data, fitted, dataset, known, (cut, end), config)
    run.metrics({"users": users, "lists": lists, "pairs": pairs})
    return Candidates(
        **run.store(out, dataset.as_of),
        dataset_digest=dataset.digest,
        retriever_digest=retriever.digest,
        shard=config.shard,
        users=users,
        lists=lists,
        pairs=pairs,
    )


def _serve(
    out: Path, data: Path, fitted: Path, dataset: Dataset, known: Interactions, config: GenerateCandidatesConfig
) -> tuple[int, int, int]:
    """Candidates of every user of the shard; users who share a history share a list."""
    everybody = dataset_files.read_histories(data, dataset.as_of)
    first, list_of = interactions.distinct(everybody)
    mine = np.flatnonzero(np.arange(len(first)) % dataset.shards == config.shard).astype(np.int32)
    user = np.flatnonzero(list_of % dataset.shards == config.shard)
    storage.write_table(out / "users.parquet", {"user": everybody.user[user], "list": list_of[user].astype(np.int32)})
    storage.write_table(out / "lists.parquet", {"list": mine, "user": everybody.user[first[mine]]})
    sources = fits.read_retriever(fitted, dataset, known, dataset.as_of, config.candidates)
    unwanted = dataset_files.read_unavailable(data, dataset.as_of)
    asked = everybody.take(first[mine])
    log.info("shard %d: %d users, %d distinct histories", config.shard, len(user), len(mine))
    blocks = _told(sources.blended(asked, config.candidates), unwanted, len(mine))
    pairs = candidate_files.write_blocks(out / "serve.parquet", mine, blocks)
    popular = sources.popular[sources.popular >= 0]
    popular = popular[~unwanted[popular]]
    storage.write_table(out / "default.parquet", {"item": popular})
    return len(user), len(mine), pairs


def _told(
    blocks: Iterator[candidates.Candidates], unwanted: npt.NDArray[np.bool_], lists: int
) -> Iterator[candidates.Candidates]:
    """The blocks without unavailable items, with a line of progress each."""
    done = left_out = 0
    for block in blocks:
        kept = candidates.without(block, unwanted)
        done += len(block)
        left_out += int((block.item >= 0).sum() - (kept.item >= 0).sum())
        log.info("%d of %d lists, %d unavailable candidates left out", done, lists, left_out)
        yield kept


def _groups(
    path: Path,
    data: Path,
    fitted: Path,
    dataset: Dataset,
    known: Interactions,
    window: tuple[int, int],
    config: GenerateCandidatesConfig,
) -> None:
    """Candidates as of a cut for the shard's groups of its window: to learn from, or after c2 to be judged on."""
    cut, end = window
    find = groups.judges if cut == dataset.second_cut else groups.learners
    everybody, _ = find(known, cut, end, dataset.history_cap)
    asked = everybody.take(np.flatnonzero(everybody.user % dataset.shards == config.shard))
    sources = fits.read_retriever(fitted, dataset, known, cut, config.candidates)
    unwanted = dataset_files.read_unavailable(data, cut)
    blocks = (candidates.without(block, unwanted) for block in sources.blended(asked, config.candidates))
    pairs = candidate_files.write_blocks(path, asked.user, blocks)
    log.info("cut %d: %d groups, %d pairs", cut, len(asked), pairs)
