"""How much the properties of items weigh in what is served: as much as held-out users say."""

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tasks import dataset_files, fits
from tasks.contracts import Dataset
from tasks.demo_data import make_demo_data
from tasks.recsys.item_features import item_features
from tasks.recsys.synthetic import DemoConfig
from tests.world import Home

CONFIG = {"heads": 2, "dim": 16, "max_epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "shop"
    make_demo_data(folder, DemoConfig(scale=0.006))
    return folder


@dataclass(frozen=True)
class Trained:
    """What became of some data."""

    dataset: Dataset
    data: Path
    """the stored Dataset"""
    retriever: Path
    """the stored Retriever"""
    weights: dict[float, float]
    """recall of held-out users by how much the features weigh"""
    chosen: float | None

    @property
    def cuts(self) -> tuple[int, int, int]:
        """Those of the fits."""
        return self.dataset.first_cut, self.dataset.second_cut, self.dataset.as_of

    def vectors(self, cut: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """[items, dim] of the fit as it is served."""
        vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = np.load(self.retriever / str(cut) / fits.VECTORS)
        return vectors


@pytest.fixture
def trained(home: Home, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., Trained]:
    """Trains on the data with their properties changed."""

    def train(change: Callable[[pl.DataFrame], pl.DataFrame], name: str = "data") -> Trained:
        folder = tmp_path / name
        shutil.copytree(data, folder)
        for path in folder.glob("item_properties*.csv"):
            change(pl.read_csv(path, infer_schema=False)).write_csv(path)
        dataset = home.run("prepare_data", {"data": str(folder)}, run_id=name)
        caplog.clear()
        with caplog.at_level(logging.INFO, "tasks.recsys.finishing"):
            retriever = home.run("train_two_tower", CONFIG, {"dataset": dataset}, run_id=name)
        told = [one for one in caplog.messages if one.startswith("weight of the features")]
        recalls = {float(weight): float(recall) for weight, recall in re.findall(r"(\d+) (0\.\d+)", " ".join(told))}
        chosen = [float(one.split()[4].rstrip(";")) for one in told]
        stored = home.stored(dataset), home.stored(retriever)
        return Trained(dataset, *stored, recalls, chosen[0] if chosen else None)

    return train


def dealt_out_anew(properties: pl.DataFrame) -> pl.DataFrame:
    """Every item has what another one had."""
    ids = properties["itemid"].cast(pl.Int64).to_numpy()
    return properties.with_columns(itemid=pl.Series(np.random.default_rng(3).permutation(10_000)[ids]).cast(pl.String))


def test_properties_weigh_as_much_as_they_tell(trained: Callable[..., Trained]) -> None:
    """None, those of other items, and the true ones: only these move a vector, of the items that have some."""
    bare, told = trained(lambda table: table.clear(), "bare"), trained(lambda table: table, "told")
    dealt = trained(dealt_out_anew, "dealt")
    assert (bare.chosen, dealt.chosen) == (None, 0)
    assert told.chosen
    assert told.weights[told.chosen] == max(told.weights.values()) > told.weights[0]
    for cut in told.cuts:
        assert len({fits.identity(one.retriever / str(cut)) for one in (bare, dealt)}) == 1
        features = item_features(dataset_files.read_items(told.data, cut))
        assert features is not None
        has = np.diff(features.matrix.indptr) > 0
        same = np.isclose(bare.vectors(cut)[:, :-1], told.vectors(cut)[:, :-1], rtol=0, atol=1e-7).all(axis=1)
        np.testing.assert_array_equal(same, ~has)
        fits.read_tower(told.retriever / str(cut))
