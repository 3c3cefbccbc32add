"""The whole night on data of a share of full Retailrocket size: seconds, CPU seconds and peak memory a task.

make bench NAME=night SCALE=0.1: the demo data of that scale is made once and kept below NIGHTJAR_HOME.  A table for a
person, then one line of JSON: wall_s, peak_gb, tasks, scale.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent


def main() -> int:
    """Runs the night and tells what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of full Retailrocket size")
    scale = parser.parse_args().scale
    data = Path(os.environ["NIGHTJAR_HOME"]) / "bench" / f"scale-{scale:g}"
    tasks = os.environ["NIGHTJAR_TASKS_PYTHON"]
    subprocess.run([tasks, "-m", "tasks.demo_data", str(data), "--scale", f"{scale:g}"], check=True)
    subprocess.run([sys.executable, str(REPO / "bin" / "night"), "--data", str(data), "--ready"], check=True)
    started = time.monotonic()
    night = subprocess.run(
        [sys.executable, str(REPO / "bin" / "night"), "--data", str(data)],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    wall = time.monotonic() - started
    print(night.stdout)
    if night.returncode:
        return night.returncode
    facts: dict[str, Any] = json.loads(Path(night.stdout.splitlines()[-1]).read_text())
    report(facts, wall, scale)
    return 0


def report(facts: dict[str, Any], wall: float, scale: float) -> None:
    """The table, then the line of JSON."""
    rows: dict[str, dict[str, float]] = {}
    for task in facts["tasks"]:
        row = rows.setdefault(task["task"], {"wall_s": 0.0, "cpu_s": 0.0, "peak_gb": 0.0})
        row["wall_s"] += task["seconds"]
        row["cpu_s"] += task["cpu_seconds"]
        row["peak_gb"] = max(row["peak_gb"], task["peak_memory_bytes"] / 1e9)
    print(f"{'task':<26}{'seconds':>10}{'CPU s':>10}{'peak GB':>10}")
    for name, row in rows.items():
        print(f"{name:<26}{row['wall_s']:>10.1f}{row['cpu_s']:>10.1f}{row['peak_gb']:>10.2f}")
    peak = max(row["peak_gb"] for row in rows.values())
    print(f"{'the whole night':<26}{wall:>10.1f}{'':>10}{peak:>10.2f}")
    rounded = {name: {key: round(value, 2) for key, value in row.items()} for name, row in rows.items()}
    print(json.dumps({"wall_s": round(wall, 1), "peak_gb": round(peak, 2), "tasks": rounded, "scale": scale}))


if __name__ == "__main__":
    raise SystemExit(main())
