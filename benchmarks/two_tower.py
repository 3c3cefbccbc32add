"""The two-tower's training: samples a second beside common optimizers, step time by catalogue, the three fits.

make bench NAME=two_tower SCALE=1: the three fits of a night on demo data of that scale on every core, then steps on
synthetic ids on one thread.  A table for a person, then one line of JSON: ratio_to_fused_adam,
ratio_to_sparse_adam_bf16, samples_per_core_s, three_fits_s, task_s, memory_gb (of all its processes), step_ms, scale.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from mlflow import MlflowClient
from torch import Tensor
from torch.nn import functional

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from benchmarks import nights  # noqa: E402
from tasks import memory  # noqa: E402
from tasks.recsys.losses import accidental_hits, log_q_correction, sampled_softmax  # noqa: E402
from tasks.recsys.recipe import Recipe  # noqa: E402
from tasks.recsys.sampling import Negatives, NegativeSampler  # noqa: E402
from tasks.recsys.steps import Training  # noqa: E402
from tasks.recsys.two_tower import Rows, TwoTower, newest  # noqa: E402
from tasks.train_two_tower import FITS_SECONDS  # noqa: E402

ITEMS, DIM, BATCH, NEGATIVES, LENGTH = 235_000, 64, 1_024, 4_096, 4
CATALOGUES = (59_000, 235_000, 940_000)
RECIPE = Recipe(
    max_epochs=1, patience=1, batch_size=BATCH, negatives=NEGATIVES, learning_rate=0.02, dropout=0.0, seed=7
)
WARM_UP, SECONDS = 1, 3.0

Batch = tuple[Tensor, Tensor]
Step = Callable[[Batch], None]


def main() -> int:
    """Measures and tells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of full Retailrocket size, for the three fits")
    scale = parser.parse_args().scale
    with ProcessPoolExecutor(1, get_context("spawn"), memory.keep) as apart:  # as `python -m tasks` runs it
        fits, task, held_gb = apart.submit(three_fits, scale).result()
    torch.set_num_threads(1)
    check_losses()
    makers = {"ours": ours, "fused dense Adam": fused_adam, "SparseAdam, bf16 logits": sparse_adam_bf16}
    seconds = {name: step_seconds(make, ITEMS) for name, make in makers.items()}
    by_catalogue = {items: step_seconds(ours, items) for items in CATALOGUES}
    print(f"{f'batch {BATCH}, {NEGATIVES} negatives, d {DIM}, {ITEMS} items':<52}{'ms a step':>12}{'samples/s':>12}")
    for name, each in seconds.items():
        print(f"{name:<52}{1e3 * each:>12.1f}{BATCH / each:>12.0f}")
    for items, each in by_catalogue.items():
        print(f"{f'ours, {items} items':<52}{1e3 * each:>12.1f}{BATCH / each:>12.0f}")
    print(
        f"at scale {scale:g}, defaults, {os.cpu_count()} cores: three fits {fits:.1f} s, train_two_tower with them "
        f"{task:.1f} s, its processes together {held_gb:.2f} GB"
    )
    found = {
        "ratio_to_fused_adam": round(seconds["fused dense Adam"] / seconds["ours"], 2),
        "ratio_to_sparse_adam_bf16": round(seconds["SparseAdam, bf16 logits"] / seconds["ours"], 2),
        "samples_per_core_s": round(BATCH / seconds["ours"]),
        "three_fits_s": round(fits, 1),
        "task_s": round(task, 1),
        "memory_gb": round(held_gb, 2),
        "step_ms": {str(items): round(1e3 * each, 1) for items, each in by_catalogue.items()},
        "scale": scale,
    }
    print(json.dumps(found))
    return 0


