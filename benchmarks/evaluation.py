"""The evaluation of many users: every baseline's lists, every metric with its interval, paired differences.

make bench NAME=evaluation SCALE=1: the night of benchmarks/candidates.py, kept where that keeps it.  Few visitors come
back after its second cut, so each step since then that has one before it is a user of its own, 200,000 at full
size: asked for that step and the two that follow, from what its visitor had done, as of the cut.  The lists of the
two-tower and of the blend are timed apart and not in the total: their search is what benchmarks/candidates.py measures.
A table, then one line of JSON: users, histories (distinct), lists_s (of the models), question_s, baselines_s,
metrics_s, total_s (of the last three), total_cpu_s, peak_gb (of all of it), scale.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks import nights
from tasks import memory
from tasks.contracts import EvaluateRecallConfig
from tasks.evaluate_recall import DEEPEST, MODELS, Rows, measured
from tasks.recsys import baselines, evaluation, metrics
from tasks.recsys.evaluation import COLD, HEADLINE, Question
from tasks.recsys.interactions import Histories, Interactions, Ints, Longs, distinct
from tasks.recsys.metrics import Doubles, Hits
from tasks.recsys.parallel import in_order
from tasks.recsys.retrieval import Retriever

USERS, ASKED = 200_000, 3
"""Users at most; interactions that each is asked for at most."""
TOTAL = ("question", "baselines", "metrics")

Found = TypeVar("Found")
Costs = dict[str, tuple[float, float]]
"""Part of the work → its seconds and CPU seconds."""


def main() -> int:
    """Makes the night, evaluates in a process of its own, tells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of full Retailrocket size")
    scale = parser.parse_args().scale
    bench = Path(os.environ["NIGHTJAR_HOME"]) / "bench"
    data, home = bench / f"scale-{scale:g}", bench / f"fitted-{scale:g}"
    command = [sys.executable, "-m", "tasks.demo_data", str(data), "--scale", f"{scale:g}"]
    subprocess.run(command, check=True)
    nights.kept(home, data)
    with ProcessPoolExecutor(1, get_context("spawn"), memory.keep) as alone:
        facts, costs = alone.submit(evaluate, home, data).result()
    report(facts, costs, scale)
    return 0


def evaluate(home: Path, data: Path) -> tuple[dict[str, float], Costs]:
    """What evaluate_recall does once it has read its inputs, a part after another."""
    night = nights.kept(home, data)
    interactions, cut, costs = night.interactions, night.dataset.second_cut, Costs()
    steps = steps_since(interactions, cut, night.dataset.history_cap)
    sources, popularity = night.sources(cut), np.bincount(interactions.before(cut).item)
    asked = timed(costs, "question", lambda: question(steps, cut, night.dataset.history_cap, popularity))
    first, list_of = distinct(asked.asked)
    histories = asked.asked.take(first)
    lists = timed(costs, "lists", lambda: models(sources, histories))
    lists |= timed(costs, "baselines", lambda: dict(baselines.every(interactions, histories, cut, DEEPEST)))
    timed(costs, "metrics", lambda: measure(lists, list_of, asked, popularity))
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    gigabytes = round(int(peak[1]) * 1024 / 1e9, 2) if peak else float("nan")
    return {"users": len(asked.truth), "histories": len(histories), "peak_gb": gigabytes}, costs


def steps_since(interactions: Interactions, cut: int, cap: int) -> Interactions:
    """Each step at or after the cut that has one before it, as a user: what came before, that step, and what follows.

    Spread evenly over all such steps; times are moved so that the step itself is at the cut.
    """
    first, end = (np.searchsorted(interactions.user, interactions.user, side) for side in ("left", "right"))
    step = np.flatnonzero((interactions.time >= cut) & (np.arange(len(interactions)) > first))
    step = step[np.unique(np.linspace(0, max(len(step) - 1, 0), min(USERS, len(step))).astype(np.int64))]
    start, stop = np.maximum(first[step], step - cap), np.minimum(end[step], step + ASKED)
    user = np.repeat(np.arange(len(step), dtype=np.int32), stop - start)
    row = np.arange(len(user)) + np.repeat(stop - np.cumsum(stop - start), stop - start)
    moved = interactions.time[row] - interactions.time[step][user] + cut
    return Interactions(user, interactions.item[row], interactions.event[row], moved)


def question(steps: Interactions, cut: int, cap: int, popularity: Longs) -> Question:
    """Asks the steps' users; items without interactions [items] before the real cut are in nobody's catalogue."""
    asked = evaluation.question(steps, cut, int(steps.time.max()) + 1, cap)
    met = np.append(popularity, np.zeros(max(0, steps.items - len(popularity)), dtype=np.int64))
    known = met[asked.truth.item]
    return replace(
        asked,
        asked=asked.asked.where(met[asked.asked.item] > 0),
        in_catalogue=known > 0,
        cold_items=(known > 0) & (known < COLD),
        catalogue=len(popularity),
    )


def models(sources: Retriever, histories: Histories) -> dict[str, Ints]:
    """Lists [histories, 300] of the two-tower and the blend."""
    blocks = [(tower, blend.item) for tower, blend in sources.answers(histories, DEEPEST)]
    return {name: np.concatenate(parts) for name, parts in zip(MODELS, zip(*blocks, strict=True), strict=True)}


def measure(lists: dict[str, Ints], list_of: Longs, asked: Question, popularity: Longs) -> None:
    """Every method's metrics, and the models against the best baseline."""
    config = EvaluateRecallConfig.model_validate({})

    def one(name: str) -> tuple[Hits, Rows]:
        return measured(lists[name], list_of, asked, popularity, config)

    headline: dict[str, Doubles] = {}
    for name, (hit, _) in zip(lists, in_order(one, lists), strict=True):
        headline[name] = metrics.recall_at(hit, asked.truth, HEADLINE)
        evaluation.losses(hit, asked)
    best = max(baselines.BASELINES, key=lambda name: float(np.sum(headline[name])))
    for name in MODELS:
        metrics.paired(headline[name], headline[best], config.resamples, config.seed)


def timed(costs: Costs, name: str, work: Callable[[], Found]) -> Found:
    """What the work makes; its seconds and CPU seconds are put among the costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    costs[name] = (time.perf_counter() - wall, time.process_time() - cpu)
    return found


def report(facts: dict[str, float], costs: Costs, scale: float) -> None:
    """The table, then the line of JSON."""
    total = tuple(sum(costs[name][column] for name in TOTAL) for column in (0, 1))
    print(f"{facts['users']:,} users, {facts['histories']:,} histories, peak {facts['peak_gb']:.2f} GB")
    print(f"{'':<28}{'seconds':>10}{'CPU s':>10}")
    rows = {"lists of the models, apart": costs["lists"], **{name: costs[name] for name in TOTAL}, "total": total}
    for name, (seconds, cpu) in rows.items():
        print(f"{name:<28}{seconds:>10.1f}{cpu:>10.1f}")
    found = {f"{name}_s": seconds for name, (seconds, _) in costs.items()}
    found |= {"total_s": total[0], "total_cpu_s": total[1]}
    print(json.dumps({**facts, **{name: round(value, 1) for name, value in found.items()}, "scale": scale}))


if __name__ == "__main__":
    sys.exit(main())
