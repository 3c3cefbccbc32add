from pathlib import Path

import faiss
import numpy as np
import pytest

from tasks.recsys import index
from tasks.recsys.index import Floats


def brute_force(vectors: Floats, queries: Floats, k: int) -> tuple[list[list[int]], Floats]:
    """Every product, sorted by score, then by id."""
    scores = queries @ vectors.T
    best = np.lexsort((np.broadcast_to(np.arange(len(vectors)), scores.shape), -scores), axis=1)[:, :k]
    return best.tolist(), np.take_along_axis(scores, best, 1)


@pytest.mark.parametrize("users", [3, 700])  # faiss goes another way for few queries
def test_search_is_exact(users: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 17)).astype(np.float32)
    queries = rng.normal(size=(users, 17)).astype(np.float32)
    ids, scores = index.search(index.build(vectors), queries, 60)
    expected, products = brute_force(vectors, queries, 60)
    assert ids.tolist() == expected
    assert scores == pytest.approx(products, abs=1e-5)
    assert ids.dtype == np.int32


def test_ties_are_in_order_of_id() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0], [2, 0], [0, 1], [1, 0]], dtype=np.float32)
    ids, scores = index.search(index.build(vectors), np.array([[1, 0]], dtype=np.float32), 6)
    assert ids.tolist() == [[3, 0, 2, 5, 1, 4]]
    assert scores.tolist() == [[2, 1, 1, 1, 0, 0]]


@pytest.mark.parametrize("k", [5, 150])
def test_a_tie_at_the_end_of_a_list_costs_no_score(k: int) -> None:
    rng = np.random.default_rng(1)  # small whole numbers: many ties, and products without rounding
    vectors = rng.integers(-2, 3, (40, 8)).repeat(25, axis=0).astype(np.float32)
    queries = rng.integers(-2, 3, (50, 8)).astype(np.float32)
    ids, scores = index.search(index.build(vectors), queries, k)
    assert scores.tolist() == brute_force(vectors, queries, k)[1].tolist()
    assert np.take_along_axis(queries @ vectors.T, ids, 1).tolist() == scores.tolist()
    assert all(len(set(row)) == k for row in ids.tolist())


def test_fewer_items_than_asked_for() -> None:
    ids, scores = index.search(index.build(np.eye(2, dtype=np.float32)), np.array([[1, 3]], dtype=np.float32), 4)
    assert ids.tolist() == [[1, 0, -1, -1]]
    assert scores[0, :2].tolist() == [3, 1]
    assert (scores[0, 2:] < -1e38).all()


def test_nobody_asks() -> None:
    ids, scores = index.search(index.build(np.eye(2, dtype=np.float32)), np.zeros((0, 2), dtype=np.float32), 3)
    assert ids.shape == scores.shape == (0, 3)


def test_batches_make_no_difference() -> None:
    rng = np.random.default_rng(2)
    vectors, queries = (rng.integers(-9, 9, (n, 8)).astype(np.float32) for n in (100, index.BATCH + 50))
    whole = index.search(index.build(vectors), queries, 20)
    parts = [index.search(index.build(vectors), part, 20) for part in np.array_split(queries, 7)]
    assert np.array_equal(whole[0], np.concatenate([ids for ids, _ in parts]))
    assert np.array_equal(whole[1], np.concatenate([scores for _, scores in parts]))


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_approximate_index_finds_most_and_is_built_the_same_each_time(kind: index.Kind, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(20, 16))
    vectors, queries = (
        (centres[rng.integers(0, 20, n)] + 0.3 * rng.normal(size=(n, 16))).astype(np.float32) for n in (3_000, 200)
    )
    first, second = (index.build(vectors, kind) for _ in range(2))
    assert 0.8 < index.recall_to_exact(first, vectors, queries, 20) <= 1.0
    assert first.reconstruct_n(0, 3_000).tobytes() == vectors.tobytes() if kind == "hnsw" else first.ntotal == 3_000
    for name, built in (("a", first), ("b", second)):
        faiss.write_index(built, str(tmp_path / name))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_recall_to_exact_is_the_share_of_the_best_that_is_found() -> None:
    vectors = np.eye(4, dtype=np.float32)
    queries = np.array([[4, 3, 2, 1], [1, 2, 3, 4]], dtype=np.float32)
    assert index.recall_to_exact(index.build(vectors), vectors, queries, 2) == 1.0
    other = index.build(vectors[:3])  # lacks item 3: the second query's best
    assert index.recall_to_exact(other, vectors, queries, 2) == (2 / 2 + 1 / 2) / 2


def test_what_is_inserted_takes_its_place_by_its_own_score() -> None:
    items, scores = (
        np.array([[4, 2, 7], [1, -1, -1]], dtype=np.int32),
        np.array([[3.0, 2.0, 1.0], [5.0, -np.inf, -np.inf]]),
    )
    own, own_scores = np.array([[2, 9, 9], [3, -1, -1]]), np.array([[2.5, 1.5, -np.inf], [6.0, -np.inf, -np.inf]])
    found, values = index.insert(items, scores, own, own_scores)
    assert found.tolist() == [[4, 2, 9], [3, 1, -1]]
    assert values.tolist() == [[3.0, 2.5, 1.5], [6.0, 5.0, -np.inf]]
