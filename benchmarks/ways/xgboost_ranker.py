"""Trains XGBoost's lambdaMART on the groups of a folder with trees like ours; prints wall seconds and peak kB.

Arguments: the folder, trees, leaves, learning rate, threads.  Runs in the peers' environment, which has no `tasks`.
"""

import sys
import time
from pathlib import Path

import numpy as np
import xgboost  # type: ignore[import-not-found]


def main() -> int:
    """Histograms, leaf by leaf, pairs with the first fifteen of a list: what ours does."""
    folder, trees, leaves, rate, threads = Path(sys.argv[1]), *sys.argv[2:]
    started = time.monotonic()
    size = np.load(folder / "size.npy")
    query = np.repeat(np.arange(len(size)), size)
    grade = np.load(folder / "grade.npy")
    data = xgboost.QuantileDMatrix(np.load(folder / "features.npy"), grade, qid=query, nthread=int(threads))
    parameters = {
        "objective": "rank:ndcg",
        "lambdarank_pair_method": "topk",
        "lambdarank_num_pair_per_sample": 15,
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_depth": 0,
        "max_leaves": int(leaves),
        "eta": float(rate),
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "nthread": int(threads),
    }
    xgboost.train(parameters, data, int(trees))
    print(time.monotonic() - started, peak_kb())
    return 0


def peak_kb() -> int:
    """Of this process alone: what the kernel tells its parent begins with the parent's own."""
    return next(int(row.split()[1]) for row in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in row)


if __name__ == "__main__":
    sys.exit(main())
