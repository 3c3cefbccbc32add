"""Trains the product's ranker on the groups of a folder; prints the wall seconds and the peak memory in kB."""

import sys
import time
from pathlib import Path

import numpy as np

from tasks.contracts import TrainLambdarankConfig
from tasks.recsys import ranking
from tasks.recsys.features import Feature
from tasks.recsys.ranking import Boosting, Groups


def main() -> int:
    """Every tree, without a window to stop by."""
    folder = Path(sys.argv[1])
    config = TrainLambdarankConfig.model_validate({})
    started = time.monotonic()
    columns = np.load(folder / "features.npy")
    unnamed = Feature("made by chance", "none", "nothing")
    ranking.FEATURES = {f"feature_{number}": unnamed for number in range(columns.shape[1])}  # type: ignore[attr-defined]
    how = Boosting(config.max_trees, config.leaves, config.shrinkage, config.seed)
    groups = Groups(columns, np.load(folder / "grade.npy"), np.load(folder / "size.npy"))
    booster = ranking.refit(groups, config.max_trees, how)
    seconds = time.monotonic() - started
    assert booster.num_trees() == config.max_trees
    print(seconds, peak_kb())
    return 0


def peak_kb() -> int:
    """Of this process alone: what the kernel tells its parent begins with the parent's own."""
    return next(int(row.split()[1]) for row in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in row)


if __name__ == "__main__":
    sys.exit(main())
