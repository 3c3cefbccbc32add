"""The adapter to a Retriever's files: one folder a fit, one table of neighbours a cut.

Every file of a fit carries the same id, made of its vectors' bytes; parts of different fits refuse to be mixed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import torch
from scipy import sparse

from tasks import storage
from tasks.contracts import Dataset
from tasks.failures import BadData
from tasks.recsys import index
from tasks.recsys.candidates import SOURCES, Curves
from tasks.recsys.interactions import Interactions, Longs
from tasks.recsys.retrieval import Retriever, Tower, retriever
from tasks.recsys.two_tower import TwoTower

CHECKPOINT, VECTORS, INDEX, ENCODER, ABOUT = (
    "two_tower.ckpt",
    "item_vectors.npy",
    "index.faiss",
    "items.parquet",
    "fit.json",
)
BLEND = "blend.json"
NEIGHBOURS, WALKS = "neighbours", "walks"
"""Folders of co-visitation in one step, a file a cut, and in one and two where that was made beforehand, a folder."""


def cut_of_fit(dataset: Dataset, cut: int) -> int:
    """The fit that may be used at a cut: c1 up to c2, c2 at c2, as_of at as_of."""
    fits = (dataset.first_cut, dataset.second_cut, dataset.as_of)
    return max(fit for fit in fits if fit <= cut)


def write_tower(folder: Path, model: TwoTower, items: Longs, users: int, cut: int, kind: index.Kind = "flat") -> None:
    """Writes a fit: checkpoint, item vectors, Faiss index, item encoder, and what ties them together."""
    folder.mkdir(parents=True)
    vectors = model.item_vectors().numpy()
    identity = hashlib.sha256(vectors.tobytes()).hexdigest()
    shape = {
        "items": len(vectors),
        "dim": model.dim,
        "window": model.window,
        "heads": model.heads,
    }
    torch.save({"fit": identity, "shape": shape, "state_dict": model.state_dict()}, folder / CHECKPOINT)
    np.save(folder / VECTORS, vectors)
    faiss.write_index(index.build(vectors, kind), str(folder / INDEX))
    storage.write_table(folder / ENCODER, {"itemid": items})
    about = {"fit": identity, "cut": cut, "users": users, **shape}
    (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))


def identity(folder: Path) -> str:
    """What all parts of a fit carry: the digest of its vectors."""
    return str(json.loads((folder / ABOUT).read_text())["fit"])


def read_tower(folder: Path) -> Tower:
    """Reads a fit, and refuses parts that do not belong together."""
    about = json.loads((folder / ABOUT).read_text())
    saved = torch.load(folder / CHECKPOINT, weights_only=True)
    vectors = np.load(folder / VECTORS, allow_pickle=False)
    found = hashlib.sha256(vectors.tobytes()).hexdigest()
    search = faiss.read_index(str(folder / INDEX))
    indexed = hashlib.sha256(search.reconstruct_n(0, search.ntotal).tobytes()).hexdigest()
    same = {about["fit"], saved["fit"], found, indexed}
    if len(same) > 1:
        raise BadData(
            f"{folder}: index, vectors and checkpoint are of different fits ({', '.join(sorted(same))}; index of "
            f"{search.ntotal} × {search.d}, vectors of {vectors.shape[0]} × {vectors.shape[1]}): train again"
        )
    model = TwoTower(**saved["shape"])
    model.load_state_dict(saved["state_dict"])
    return Tower(model.eval(), index.fastest(search))


def write_neighbours(path: Path, neighbours: sparse.csr_array, first: int = 0) -> None:
    """Writes rows of an item-item matrix, of the items from `first` on, as rows item, neighbour, weight."""
    matrix = neighbours.tocoo()
    item, neighbour = (axis.astype(np.int32) for axis in (matrix.row + first, matrix.col))
    storage.write_table(path, {"item": item, "neighbour": neighbour, "weight": matrix.data.astype(np.float32)})


def read_neighbours(path: Path, items: int) -> sparse.csr_array:
    """Reads an item-item matrix [items, items] of a file, or of a folder of files of some items each."""
    table = storage.read_table(path)
    item, neighbour, weight = (table[name].to_numpy() for name in ("item", "neighbour", "weight"))
    return sparse.coo_array((weight, (item, neighbour)), shape=(items, items)).tocsr()


def write_curves(folder: Path, curves: Curves) -> None:
    """Writes the curves of the sources in the blend, the same for every cut."""
    named = dict(zip((source.name for source in SOURCES), curves, strict=True))
    (folder / BLEND).write_text(json.dumps(named, indent=1))


def read_curves(folder: Path) -> Curves:
    """Reads the curves of the sources in the blend."""
    named = json.loads((folder / BLEND).read_text())
    return tuple(tuple(named[source.name]) for source in SOURCES)


def read_retriever(folder: Path, dataset: Dataset, interactions: Interactions, cut: int, k: int) -> Retriever:
    """The sources as of a cut, with the fit that may be used there."""
    tower = _tower(folder / str(cut_of_fit(dataset, cut)))
    items = interactions.before(cut).items
    neighbours = read_neighbours(folder / NEIGHBOURS / f"{cut}.parquet", items)
    walked = folder / WALKS / str(cut)
    sources = retriever(interactions, cut, tower, neighbours, k, read_curves(folder))
    return replace(sources, walked=read_neighbours(walked, items)) if walked.exists() else sources


@lru_cache(maxsize=1)
def _tower(folder: Path) -> Tower:
    """The tower read last: cuts that follow one another share a fit, and a stored fit does not change."""
    return read_tower(folder)


def cuts(dataset: Dataset) -> Sequence[int]:
    """Every cut at which something is retrieved, ascending."""
    return sorted({dataset.first_cut, *dataset.ranker_cuts, dataset.second_cut, dataset.as_of})
