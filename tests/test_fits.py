"""A fit on disk: read back as it was, the same bytes for the same model, parts that do not mix."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from tasks import fits, storage
from tasks.contracts import Dataset
from tasks.failures import BadData
from tasks.recsys import index
from tasks.recsys.candidates import CURVES
from tasks.recsys.retrieval import Tower
from tasks.recsys.two_tower import TwoTower
from tests.recsys.made import asked

ITEMS = 12


def model(seed: int) -> TwoTower:
    torch.manual_seed(seed)
    return TwoTower(ITEMS, dim=4, window=4, heads=2)


def write(folder: Path, seed: int) -> Path:
    fits.write_tower(folder, model(seed), np.arange(100, 100 + ITEMS), users=3, cut=5)
    return folder


def test_a_fit_recommends_the_same_after_it_was_read_back(tmp_path: Path) -> None:
    tower = fits.read_tower(write(tmp_path / "fit", seed=1))
    past = asked([3, 4], [5])
    other = Tower(model(1), index.build(model(1).item_vectors().numpy()))
    for one, expected in zip(tower.recommend(past, 5), other.recommend(past, 5), strict=True):
        np.testing.assert_array_equal(one, expected)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = [storage.folder_digest(write(tmp_path / name, seed))[0] for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("part", [fits.CHECKPOINT, fits.VECTORS, fits.INDEX, fits.ABOUT])
def test_parts_of_two_fits_are_refused(tmp_path: Path, part: str) -> None:
    ours, theirs = write(tmp_path / "ours", 1), write(tmp_path / "theirs", 2)
    shutil.copy(theirs / part, ours / part)
    with pytest.raises(BadData, match="different fits"):
        fits.read_tower(ours)


def test_an_index_of_other_items_is_refused(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "ours", 1), tmp_path / "theirs"
    torch.manual_seed(1)
    larger = TwoTower(ITEMS + 1, dim=4, window=4, heads=2)
    fits.write_tower(theirs, larger, np.arange(ITEMS + 1), users=3, cut=5)
    shutil.copy(theirs / fits.INDEX, ours / fits.INDEX)
    with pytest.raises(BadData, match=f"index of {ITEMS + 1} × 9"):
        fits.read_tower(ours)


def test_a_checkpoint_with_anything_but_weights_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "fit", 1)
    saved = torch.load(folder / fits.CHECKPOINT, weights_only=True)
    torch.save({**saved, "more": Path("/tmp")}, folder / fits.CHECKPOINT)
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        fits.read_tower(folder)


def test_a_cut_uses_no_fit_of_later_events() -> None:
    made: dict[str, Any] = dict.fromkeys(("uri", "digest", "input_digest", "night"), "some")
    made |= dict.fromkeys(("size", "events", "users", "items", "history_cap", "duplicates", "rejected", "shards"), 1)
    dataset = Dataset(**made, suspect=(), first_cut=10, ranker_cuts=(10, 13, 16), second_cut=20, as_of=30)
    assert [fits.cut_of_fit(dataset, cut) for cut in fits.cuts(dataset)] == [10, 10, 10, 20, 30]
    assert list(fits.cuts(dataset)) == [10, 13, 16, 20, 30]


def test_neighbours_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    matrix = sparse.random_array((ITEMS, ITEMS), density=0.3, rng=rng, dtype=np.float32).tocsr()
    fits.write_neighbours(tmp_path / "n.parquet", matrix)
    for first, part in ((0, matrix[:5]), (5, matrix[5:])):
        fits.write_neighbours(tmp_path / "parts" / f"{first}.parquet", part, first)
    for path in (tmp_path / "n.parquet", tmp_path / "parts"):
        np.testing.assert_array_equal(fits.read_neighbours(path, ITEMS).toarray(), matrix.toarray())


def test_the_blends_curves_are_read_back(tmp_path: Path) -> None:
    curves = ((1.5, 0.25), (0.0, 2.0), *CURVES[2:])
    fits.write_curves(tmp_path, curves)
    assert fits.read_curves(tmp_path) == curves
