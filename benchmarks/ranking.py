"""The ranker's training beside XGBoost on the same data: seconds, CPU seconds and peak memory.

make bench NAME=ranking SCALE=1: 14.7 million rows × 30 features in groups of 300, made by chance, with trees of the
default configuration.  Ours trains on one thread, so that a night repeats to the bit; XGBoost on one and on every core.
A table, then one line of JSON: ratio_to_xgboost (CPU seconds, one thread each), peak_gb, scale and the rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality import PEERS_PYTHON, set_up_peers
from tasks.contracts import TrainLambdarankConfig

REPO = Path(__file__).resolve().parent.parent
WAYS = REPO / "benchmarks" / "ways"
GROUPS, SIZE, FEATURES = 49_000, 300, 30
CHUNK = 1_000
"""Groups made at a time."""
OURS, XGBOOST = "ours, one thread", "XGBoost, one thread"


@dataclass(frozen=True)
class Cost:
    """What a training cost."""

    way: str
    wall_s: float
    cpu_s: float
    peak_gb: float


def main() -> int:
    """Makes the data, trains, tells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of 14.7 million rows")
    scale = parser.parse_args().scale
    set_up_peers()
    config = TrainLambdarankConfig.model_validate({})
    alike = [str(value) for value in (config.max_trees, config.leaves, config.shrinkage)]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), round(GROUPS * scale))
        costs = [measure(OURS, [sys.executable, str(WAYS / "ranker.py"), folder])]
        for name, threads in ((XGBOOST, 1), ("XGBoost, every core", os.cpu_count() or 1)):
            if PEERS_PYTHON.exists():
                way = [str(PEERS_PYTHON), str(WAYS / "xgboost_ranker.py"), folder, *alike, str(threads)]
                costs.append(measure(name, way))
    report(costs, scale)
    return 0


def make(folder: Path, groups: int) -> None:
    """Writes features.npy [rows, features], grade.npy [rows] and size.npy [groups]; few rows are relevant."""
    rng = np.random.default_rng(0)
    rows = groups * SIZE
    columns = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (rows, FEATURES))
    grade = np.zeros(rows, dtype=np.int8)
    for start in range(0, rows, CHUNK * SIZE):
        part = rng.random((min(CHUNK * SIZE, rows - start), FEATURES), dtype=np.float32)
        chance = 0.02 * part[:, 0] * part[:, 1]
        grade[start : start + len(part)] = (rng.random(len(part)) < chance) * rng.integers(1, 4, len(part))
        part[:, FEATURES // 2 :][rng.random((len(part), FEATURES - FEATURES // 2)) < 0.5] = np.nan
        columns[start : start + len(part)] = part
    columns.flush()
    np.save(folder / "grade.npy", grade)
    np.save(folder / "size.npy", np.full(groups, SIZE, dtype=np.int64))


def measure(name: str, command: list[str]) -> Cost:
    """Runs a training in a process of its own: it prints its seconds without imports, and its peak."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO, env={**os.environ, **_path(command)})
    assert child.stdout
    printed = child.stdout.read().split()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{name} ended with {os.waitstatus_to_exitcode(status)}")
    cpu = used.ru_utime + used.ru_stime
    return Cost(name, round(float(printed[0]), 1), round(cpu, 1), round(int(printed[1]) / 1e6, 2))


def _path(command: list[str]) -> dict[str, str]:
    """Ours imports `tasks`; the peers' environment has other versions of what it needs."""
    return {"PYTHONPATH": str(REPO)} if command[0] == sys.executable else {"PYTHONPATH": ""}


def report(costs: list[Cost], scale: float) -> None:
    """The table, then the line of JSON."""
    print(f"{'way':<24}{'seconds':>10}{'CPU s':>10}{'peak GB':>10}")
    for cost in costs:
        print(f"{cost.way:<24}{cost.wall_s:>10.1f}{cost.cpu_s:>10.1f}{cost.peak_gb:>10.2f}")
    found = {cost.way: cost for cost in costs}
    ours, other = found[OURS], found.get(XGBOOST)
    ratio = round(ours.cpu_s / other.cpu_s, 3) if other else None
    print(
        json.dumps(
            {"ratio_to_xgboost": ratio, "peak_gb": ours.peak_gb, "scale": scale, "rows": [asdict(one) for one in costs]}
        )
    )


if __name__ == "__main__":
    sys.exit(main())
