"""Search for the items with the greatest inner product with a query: among all, along a graph, in the nearest cells."""

from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

from tasks.recsys import scan
from tasks.recsys.interactions import Ints

Floats = npt.NDArray[np.float32]
Kind = Literal["flat", "hnsw", "ivf"]
HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 200, 600
"""Links of a node; breadth of the walk when a node is added, and when a query is answered (k is 300)."""
IVF_FEWEST, IVF_SHARE, IVF_LOOKED_INTO = 39, 8, 1_200
"""Items that a cell needs for k-means, as Faiss has it; one cell in so many is looked into, and so many items."""
BATCH = 4_096
"""Queries a call: faiss takes its fast path (one matrix product) only for large batches."""


def build(vectors: Floats, kind: Kind = "flat") -> Any:
    """A Faiss inner-product index over item vectors [items, dim].

    flat compares a query with every item; hnsw walks a graph of near neighbours (Malkov and Yashunin, TPAMI 2020);
    ivf compares it with the items of its nearest cells (Jégou et al., TPAMI 2011).  Only flat is exact.  Built by one
    thread, so that the same vectors give the same index.
    """
    items, dim = vectors.shape
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index = _empty(kind, items, dim)
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        index.train(rows)
        index.add(rows)
        if kind == "ivf":
            index.make_direct_map()  # so that vectors can be read back by id
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def _empty(kind: Kind, items: int, dim: int) -> Any:
    if kind == "hnsw":
        index: Any = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = HNSW_BUILD, HNSW_SEARCH
        return index
    if kind == "ivf":
        cells = max(1, min(round(4 * items**0.5), items // IVF_FEWEST))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(cells, max(cells // IVF_SHARE, -(-cells * IVF_LOOKED_INTO // max(items, 1))))
        return index
    return faiss.IndexFlatIP(dim)


def is_exact(index: Any) -> bool:
    """Whether it compares a query with every item, in floats."""
    return isinstance(index, faiss.IndexFlat)


def fastest(index: Any) -> Any:
    """What searches the same vectors fastest on this CPU; only an exact index is replaced."""
    return scan.Scan.of(index) if is_exact(index) and scan.pays() else index


def recall_to_exact(index: Any, vectors: Floats, queries: Floats, k: int) -> float:
    """Mean over queries [queries, dim] of the share of the k best items [of vectors] that the index finds."""
    exact, _ = search(build(vectors), queries, k)
    found, _ = search(index, queries, k)
    shares = [
        len(np.intersect1d(a, b)) / len(a) for a, b in ((e[e >= 0], f) for e, f in zip(exact, found, strict=True))
    ]
    return float(np.mean(shares)) if shares else 1.0


def search(index: Any, queries: Floats, k: int) -> tuple[Ints, Floats]:
    """The k best items of each query [queries, dim]: ids and scores [queries, k], best first, −1 where there are fewer.

    Ties are broken by item id, so that the order does not depend on how the search went about it.
    """
    ids = np.full((len(queries), k), -1, dtype=np.int32)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for at in range(0, len(queries), BATCH):
        found, number = index.search(np.ascontiguousarray(queries[at : at + BATCH]), k)
        scores[at : at + BATCH], ids[at : at + BATCH] = found, number
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))  # few: only they have to be sorted
    order = np.lexsort((ids[tied], -scores[tied]), axis=1)
    scores[tied], ids[tied] = np.take_along_axis(scores[tied], order, 1), np.take_along_axis(ids[tied], order, 1)
    return ids, scores


def insert(items: Ints, scores: Floats, own: Ints, own_scores: Floats) -> tuple[Ints, Floats]:
    """Lists [queries, k], best first, with a few further items of each query put where their scores belong.

    own: [queries, few] items and their scores, −∞: none.  An item that is in the list takes its own score.
    """
    own = np.where(np.isfinite(own_scores), own, -1).astype(items.dtype)
    twice = (items[:, :, None] == own[:, None, :]).any(axis=2)
    every = np.concatenate([np.where(twice, -np.inf, scores), own_scores], axis=1)
    order = np.argsort(-every, axis=1, kind="stable")[:, : items.shape[1]]
    best = np.take_along_axis(every, order, 1)
    found = np.take_along_axis(np.concatenate([items, own], axis=1), order, 1)
    return np.where(np.isfinite(best), found, -1).astype(items.dtype), best.astype(scores.dtype)
