"""Candidates for every visitor: the search beside Faiss at its best, and the whole task, shard by shard.

make bench NAME=candidates SCALE=1: demo data of that share of full Retailrocket size, prepared and fitted as in a
night, once: both are kept below NIGHTJAR_HOME/bench.  Faiss's exact index answers visitors in large batches on every
core, with the kernels that suit the CPU; ours answers each distinct history once.  Then the whole task, and again for
--times as many visitors with the same items and fits (`visitors.more`).  A table, then one line of JSON:
ratio_to_tuned_flat (visitors a second), recall_to_exact (at 300), task_s (all shards, one after another), peak_gb (of a
shard), growth_exponent (CPU seconds by visitors: 1 is linear), and what they were made of.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient

from benchmarks import nights, visitors
from tasks import dataset_files
from tasks.contracts import Artifact, Candidates, Dataset, Request, Retriever, RunContext
from tasks.recsys import index, interactions
from tasks.recsys.index import Floats
from tasks.recsys.parallel import in_order

REPO = Path(__file__).resolve().parent.parent
FLAT = REPO / "benchmarks" / "ways" / "flat.py"
ASKED, K, BATCH = 32_768, 300, 4_096


@dataclass(frozen=True)
class Cost:
    """What a shard cost."""

    times: int
    """as many visitors as the night has"""
    shard: int
    visitors: int
    lists: int
    seconds: float
    cpu_s: float
    peak_gb: float


def main() -> int:
    """Makes the data, fits, searches, generates, tells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of full Retailrocket size")
    parser.add_argument("--times", type=int, default=4, help="as many visitors the second time; 1: no second time")
    options = parser.parse_args()
    bench = Path(os.environ["NIGHTJAR_HOME"]) / "bench"
    data = bench / f"scale-{options.scale:g}"
    command = [sys.executable, "-m", "tasks.demo_data", str(data), "--scale", f"{options.scale:g}"]
    subprocess.run(command, check=True)
    night = nights.kept(bench / f"fitted-{options.scale:g}", data)
    with tempfile.TemporaryDirectory() as work:
        facts = search(night, Path(work))
        costs = whole(night.dataset, night.retriever, 1, Path(work))
        if options.times > 1:
            costs += whole(visitors.with_more(night, options.times), night.retriever, options.times, Path(work))
    report(facts, costs, options.scale)
    return 0


def search(night: nights.Night, folder: Path) -> dict[str, float]:
    """Visitors a second of both ways of search, and what ours loses."""
    everybody = dataset_files.read_histories(night.data, night.dataset.as_of)
    first, _ = interactions.distinct(everybody)
    tower = night.sources(night.dataset.as_of).tower
    some = np.unique(np.linspace(0, len(first) - 1, min(ASKED, len(first))).astype(np.int64))
    queries, _ = tower.queries(tower.windows(everybody.take(first[some])))
    vectors = tower.model.item_vectors().numpy()
    shared = len(everybody) / len(first)
    ours = shared * _rate(tower.index, queries)
    flat = _flat(folder, vectors, queries)
    return {
        "visitors_a_second": round(ours),
        "flat_visitors_a_second": round(flat),
        "visitors_a_history": round(shared, 3),
        "ratio_to_tuned_flat": round(ours / flat, 2),
        "recall_to_exact": round(index.recall_to_exact(tower.index, vectors, queries[:BATCH], K), 5),
    }


def _rate(searched: Any, queries: Floats) -> float:
    """Queries a second, on every core as the task searches."""
    blocks = [queries[at : at + BATCH] for at in range(0, len(queries), BATCH)]
    started = time.perf_counter()
    for _ in in_order(lambda block: index.search(searched, block, K), blocks):
        pass
    return len(queries) / (time.perf_counter() - started)


def _flat(folder: Path, vectors: Floats, queries: Floats) -> float:
    """Queries a second of Faiss's exact index on every core: the best of its own and of the kernels for AVX-512."""
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", queries)
    rates = []
    for kernels in ({}, {"OPENBLAS_CORETYPE": "SkylakeX"}):
        command = [sys.executable, str(FLAT), str(folder), str(K), str(BATCH)]
        said = subprocess.run(command, env={**os.environ, **kernels}, check=True, capture_output=True, text=True).stdout
        rates.append(float(said))
    return max(rates)


def whole(dataset: Dataset, retriever: Retriever, times: int, folder: Path) -> list[Cost]:
    """Every shard, one after another."""
    return [generate(dataset, retriever, times, shard, folder) for shard in range(dataset.shards)]


def generate(dataset: Dataset, retriever: Retriever, times: int, shard: int, folder: Path) -> Cost:
    """A shard as a night generates it, in a process of its own; what it wrote is removed."""
    verb, inputs = "generate_candidates", {"dataset": _plain(dataset), "retriever": _plain(retriever)}
    about = RunContext.model_validate({"dag_id": "bench", "run_id": "candidates", "map_index": shard})
    request = Request(inputs=inputs, config={"shard": shard}, run=about)
    (folder / "request.json").write_text(request.model_dump_json())
    started = time.perf_counter()
    command = [sys.executable, "-m", "tasks", verb, str(folder / "request.json"), str(folder / "answer.json")]
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - started
    answer = Candidates.model_validate_json((folder / "answer.json").read_bytes())
    run_id, client = answer.uri.removeprefix("runs:/").partition("/")[0], MlflowClient()
    metrics = client.get_run(run_id).data.metrics
    shutil.rmtree(client.download_artifacts(run_id, "candidates"))
    cpu, peak = metrics["cpu_seconds"], metrics["peak_memory_bytes"] / 1e9
    return Cost(times, shard, answer.users, answer.lists, round(seconds, 1), round(cpu, 1), round(peak, 2))


def _plain(artifact: Artifact) -> dict[str, Any]:
    return artifact.model_dump(mode="json")


def report(facts: dict[str, float], costs: list[Cost], scale: float) -> None:
    """The table, then the line of JSON."""
    for name, value in facts.items():
        print(f"{name:<26}{value:>12,}")
    print(f"{'times':<6}{'shard':<6}{'visitors':>12}{'lists':>12}{'seconds':>10}{'CPU s':>10}{'peak GB':>10}")
    for cost in costs:
        print(f"{cost.times:<6}{cost.shard:<6}{cost.visitors:>12,}{cost.lists:>12,}", end="")
        print(f"{cost.seconds:>10.1f}{cost.cpu_s:>10.1f}{cost.peak_gb:>10.2f}")
    found = {times: _sum([cost for cost in costs if cost.times == times]) for times in {cost.times for cost in costs}}
    whole = {**found[1], "scale": scale, "shards": [asdict(cost) for cost in costs]}
    if (times := max(found)) > 1:
        grown = math.log(found[times]["task_cpu_s"] / found[1]["task_cpu_s"]) / math.log(times)
        whole |= {"growth_exponent": round(grown, 3), f"{times}_times": found[times]}
    print(json.dumps(facts | whole))


def _sum(costs: list[Cost]) -> dict[str, float]:
    """Of the whole task, one shard after another."""
    return {
        "task_s": round(sum(cost.seconds for cost in costs), 1),
        "task_cpu_s": round(sum(cost.cpu_s for cost in costs), 1),
        "peak_gb": max(cost.peak_gb for cost in costs),
        "visitors": sum(cost.visitors for cost in costs),
        "lists": sum(cost.lists for cost in costs),
    }


if __name__ == "__main__":
    sys.exit(main())
