"""Preparation beside the plain pandas way of doing the same: CPU seconds and peak memory at 1x, 4x and 10x of a scale.

make bench NAME=prepare_data SCALE=1: the demo data of SCALE, 4·SCALE and 10·SCALE are made once and kept below
NIGHTJAR_HOME (9 GB of disk at SCALE=1).  For one cut, Nightjar beside pandas; then the whole task with every cut.
A table, then one line of JSON: time_ratio_to_pandas, memory_ratio_to_pandas, peak_gb, growth_exponent and the rows.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
STEPS = (1, 4, 10)
PANDAS_GB = 3.2
"""Memory that pandas needs at full Retailrocket size; where less is free it is not run, and that is said."""
ONE_CUT, PANDAS, WHOLE = "one_cut", "pandas_way", "whole_task"


@dataclass(frozen=True)
class Cost:
    """What a run cost."""

    way: str
    scale: float
    wall_s: float
    cpu_s: float
    peak_gb: float


def main() -> int:
    """Runs every way at every size and tells what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of full Retailrocket size that 1x is")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="multiples of it")
    options = parser.parse_args()
    costs: list[Cost] = []
    for step in options.steps:
        scale = step * options.scale
        data = Path(os.environ["NIGHTJAR_HOME"]) / "bench" / f"scale-{scale:g}"
        subprocess.run([*_python(), "-m", "tasks.demo_data", str(data), "--scale", f"{scale:g}"], check=True, cwd=REPO)
        for way in (ONE_CUT, PANDAS, WHOLE):
            if way == PANDAS and _free_gb() < PANDAS_GB * scale:
                print(f"{scale:g}x: pandas would need about {PANDAS_GB * scale:.0f} GB, {_free_gb():.0f} GB are free")
                continue
            costs.append(_measure(way, data, scale))
    report(costs, options.scale)
    return 0


def _python() -> list[str]:
    return [os.environ["NIGHTJAR_TASKS_PYTHON"]]


def _free_gb() -> float:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _measure(way: str, data: Path, scale: float) -> Cost:
    """Runs one way in a process of its own."""
    with tempfile.TemporaryDirectory(dir=data.parent) as work:
        started = time.monotonic()
        child = subprocess.Popen(
            [*_python(), str(REPO / "benchmarks" / "ways" / f"{way}.py"), str(data), work],
            cwd=REPO,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
    if status:
        raise SystemExit(f"{way} at scale {scale:g} ended with {os.waitstatus_to_exitcode(status)}")
    return Cost(way, scale, round(wall, 1), round(used.ru_utime + used.ru_stime, 1), round(used.ru_maxrss / 1e6, 2))


def report(costs: list[Cost], scale: float) -> None:
    """The table, then the line of JSON."""
    print(f"{'way':<12}{'scale':>8}{'seconds':>10}{'CPU s':>10}{'peak GB':>10}")
    for cost in costs:
        print(f"{cost.way:<12}{cost.scale:>8g}{cost.wall_s:>10.1f}{cost.cpu_s:>10.1f}{cost.peak_gb:>10.2f}")
    found = {(cost.way, cost.scale): cost for cost in costs}
    ours, pandas = found[ONE_CUT, scale], found.get((PANDAS, scale))
    whole = sorted((cost for cost in costs if cost.way == WHOLE), key=lambda cost: cost.scale)
    first, last = whole[0], whole[-1]
    grown = math.log(last.cpu_s / first.cpu_s) / math.log(last.scale / first.scale) if last is not first else None
    facts = {
        "time_ratio_to_pandas": round(ours.cpu_s / pandas.cpu_s, 3) if pandas else None,
        "memory_ratio_to_pandas": round(ours.peak_gb / pandas.peak_gb, 3) if pandas else None,
        "peak_gb": first.peak_gb,
        "growth_exponent": round(grown, 3) if grown else None,
    }
    print(json.dumps({**facts, "rows": [asdict(cost) for cost in costs]}))


if __name__ == "__main__":
    sys.exit(main())
