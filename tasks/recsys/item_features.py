"""What the properties say of the items as of a cut, and vectors that are drawn to what they say."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

Floats = npt.NDArray[np.float32]

LEAST = 5
"""Items that have to share a value for it to be a feature."""
PRICES = 20
"""Classes of price, with as many items each."""
RIDGE = 5.0
"""Well-known items of a feature that weigh as much as what draws its vector to zero."""
ITERATIONS = 2
"""Of conjugate gradients, from zero: more of them find no better vectors."""
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class ItemFeatures:
    """Which features the items have as of a cut, and how often each was met."""

    matrix: sparse.csr_array
    """[items, features], 1 where an item has a feature"""
    met: npt.NDArray[np.int64]
    """[items], interactions before the cut"""


def item_features(items: pl.DataFrame) -> ItemFeatures | None:
    """The features of the items of a Dataset as of a cut, one row an item in the order of their ids.

    A feature is a category on the path of an item, a class of price, or a value of a frequent property, that at least
    `LEAST` items share.  None where there is no such feature.
    """
    place = (pl.col("price").rank("min") - 1) * PRICES // pl.col("price").count()
    texts = [name for name in items.columns if name.startswith("property_")]
    kinds = [
        items.select("item", value="path").explode("value"),
        items.select("item", value=place),
        *(items.select("item", value=name) for name in texts),
    ]
    every = pl.concat(one.select("item", pl.col("value").cast(pl.String), kind=at) for at, one in enumerate(kinds))
    shared = every.drop_nulls().filter(pl.len().over("kind", "value") >= LEAST)
    if not len(shared):
        return None
    features = shared.select("kind", "value").unique().sort("kind", "value").with_row_index("feature")
    pairs = shared.join(features, on=["kind", "value"]).sort("item", "feature")
    item, feature = pairs["item"].to_numpy(), pairs["feature"].to_numpy()
    ones = np.ones(len(pairs), dtype=np.float32)
    matrix = sparse.coo_array((ones, (item, feature)), shape=(len(items), len(features))).tocsr()
    met = items.select(pl.sum_horizontal("views_all", "carts_all", "transactions_all")).to_series()
    return ItemFeatures(matrix, met.to_numpy().astype(np.int64))


def drawn(vectors: Floats, features: ItemFeatures, prior: float) -> Floats:
    """Vectors [items, dim], each between what was learned of the item alone and what its features say.

        wⱼ xⱼ + (1 − wⱼ) Σ_{f of j} v_f        v = argmin Σⱼ wⱼ |xⱼ − Σ_{f of j} v_f|² + `RIDGE` Σ_f |v_f|²

    with w = n / (n + prior) after n interactions: partial pooling (Gelman and Hill 2006, chapter 12).  An item that was
    never met has the vector of its features; one without a feature, and every item if the prior is 0, stays as it is.
    """
    if prior == 0:
        return vectors
    known = np.where(np.diff(features.matrix.indptr) > 0, features.met / (features.met + prior), 1.0)
    weight = known.astype(np.float32)[:, None]
    said: Floats = features.matrix @ _fitted(vectors, features.matrix, weight)
    return weight * vectors + (1 - weight) * said


def _fitted(vectors: Floats, matrix: sparse.csr_array, weight: Floats, iterations: int = ITERATIONS) -> Floats:
    """[features, dim]: v, by conjugate gradients, each dimension by itself, preconditioned by the diagonal."""
    back = sparse.csr_array(matrix.T)
    diagonal = back @ weight + RIDGE
    found = np.zeros((matrix.shape[1], vectors.shape[1]), dtype=np.float32)
    left = back @ (weight * vectors)
    step = left / diagonal
    size = (left * step).sum(axis=0)
    for _ in range(iterations):
        moved = back @ (weight * (matrix @ step)) + RIDGE * step
        length = size / np.maximum((step * moved).sum(axis=0), TINY)
        found += length * step
        left -= length * moved
        scaled = left / diagonal
        before, size = size, (left * scaled).sum(axis=0)
        step = scaled + size / np.maximum(before, TINY) * step
    return found
