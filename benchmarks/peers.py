"""Recommenders from PyPI on the same question; run by quality.py in an environment of their own.

python benchmarks/peers.py QUESTION OUT [PEER …]: QUESTION.npz has user, item, time of the interactions before the cut
and the histories asked about (user, −1 for one who came later; start and items, oldest first); OUT gets NAME.npy, lists
[histories, k] of each peer, but for those named behind it; a line on stderr for each that is absent, left out or fails.
Settings were chosen by hand and not searched: read a peer's figure as what it reaches so, not as its best.
"""

# mypy: disable-error-code="import-not-found"
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

SMALL = 200_000
"""Interactions above which what takes hours without a GPU, or memory of items², is left out."""
THREADS = 1


class LeftOut(Exception):
    """Why a peer does not take part."""


class Question:
    """Who asks what: the same for all peers."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as data:
            self.user, self.item, self.time = data["user"], data["item"], data["time"]
            self.asked, self.start, self.past, self.k = data["asked"], data["start"], data["past"], int(data["k"])
        self.items = int(self.item.max()) + 1
        shape = int(self.user.max()) + 1, self.items
        counts = sparse.coo_array((np.ones(len(self.user), np.float32), (self.user, self.item)), shape=shape)
        self.train = sparse.csr_matrix(counts.tocsr())
        self.train.data[:] = 1
        ones = np.ones(len(self.past), np.float32)
        known = sparse.csr_matrix((ones, self.past, self.start), shape=(len(self.asked), self.items))
        known.sum_duplicates()
        known.data[:] = 1
        self.histories = known


def als(q: Question) -> Any:
    """Hu, Koren, Volinsky 2008; users are folded in."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        128, regularization=0.05, alpha=10, iterations=15, num_threads=THREADS, random_state=7
    )
    model.fit(q.train, show_progress=False)
    rows = np.arange(len(q.asked))
    return model.recommend(rows, q.histories, q.k, filter_already_liked_items=False, recalculate_user=True)[0]


def bpr(q: Question) -> Any:
    """Rendle et al. 2009; it has no vector for a user that it has not met."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    if (q.asked < 0).any():
        raise LeftOut("it has no vectors for users who came after the cut")
    model = BayesianPersonalizedRanking(
        64, learning_rate=0.05, regularization=0.01, iterations=200, num_threads=THREADS, random_state=7
    )
    model.fit(q.train, show_progress=False)
    return model.recommend(q.asked, q.histories, q.k, filter_already_liked_items=False)[0]


def item_knn(q: Question) -> Any:
    """Cosine of item-item co-occurrence."""
    from implicit.nearest_neighbours import CosineRecommender

    model = CosineRecommender(K=200, num_threads=THREADS)
    model.fit(q.train, show_progress=False)
    rows = np.arange(len(q.asked))
    return model.recommend(rows, q.histories, q.k, filter_already_liked_items=False)[0]


def implicit_mf(q: Question) -> Any:
    """LensKit's ALS; users are folded in."""
    from lenskit.als import ImplicitMFScorer
    from lenskit.data import ItemList, RecQuery, from_interactions_df

    frame = pd.DataFrame({"user_id": q.user, "item_id": q.item}).drop_duplicates()
    model = ImplicitMFScorer(embedding_size=64, epochs=15, regularization=0.1, weight=20)
    model.train(from_interactions_df(frame))
    catalogue = ItemList(item_ids=np.unique(q.item))
    lists = np.full((len(q.asked), q.k), -1, dtype=np.int32)
    for row in range(len(q.asked)):
        past = ItemList(item_ids=np.unique(q.past[q.start[row] : q.start[row + 1]]))
        scores = model(RecQuery(user_items=past), catalogue).scores()
        best = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[: q.k]
        lists[row, : len(best)] = catalogue.ids()[best]
    return lists


def ease(q: Question) -> Any:
    """Steck 2019, Embarrassingly shallow autoencoders: B = I − P / diag(P), P = (XᵀX + λI)⁻¹; items of three users."""
    if len(q.user) > SMALL:
        raise LeftOut("its matrix of items² does not fit here")
    kept = np.flatnonzero(np.asarray((q.train > 0).sum(axis=0)).ravel() >= 3)
    x = q.train[:, kept]
    gram = (x.T @ x).toarray().astype(np.float32)
    gram[np.diag_indices(len(kept))] += 300.0
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = q.histories[:, kept] @ weights
    return kept[np.argsort(-scores, axis=1, kind="stable")[:, : q.k]]


def sasrec(q: Question) -> Any:
    """Kang, McAuley 2018, by RecTools."""
    if len(q.user) > SMALL:
        raise LeftOut("it takes hours here without a GPU")
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models.nn.transformers.sasrec import SASRecModel

    def dataset(user: Any, item: Any, moment: Any) -> Any:
        frame = pd.DataFrame(
            {Columns.User: user, Columns.Item: item, Columns.Datetime: pd.to_datetime(moment, unit="ms")}
        )
        return Dataset.construct(frame.assign(**{Columns.Weight: 1.0}))

    model = SASRecModel(
        n_factors=64,
        session_max_len=50,
        epochs=20,
        n_blocks=2,
        n_heads=2,
        loss="gBCE",
        n_negatives=256,
    )
    model.fit(dataset(q.user, q.item, q.time))
    row = np.repeat(np.arange(len(q.asked)), np.diff(q.start))
    past = dataset(row, q.past, np.arange(len(row)) * 1000)
    found = model.recommend(
        np.unique(row), past, q.k, filter_viewed=False, on_unsupported_targets="ignore"
    )  # histories of nothing but items that it has not learned
    lists = np.full((len(q.asked), q.k), -1, dtype=np.int32)
    lists[found[Columns.User], found[Columns.Rank] - 1] = found[Columns.Item]
    return lists


PEERS = {
    "implicit_als": als,
    "implicit_bpr": bpr,
    "implicit_item_knn": item_knn,
    "lenskit_implicit_mf": implicit_mf,
    "ease": ease,
    "rectools_sasrec": sasrec,
}


def main(question: Path, out: Path, leave_out: list[str]) -> None:
    """Writes the lists of every peer that can be had, but for those left out."""
    warnings.filterwarnings("ignore")
    q = Question(question)
    for name, peer in PEERS.items():
        if name in leave_out:
            continue
        started = time.monotonic()
        try:
            lists = np.asarray(peer(q)).astype(np.int32)
        except LeftOut as why:
            print(f"{name} is left out: {why}", file=sys.stderr)
        except Exception as error:  # noqa: BLE001 — whatever a peer dies of, the others are measured
            print(f"{name} is absent: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            np.save(out / f"{name}.npy", lists)
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
