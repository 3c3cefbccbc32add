"""Candidates for every visitor: the search beside Faiss at its best, and the whole task, shard by shard.

make bench NAME=candidates SCALE=1: demo data of that share of full Retailrocket size, prepared and fitted as in a
night.  Faiss's exact index answers visitors in large batches on every core, with the kernels that suit the CPU; ours
answers each distinct history once.  A table, then one line of JSON: ratio_to_tuned_flat (visitors a second),
recall_to_exact (at 300), task_s (all shards, one after another), peak_gb (of a shard), and what they were made of.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient

from benchmarks import nights
from tasks import dataset_files
from tasks.contracts import Artifact, Request, RunContext
from tasks.recsys import index, interactions
from tasks.recsys.index import Floats
from tasks.recsys.parallel import in_order

REPO = Path(__file__).resolve().parent.parent
FLAT = REPO / "benchmarks" / "ways" / "flat.py"
ASKED, K, BATCH = 32_768, 300, 4_096


@dataclass(frozen=True)
class Cost:
    """What a shard cost."""

    seconds: float
    cpu_s: float
    peak_gb: float


def main() -> int:
    """Makes the data, fits, searches, generates, tells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of full Retailrocket size")
    scale = parser.parse_args().scale
    data = Path(os.environ["NIGHTJAR_HOME"]) / "bench" / f"scale-{scale:g}"
    subprocess.run([sys.executable, "-m", "tasks.demo_data", str(data), "--scale", f"{scale:g}"], check=True)
    with tempfile.TemporaryDirectory() as home:
        night = nights.run(Path(home), data, None, (0.70, 0.85))
        facts = search(night, Path(home))
        shards = [generate(night, shard, Path(home)) for shard in range(night.dataset.shards)]
    report(facts, shards, scale)
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


def generate(night: nights.Night, shard: int, folder: Path) -> Cost:
    """A shard as a night generates it, in a process of its own."""
    verb, inputs = "generate_candidates", {"dataset": night.dataset, "retriever": night.retriever}
    about = RunContext.model_validate({"dag_id": "bench", "run_id": "candidates", "map_index": shard})
    request = Request(inputs={key: _plain(one) for key, one in inputs.items()}, config={"shard": shard}, run=about)
    (folder / "request.json").write_text(request.model_dump_json())
    started = time.perf_counter()
    command = [sys.executable, "-m", "tasks", verb, str(folder / "request.json"), str(folder / "answer.json")]
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - started
    run_id = json.loads((folder / "answer.json").read_bytes())["uri"].removeprefix("runs:/").partition("/")[0]
    metrics = MlflowClient().get_run(run_id).data.metrics
    return Cost(seconds, metrics["cpu_seconds"], metrics["peak_memory_bytes"] / 1e9)


def _plain(artifact: Artifact) -> dict[str, Any]:
    return artifact.model_dump(mode="json")


def report(facts: dict[str, float], shards: list[Cost], scale: float) -> None:
    """The table, then the line of JSON."""
    for name, value in facts.items():
        print(f"{name:<26}{value:>12,}")
    print(f"{'shard':<8}{'seconds':>10}{'CPU s':>10}{'peak GB':>10}")
    for number, cost in enumerate(shards):
        print(f"{number:<8}{cost.seconds:>10.1f}{cost.cpu_s:>10.1f}{cost.peak_gb:>10.2f}")
    whole = {"task_s": round(sum(one.seconds for one in shards), 1), "peak_gb": max(one.peak_gb for one in shards)}
    print(json.dumps(facts | whole | {"scale": scale, "shards": [vars(one) for one in shards]}))


if __name__ == "__main__":
    sys.exit(main())
