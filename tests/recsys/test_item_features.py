"""Features of items by hand, and vectors that are drawn to them by arithmetic and by an exact solver."""

import numpy as np
import polars as pl
from scipy import sparse

from tasks.recsys.item_features import LEAST, PRICES, RIDGE, ItemFeatures, _fitted, drawn, item_features

COUNTS = ("views_all", "carts_all", "transactions_all")


def items(number: int, **columns: object) -> pl.DataFrame:
    """Items as a Dataset has them, with nothing known of them but these columns."""
    plain = {"price": pl.Series([None] * number, dtype=pl.Float32)}
    plain |= {"path": pl.Series([None] * number, dtype=pl.List(pl.Int32))}
    counts = {name: np.arange(number, dtype=np.int32) for name in COUNTS}
    return pl.DataFrame({"item": np.arange(number, dtype=np.int32), **counts, **plain, **columns})


def features(*of_item: list[int], met: list[int], number: int = 1) -> ItemFeatures:
    """Items with these features, met so often."""
    matrix = np.zeros((len(of_item), number), dtype=np.float32)
    for item, some in enumerate(of_item):
        matrix[item, some] = 1
    return ItemFeatures(sparse.csr_array(matrix), np.array(met))


def test_categories_on_the_path_prices_and_values_are_features_if_enough_items_share_them() -> None:
    half = LEAST
    path = [[1, 2]] * half + [[1, 3]] * (half - 1) + [None]
    text = ["red"] * (half - 1) + ["blue"] * half + [None]
    found = item_features(items(2 * half, path=path, property_6=text))
    assert found is not None
    one, two, blue = found.matrix.toarray().T  # category 3 and red are too few
    assert one.tolist() == [1] * (2 * half - 1) + [0]
    assert two.tolist() == [1] * half + [0] * half
    assert blue.tolist() == [0] * (half - 1) + [1] * half + [0]
    assert found.met.tolist() == [3 * item for item in range(2 * half)]


def test_a_class_of_price_has_as_many_items_as_another() -> None:
    price = np.random.default_rng(0).permutation(np.arange(PRICES * LEAST, dtype=np.float32))
    found = item_features(items(len(price) + 3, price=[*price.tolist(), None, None, None]))
    assert found is not None
    assert found.matrix.sum(axis=0).tolist() == [LEAST] * PRICES
    assert np.diff(found.matrix.indptr)[-3:].tolist() == [0, 0, 0]
    classes = found.matrix.indices[np.argsort(price)]
    assert len(np.unique(classes.reshape(PRICES, LEAST)[:, 0])) == PRICES
    assert (np.ptp(classes.reshape(PRICES, LEAST), axis=1) == 0).all()


def test_items_of_which_nothing_is_known_have_no_features() -> None:
    assert item_features(items(20)) is None
    assert item_features(items(20, property_6=[str(item) for item in range(20)])) is None


def test_an_item_is_as_far_from_its_features_as_it_was_often_met() -> None:
    vectors = np.array([[3.0, 0], [0, 6], [9, 9], [-1, 2]], dtype=np.float32)
    found = drawn(vectors, features([0], [0], [0], [], met=[10, 30, 0, 1]), prior=10)
    weight = np.array([10 / 20, 30 / 40, 0])
    said = (weight[:, None] * vectors[:3]).sum(0) / (weight.sum() + RIDGE)
    np.testing.assert_allclose(found[:3], weight[:, None] * vectors[:3] + (1 - weight[:, None]) * said, rtol=1e-6)
    np.testing.assert_allclose(found[2], said, rtol=1e-6)  # never met: the vector of its features alone
    assert found[3].tolist() == vectors[3].tolist()


def test_without_a_prior_nothing_moves() -> None:
    vectors = np.ones((2, 3), dtype=np.float32)
    assert drawn(vectors, features([0], [0], met=[0, 1]), prior=0) is vectors


def test_the_vectors_of_features_are_those_of_ridge_regression() -> None:
    rng = np.random.default_rng(1)
    matrix, weight = rng.integers(0, 2, (40, 6)).astype(np.float32), rng.random((40, 1)).astype(np.float32)
    vectors = rng.normal(size=(40, 3)).astype(np.float32)
    exact = np.linalg.solve(matrix.T @ (weight * matrix) + RIDGE * np.eye(6), matrix.T @ (weight * vectors))
    found = _fitted(vectors, sparse.csr_array(matrix), weight, iterations=50)
    np.testing.assert_allclose(found, exact, atol=1e-4)


def test_a_seldom_met_item_comes_near_its_kin() -> None:
    """A hundred items of ten kinds; half of each kind was met once, so that all its vector tells is chance."""
    rng = np.random.default_rng(2)
    kind, often = np.arange(100) % 10, np.arange(100) < 50
    true = rng.normal(size=(10, 8))[kind]
    vectors = np.where(often[:, None], true + 0.2 * rng.normal(size=true.shape), rng.normal(size=true.shape))
    known = features(*([int(one)] for one in kind), met=np.where(often, 50, 1).tolist(), number=10)
    found = drawn(vectors.astype(np.float32), known, 10)

    def alike(one: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> float:
        cosine = (one * true).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(true, axis=1)
        return float(cosine[~often].mean())

    assert alike(vectors) < 0.3
    assert alike(found) > 0.9
