"""Generates one shard's candidates: what is served as of the night, and the groups that the ranker learns from."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tasks import candidate_files, dataset_files, fits, storage
from tasks.contracts import Candidates, Dataset, GenerateCandidatesConfig, Retriever
from tasks.failures import BadConfig
from tasks.recsys import candidates, groups, interactions, retrieval
from tasks.recsys.interactions import Histories, Interactions, Ints
from tasks.recsys.parallel import in_order
from tasks.tracking import TaskRun

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """Histories that are asked about as of a cut."""

    path: Path
    """where the candidates go"""
    cut: int
    ids: Ints
    """[lists], what the lists are called there"""
    asked: Histories
    """[lists]"""


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
    users, serve = _serve(out, data, dataset, config.shard)

    def read(one: Question) -> tuple[Question, retrieval.Retriever]:
        sources = fits.read_retriever(fitted, dataset, known, one.cut, config.candidates)
        return one, replace(sources, walked=sources.walk(one.asked))

    def questions() -> Iterator[Question]:
        yield serve
        yield from _groups(out / "groups", dataset, known, config.shard)

    pairs = []
    for one, sources in in_order(read, questions(), threads=1):  # the next cut is read while this one is searched
        pairs.append(_answer(one, sources, data, config.candidates))
        if one is serve:
            _write_default(out / "default.parquet", sources, data)
    lists = len(serve.ids)
    run.metrics({"users": users, "lists": lists, "pairs": pairs[0]})
    return Candidates(
        **run.store(out, dataset.as_of),
        dataset_digest=dataset.digest,
        retriever_digest=retriever.digest,
        shard=config.shard,
        users=users,
        lists=lists,
        pairs=pairs[0],
    )


def _serve(out: Path, data: Path, dataset: Dataset, shard: int) -> tuple[int, Question]:
    """How many users the shard serves, and their distinct histories: users who share a history share a list."""
    everybody = dataset_files.read_histories(data, dataset.as_of)
    first, list_of = interactions.distinct(everybody)
    mine = np.flatnonzero(np.arange(len(first)) % dataset.shards == shard).astype(np.int32)
    user = np.flatnonzero(list_of % dataset.shards == shard)
    storage.write_table(out / "users.parquet", {"user": everybody.user[user], "list": list_of[user].astype(np.int32)})
    storage.write_table(out / "lists.parquet", {"list": mine, "user": everybody.user[first[mine]]})
    log.info("shard %d: %d users, %d distinct histories", shard, len(user), len(mine))
    return len(user), Question(out / "serve.parquet", dataset.as_of, mine, everybody.take(first[mine]))


def _groups(out: Path, dataset: Dataset, known: Interactions, shard: int) -> Iterator[Question]:
    """The shard's groups of each window: to learn from, or after c2 to be judged on."""
    windows = (*dataset.ranker_cuts, dataset.second_cut)
    for cut, end in zip(windows, (*windows[1:], dataset.as_of), strict=True):
        find = groups.judges if cut == dataset.second_cut else groups.learners
        everybody, _ = find(known, cut, end, dataset.history_cap)
        asked = everybody.take(np.flatnonzero(everybody.user % dataset.shards == shard))
        yield Question(out / f"{cut}.parquet", cut, asked.user, asked)


def _answer(one: Question, sources: retrieval.Retriever, data: Path, k: int) -> int:
    """Writes a question's candidates without unavailable items, with a line of progress a block; counts the pairs."""
    unwanted = dataset_files.read_unavailable(data, one.cut)

    def blocks() -> Iterator[candidates.Candidates]:
        done = left_out = 0
        for block in sources.blended(one.asked, k):
            kept = candidates.without(block, unwanted)
            done += len(block)
            left_out += int((block.item >= 0).sum() - (kept.item >= 0).sum())
            log.info("%s: %d of %d lists, %d unavailable left out", one.path.stem, done, len(one.ids), left_out)
            yield kept

    return candidate_files.write_blocks(one.path, one.ids, blocks())


def _write_default(path: Path, sources: retrieval.Retriever, data: Path) -> None:
    """Writes the unknown visitor's list: what is popular and available."""
    popular = sources.popular[sources.popular >= 0]
    unwanted = dataset_files.read_unavailable(data, sources.cut)
    storage.write_table(path, {"item": popular[~unwanted[popular]]})