def step_seconds(make: Callable[[TwoTower, NegativeSampler], Step], items: int) -> float:
    """CPU seconds of a step, the median of as many as fit in a few seconds: other processes do not count."""
    counts = torch.from_numpy(popularity(items))
    torch.manual_seed(0)
    step = make(TwoTower(items, DIM, LENGTH), NegativeSampler.of(counts))
    rng = np.random.default_rng(0)
    share = counts.numpy() / counts.numpy().sum()
    times: list[float] = []
    while len(times) < WARM_UP + 2 or sum(times) < SECONDS:
        item = torch.from_numpy(rng.choice(items, (BATCH // LENGTH, LENGTH + 1), p=share))
        started = time.process_time()
        step((item, torch.zeros_like(item)))
        times.append(time.process_time() - started)
    return float(np.median(times[WARM_UP:]))


def popularity(items: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[items], a long tail like a shop's."""
    return 1e6 / np.arange(1.0, items + 1) ** 0.8


def ours(model: TwoTower, sampler: NegativeSampler) -> Step:
    """The product's own step."""
    module = Training(model, sampler, RECIPE, steps=10_000)
    module.configure_optimizers()
    return lambda batch: module.training_step(batch, 0)


def fused_adam(model: TwoTower, sampler: NegativeSampler) -> Step:
    """The same model and loss by autograd, with gradients of whole tables, and torch's fused Adam."""
    adam = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    return plain_step(model, sampler, [adam], sparse=False, scored_in=torch.float32)


def sparse_adam_bf16(model: TwoTower, sampler: NegativeSampler) -> Step:
    """The same model and loss with torch's SparseAdam for the tables, and scores by products of bfloat16."""
    dense = [one for one in model.parameters() if all(one is not table for table in model.tables)]
    optimizers = [torch.optim.SparseAdam(model.tables, lr=0.01), torch.optim.Adam(dense, lr=0.01)]
    return plain_step(model, sampler, optimizers, sparse=True, scored_in=torch.bfloat16)


def plain_step(
    model: TwoTower,
    sampler: NegativeSampler,
    optimizers: list[torch.optim.Optimizer],
    *,
    sparse: bool,
    scored_in: torch.dtype,
) -> Step:
    """A step through autograd alone."""
    generator = torch.Generator().manual_seed(0)

    def step(batch: Batch) -> None:
        negatives = sampler.draw(NEGATIVES, generator)
        ids = torch.unique(torch.cat([batch[0].flatten(), negatives.item]))
        rows = Rows(ids, *(functional.embedding(ids, table, sparse=sparse) for table in model.tables))
        for optimizer in optimizers:
            optimizer.zero_grad()
        plain_loss(model, rows, *batch, negatives, scored_in).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()

    return step


def plain_loss(
    model: TwoTower, rows: Rows, item: Tensor, event: Tensor, negatives: Negatives, scored_in: torch.dtype
) -> Tensor:
    """`TwoTower.loss` of one head, of windows [batch, length + 1] without padding, with all scores in memory."""
    past, target, place = item[:, :-1], item[:, 1:], rows.place(item)
    queries = model.pool(functional.embedding(place[:, :-1], rows.item), past >= 0, event[:, :-1])
    repeats = model.repeats(past, event[:, :-1])
    query, vectors, wanted = queries.flatten(0, 2), functional.normalize(rows.item, dim=1), place[:, 1:].flatten()
    sampled = rows.place(negatives.item)
    scores = (query.to(scored_in) @ vectors[sampled].to(scored_in).T).float()
    scores = scores + rows.bias[sampled].T + log_q_correction(negatives.drawn, negatives.log_expected)
    hits = accidental_hits(past, target, negatives.item)
    scores = scores.index_put(hits, scores.new_tensor(-torch.inf))
    same = past.unsqueeze(2) == past.unsqueeze(1)
    own = queries.squeeze(2) @ vectors[place[:, :-1]].transpose(1, 2) + repeats @ same.float()
    own = own + rows.bias[place[:, :-1]].transpose(1, 2)
    again = past.unsqueeze(1) == target.unsqueeze(2)
    own = own.masked_fill(~newest(past) | again, -torch.inf).flatten(0, 1)
    positive = (query * vectors[wanted]).sum(1) + rows.bias[wanted].squeeze(1) + (repeats * again).sum(2).flatten()
    return sampled_softmax(positive, torch.cat([scores, own], dim=1))


def check_losses() -> None:
    """Raises if the steps that are compared are not about the same loss."""
    torch.manual_seed(0)
    model, generator = TwoTower(ITEMS, DIM, LENGTH), torch.Generator().manual_seed(0)
    item = torch.randint(0, 50, (BATCH // LENGTH, LENGTH + 1), generator=generator)
    negatives = NegativeSampler.of(torch.from_numpy(popularity(ITEMS))).draw(NEGATIVES, generator)
    ids = torch.unique(torch.cat([item.flatten(), negatives.item]))
    rows = Rows(ids, *(functional.embedding(ids, table) for table in model.tables))
    torch.testing.assert_close(
        plain_loss(model, rows, item, torch.zeros_like(item), negatives, torch.float32),
        model.loss(rows, item, torch.zeros_like(item), negatives),
    )


def three_fits(scale: float) -> tuple[float, float, float]:
    """Seconds of the three fits and of all of train_two_tower, and GB, on demo data that is made once and kept."""
    data = Path(os.environ["NIGHTJAR_HOME"]) / "bench" / f"scale-{scale:g}"
    tasks = os.environ["NIGHTJAR_TASKS_PYTHON"]
    subprocess.run([tasks, "-m", "tasks.demo_data", str(data), "--scale", f"{scale:g}"], check=True, cwd=REPO)
    with tempfile.TemporaryDirectory(dir=data.parent) as home:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # what it leaves behind is not the fits' memory
            dataset = apart.submit(nights.prepare, Path(home), data, None, (0.70, 0.85)).result()
        started = time.monotonic()
        with held() as seen:
            retriever = nights.train(dataset)
        task = time.monotonic() - started
        logged = MlflowClient().get_run(retriever.run_id).data.metrics
        return logged[FITS_SECONDS], task, max(seen, default=0) / 1e9


@contextmanager
def held() -> Iterator[list[int]]:
    """While it lasts: each second, the bytes that this process and its children hold, those that they share once."""
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(1.0):
            children = (file.read_text().split() for file in Path("/proc/self/task").glob("*/children"))
            seen.append(sum(map(_share, ["self", *chain.from_iterable(children)])))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def _share(process: str) -> int:
    """Its proportional set size; 0 once it has ended."""
    try:
        rows = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(row.split()[1]) for row in rows if row.startswith("Pss:")), 0)


if __name__ == "__main__":
    raise SystemExit(main())
