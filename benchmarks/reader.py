"""What one visitor's list costs a shop's backend: milliseconds a read, quiet and while a generation is written.

make bench NAME=reader SCALE=0.25: an SQLite store of a share of full Retailrocket size (1.41 M visitors, 544 k lists of
50), made anew below NIGHTJAR_HOME; visitors drawn by chance, one in fifty unknown.  A table, then one line of JSON:
p50_ms, p99_ms, p99_ms_while_writing, visitors, reads.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from tasks import reader
from tasks.publication import Generation, Store
from tasks.recsys.metrics import Doubles

VISITORS, LISTS, TOP, ITEMS = 1_407_580, 544_324, 50, 235_061
READS, BLOCK = 50_000, 100_000


def main() -> int:
    """Writes a generation, reads it, and reads it again while the next one is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.25, help="share of full Retailrocket size")
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory(dir=os.environ.get("NIGHTJAR_HOME")) as folder:
        store = Store(Path(folder) / "recommendations.db")
        started = time.monotonic()
        write(store, "first", scale)
        print(f"wrote {round(VISITORS * scale):,} visitors in {time.monotonic() - started:.1f} s", flush=True)
        store.switch("first")
        quiet = read(store, scale, lambda: False)
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(store, "second", scale))
        writer.start()
        busy = read(store, scale, writer.is_alive)
        writer.join()
    report(scale, quiet, busy)
    return 0 if writer.exitcode == 0 else 1


def write(store: Store, name: str, scale: float) -> None:
    """A generation of chance."""
    rng = np.random.default_rng(7)
    default = pl.DataFrame({"itemid": range(TOP), "score": np.linspace(1, 0.02, TOP)})
    generation = Generation(name, 1, "bench", "promoted", "measured", "1", "1")
    store.write(generation, _lists(rng, scale), _visitors(rng, scale), default)


def _lists(rng: np.random.Generator, scale: float) -> Iterator[pl.DataFrame]:
    for start in range(0, round(LISTS * scale), BLOCK):
        number = min(BLOCK, round(LISTS * scale) - start)
        items = rng.integers(0, ITEMS, (number, TOP))
        scores = -np.sort(-rng.random((number, TOP)).astype(np.float32), axis=1)
        yield pl.DataFrame({"list": range(start, start + number), "items": items, "scores": scores}).cast(
            {"items": pl.List(pl.Int64), "scores": pl.List(pl.Float32)}
        )


def _visitors(rng: np.random.Generator, scale: float) -> Iterator[pl.DataFrame]:
    for start in range(0, round(VISITORS * scale), BLOCK):
        number = min(BLOCK, round(VISITORS * scale) - start)
        lists = rng.integers(0, round(LISTS * scale), number)
        yield pl.DataFrame({"visitorid": range(start, start + number), "list": lists})


def read(store: Store, scale: float, more: Callable[[], bool]) -> Doubles:
    """Milliseconds of each of `READS` reads, and of more while `more` says so; one connection, one after another."""
    asked = np.random.default_rng(8).integers(0, round(VISITORS * scale * 1.02), READS)
    taken: list[float] = []
    with reader.reading(store) as db:
        while not taken or more():
            for visitor in asked.tolist():
                started = time.perf_counter()
                found = reader.recommended(db, visitor)
                taken.append((time.perf_counter() - started) * 1000)
                if len(found) != TOP:
                    raise SystemExit(f"visitor {visitor} got {len(found)} items, expected {TOP}")
    return np.array(taken)


def report(scale: float, quiet: Doubles, busy: Doubles) -> None:
    """The table, then the line of JSON."""
    print(f"{'milliseconds a read':<32}{'p50':>8}{'p99':>8}{'p99.9':>8}{'most':>8}{'reads':>10}")
    for name, taken in (("quiet", quiet), ("while a generation is written", busy)):
        shown = "".join(f"{np.quantile(taken, share):>8.3f}" for share in (0.5, 0.99, 0.999, 1))
        print(f"{name:<32}{shown}{len(taken):>10,}")
    facts = {"p50_ms": np.median(quiet), "p99_ms": np.quantile(quiet, 0.99)}
    facts["p99_ms_while_writing"] = np.quantile(busy, 0.99)
    counts = {"visitors": round(VISITORS * scale), "reads": len(quiet), "scale": scale}
    print(json.dumps({**{name: round(float(value), 4) for name, value in facts.items()}, **counts}))


if __name__ == "__main__":
    raise SystemExit(main())
