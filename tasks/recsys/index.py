"""Exact search for the items whose vectors have the greatest inner product with a query."""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from tasks.recsys.interactions import Ints

Floats = npt.NDArray[np.float32]
BATCH = 4_096
"""Queries a call: faiss takes its fast path (one matrix product) only for large batches."""


def build(vectors: Floats) -> Any:
    """A Faiss inner-product index over item vectors [items, dim], exact."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index


def search(index: Any, queries: Floats, k: int) -> tuple[Ints, Floats]:
    """The k best items of each query [queries, dim]: ids and scores [queries, k], best first, −1 where there are fewer.

    Ties are broken by item id, so that the order does not depend on how the search went about it.
    """
    ids = np.full((len(queries), k), -1, dtype=np.int32)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for at in range(0, len(queries), BATCH):
        found, number = index.search(np.ascontiguousarray(queries[at : at + BATCH]), k)
        order = np.lexsort((number, -found), axis=1)
        scores[at : at + BATCH] = np.take_along_axis(found, order, 1)
        ids[at : at + BATCH] = np.take_along_axis(number, order, 1)
    return ids, scores
