import faiss
import numpy as np
import pytest

from tasks.recsys import index, scan
from tasks.recsys.scan import Floats, Scan

ITEMS, K = 9_000, 40


def vectors(seed: int, rows: int = ITEMS, dim: int = 21) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def flat(rows: Floats) -> faiss.IndexFlatIP:
    found = faiss.IndexFlatIP(rows.shape[1])
    found.add(rows)
    return found


def test_it_finds_what_an_exact_index_finds() -> None:
    exact = flat(vectors(0))
    queries = vectors(1, 700)
    ids, scores = index.search(Scan.of(exact), queries, K)
    expected, best = index.search(exact, queries, K)
    assert np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(ids, expected, strict=True)]) > 0.999
    assert scores == pytest.approx(best, abs=1e-2)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert scores == pytest.approx(np.einsum("qkd,qd->qk", vectors(0)[ids], queries), abs=1e-5), "not the items' scores"


def test_columns_of_very_unlike_size() -> None:
    """A popularity of 100 beside likenesses of 0.01: each column of the items has its own unit."""
    size = np.array([100.0, *[0.01] * 20], dtype=np.float32)
    exact = flat(vectors(0) * size)
    queries = vectors(1, 300) / size
    ids, _ = index.search(Scan.of(exact), queries, K)
    expected, _ = index.search(exact, queries, K)
    assert np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(ids, expected, strict=True)]) > 0.999


def test_items_all_alike_and_a_query_of_nothing_are_left_to_the_exact_index() -> None:
    alike = np.repeat(vectors(0, 3), ITEMS // 3, axis=0)
    queries = np.concatenate([vectors(1, 5), np.zeros((1, 21), dtype=np.float32)])
    exact = flat(alike)
    ids, scores = Scan.of(exact).search(queries, K)[::-1]
    expected = exact.search(queries, K)
    assert ids.tolist() == expected[1].tolist() and scores.tolist() == expected[0].tolist()


def test_a_few_items_are_left_to_the_exact_index() -> None:
    exact = flat(vectors(0, scan.WORTH * K - 1))
    queries = vectors(1, 5)
    found, expected = Scan.of(exact).search(queries, K), exact.search(queries, K)
    assert found[1].tolist() == expected[1].tolist()


def test_ties_go_to_the_lower_item_and_scores_may_be_negative() -> None:
    rows = np.concatenate([np.repeat(vectors(0, ITEMS // 2), 2, axis=0), np.ones((ITEMS, 1), dtype=np.float32)], axis=1)
    queries = np.concatenate([vectors(1, 300), np.full((300, 1), -100, dtype=np.float32)], axis=1)
    scores, ids = Scan.of(flat(rows)).search(queries, K)
    assert (scores < 0).all() and (np.diff(scores, axis=1) <= 0).all()
    assert (ids[:, 1::2] == ids[:, ::2] + 1).all() and (ids[:, ::2] % 2 == 0).all()


def test_queries_do_not_depend_on_one_another() -> None:
    found = Scan.of(flat(vectors(0)))
    queries = vectors(1, scan.BLOCK + 30)
    together = found.search(queries, K)[1]
    alone = np.concatenate([found.search(queries[at : at + 100], K)[1] for at in range(0, len(queries), 100)])
    assert together.tolist() == alone.tolist()


def test_nobody_asks() -> None:
    scores, ids = Scan.of(flat(vectors(0))).search(vectors(1, 0), K)
    assert ids.shape == scores.shape == (0, K)
