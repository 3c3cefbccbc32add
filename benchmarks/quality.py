"""How well the retrieval finds what people do next, beside simple methods and peers from PyPI in the same run.

python benchmarks/quality.py --data FOLDER: FOLDER holds retailrocket-sessions and retailrocket-subset, in the input
format; what is not there is passed over.  Demo data are made for it.  Choices are made on the validation figures,
which are the default; --final measures the test windows instead.  A table a data set, then one line of JSON.

sessions  the last 10 % of the sessions are held out (validation: of the first 90 %); each prefix of one asks for its
          next item, over the full catalogue; an unknown item is a miss.
subset    fit before the 0.85 quantile, truth after it (validation: 0.70 and 0.70–0.85); warm users, repeats allowed.
          These data keep one row a visitor, item and event, so a repeat of the same event never comes back.
weekly    the same data, eight weekly cuts up to the end (validation: up to the 0.85 quantile), each a night of its own
          judged on the week after; users pooled; the ratio to the best other method, paired.
demo      made with noise 0, 0.5 and 1, default split; beside the planted optimum, see benchmarks/planted.py.
"""

import argparse
import itertools
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks import nights, planted
from benchmarks.nights import DEPTH, Night
from tasks import dataset_files
from tasks.demo_data import make_demo_data
from tasks.recsys import cooccurrence, evaluation, metrics
from tasks.recsys.interactions import DAY, Histories, Interactions, Ints, Truth
from tasks.recsys.metrics import Doubles
from tasks.recsys.synthetic import DemoConfig, Shop, make_shop

REPO = Path(__file__).resolve().parent.parent
PEERS_PYTHON = REPO / ".venv" / "peers" / "bin" / "python"
PREFIXES = 20_000
"""Prefixes asked about at most, spread evenly over the held-out sessions."""
WEEKS = 8
SLOW = ("rectools_sasrec",)
"""Peers that are not asked eight times: it takes minutes a week."""
RANKED = "ranked"
BLANKED = "ranked, used-up events unknown"
OURS = ("two_tower", "blend", RANKED, BLANKED)
USED_UP = ("own_count", "own_strongest")
"""Features that tell which events a pair has used up, where the data keep one row a visitor, item and event."""

Values = Mapping[str, Mapping[str, Doubles]]
"""Method → metric → one value a user."""


def sessions(home: Path, data: Path, final: bool) -> Values:
    """Next item of each prefix of the held-out sessions."""
    as_of = None if final else int(np.quantile(nights.event_times(data), 0.9, method="lower"))
    night = nights.run(home, data, as_of, (0.81, 0.9))
    cut = night.dataset.second_cut
    asked, truth = prefixes(night.interactions, cut)
    lists = dict(_lists(home, night, night.interactions, cut, asked))
    lists["session_knn"] = session_knn(night.interactions, cut, asked)
    return {name: _next_item(metrics.hits(found, truth), truth) for name, found in lists.items()}


def prefixes(interactions: Interactions, cut: int) -> tuple[Histories, Truth]:
    """Prefixes of the sessions that start at or after the cut, and the item that follows each."""
    start = np.searchsorted(interactions.user, np.arange(interactions.users))
    first = np.repeat(start, np.diff(np.append(start, len(interactions))))
    target = np.flatnonzero((interactions.time[first] >= cut) & (np.arange(len(interactions)) > first))
    target = target[np.unique(np.linspace(0, len(target) - 1, min(PREFIXES, len(target))).astype(np.int64))]
    length = np.minimum(target - first[target], 50)
    bounds = np.append(0, np.cumsum(length))
    row = np.arange(bounds[-1]) + np.repeat(target - length - bounds[:-1], length)
    number = np.arange(len(target), dtype=np.int32)
    asked = Histories(number, bounds, interactions.item[row], interactions.event[row], interactions.time[row])
    return asked, Truth(number, np.arange(len(target) + 1), interactions.item[target], interactions.event[target])


def _next_item(hit: metrics.Hits, truth: Truth) -> dict[str, Doubles]:
    values = {f"hr_at_{k}": metrics.hit_rate_at(hit, truth, k) for k in (20, 50, 300)}
    values["mrr_at_20"] = metrics.reciprocal_rank_at(hit, truth, 20)
    return {**values, "ndcg_at_10": metrics.ndcg_at(hit, truth, 10)}


def session_knn(interactions: Interactions, cut: int, asked: Histories) -> Ints:
    """V-SKNN (Ludewig, Jannach 2018): items of the 100 nearest past sessions, the query decayed by recency."""
    past = cooccurrence.seen(interactions, cut)
    norm = np.maximum(past.sum(axis=1), 1.0) ** -0.5
    of_item = sparse.csr_array((sparse.diags_array(norm) @ past).T)
    number, alike = cooccurrence.recommend(asked, cooccurrence.recency(asked), of_item, 100)
    row, place = np.nonzero(number >= 0)
    near = sparse.coo_array((alike[row, place], (row, number[row, place])), shape=(len(asked), past.shape[0]))
    return cooccurrence.top_of_product(near.tocsr(), past, DEPTH)[0]


def subset(home: Path, data: Path, final: bool) -> Values:
    """Warm users of the second window."""
    if final:
        return _second_window(home, nights.run(home, data, None, (0.70, 0.85)))
    as_of = int(np.quantile(nights.event_times(data), 0.85, method="lower"))
    return _second_window(home, nights.run(home, data, as_of, (0.70 * 0.70 / 0.85, 0.70 / 0.85)))


def _second_window(home: Path, night: Night) -> Values:
    dataset, interactions = night.dataset, night.interactions
    asked = evaluation.question(interactions, dataset.second_cut, dataset.as_of, dataset.history_cap)
    found = _lists(home, night, interactions, dataset.second_cut, asked.asked)
    return {name: _recalls(lists, asked) for name, lists in found}


def _recalls(lists: Ints, asked: evaluation.Question) -> dict[str, Doubles]:
    """Recall of all relevant items, and of those that were known before the cut."""
    hit, truth = metrics.hits(lists, asked.truth), asked.truth
    known, of_known = hit.where(asked.in_catalogue), truth.where(asked.in_catalogue)
    values = {f"recall_at_{k}": metrics.recall_at(hit, truth, k) for k in (10, 50, 300)}
    values |= {
        "ndcg_at_10": metrics.ndcg_at(hit, truth, 10),
        "in_catalogue.ndcg_at_10": metrics.ndcg_at(known, of_known, 10),
    }
    return values | {f"in_catalogue.recall_at_{k}": metrics.recall_at(known, of_known, k) for k in (10, 50, 300)}


def weekly(home: Path, data: Path, final: bool) -> Values:
    """Eight nights, each judged on the week after it; the users of all weeks together."""
    times = nights.event_times(data)
    end = int(times[-1]) + 1 if final else int(np.quantile(times, 0.85, method="lower"))
    pooled: dict[str, dict[str, list[Doubles]]] = {}
    everything = nights.interactions(home, nights.prepare(home, data, end, (0.70, 0.85)))
    for week in range(WEEKS, 0, -1):
        cut = end - 7 * DAY * week
        night = nights.run(home, data, cut, (0.70, 0.85))
        asked = evaluation.question(everything, cut, cut + 7 * DAY, night.dataset.history_cap)
        found = _lists(home, night, everything, cut, asked.asked, leave_out=SLOW)
        for name, lists in found:
            for metric, values in _recalls(lists, asked).items():
                pooled.setdefault(name, {}).setdefault(metric, []).append(values)
    return {name: {metric: np.concatenate(parts) for metric, parts in of.items()} for name, of in pooled.items()}


def demo(noise: float, scale: float) -> Callable[[Path, Path, bool], Values]:
    """Demo data of this noise; there is no test set to save."""

    def protocol(home: Path, data: Path, final: bool) -> Values:
        config = DemoConfig(scale=scale, noise=noise)
        make_demo_data(home / "demo", config)
        night = nights.run(home, home / "demo", None, (0.70, 0.85))
        return {**_second_window(home, night), **_optimum(night, make_shop(config))}

    return protocol


def _optimum(night: Night, shop: Shop) -> Values:
    """What is reached by somebody who knows what the demo data are made from."""
    dataset = night.dataset
    window = dataset.second_cut, dataset.as_of
    asked = evaluation.question(night.interactions, *window, dataset.history_cap)
    visitors = dataset_files.read_user_ids(night.data)[asked.truth.user]
    items, known = dataset_files.read_item_ids(night.data), night.interactions.before(window[0])
    found = planted.lists(shop, visitors, items, known, window, DEPTH)
    return {name: _recalls(lists, asked) for name, lists in found}


def _lists(
    home: Path, night: Night, interactions: Interactions, cut: int, asked: Histories, leave_out: Sequence[str] = ()
) -> Iterator[tuple[str, Ints]]:
    """Ours, then the peers', but for those left out."""
    yield from nights.lists(night.sources(cut), interactions, asked)
    yield from _ranked(home, night, cut, asked)
    if PEERS_PYTHON.exists():
        with tempfile.TemporaryDirectory(dir=home) as out:
            yield from _peers(Path(out), interactions, cut, asked, leave_out)


def _peers(
    out: Path, interactions: Interactions, cut: int, asked: Histories, leave_out: Sequence[str]
) -> Iterator[tuple[str, Ints]]:
    """The peers' lists, by way of files in a folder."""
    known = interactions.before(cut)
    past = asked.where(asked.item < known.items)
    user = np.where(np.isin(asked.user, known.user) & (asked.time[asked.start[:-1]] < cut), asked.user, -1)
    rows: dict[str, Any] = {"user": known.user, "item": known.item, "time": known.time, "k": np.array(DEPTH)}
    np.savez(out / "question.npz", **rows, asked=user, start=past.start, past=past.item)
    subprocess.run([PEERS_PYTHON, REPO / "benchmarks" / "peers.py", out / "question.npz", out, *leave_out], check=False)
    for path in sorted(out.glob("*.npy")):
        yield path.stem, np.load(path)


def _ranked(home: Path, night: Night, cut: int, asked: Histories) -> Iterator[tuple[str, Ints]]:
    """The blend in the ranker's order, of the ranker as it is and of one that does not know what is used up."""
    made = nights.candidates(night)
    for name, blank in ((RANKED, ()), (BLANKED, USED_UP)):
        with nights.blanked(blank):
            yield name, nights.ranked(night, nights.rank(home, night, made), cut, asked)


def set_up_peers() -> None:
    """Makes the peers' environment from its lock; without a network the run goes on without them."""
    if subprocess.run([REPO / "bin" / "setup", "peers"], check=False).returncode:
        print("the peers are absent: their environment could not be made; the lines above say why", file=sys.stderr)
        shutil.rmtree(PEERS_PYTHON.parent.parent, ignore_errors=True)


def report(name: str, values: Values) -> dict[str, object]:
    """Prints the table of a data set, and returns its figures."""
    columns = list(next(iter(values.values())))
    print(f"\n{name}\n{'':44}" + "".join(f"{column.removeprefix('in_catalogue.'):>24}" for column in columns))
    figures: dict[str, object] = {}
    for method, of in values.items():
        means = {column: metrics.estimate(of[column]) for column in columns}
        cells = (f"{one.value or 0:.4f} [{one.low or 0:.3f}, {one.high or 0:.3f}]" for one in means.values())
        print(f"{method:44}" + "".join(f"{cell:>24}" for cell in cells) + f"  n = {means[columns[0]].n:,}")
        figures[method] = {column: vars(mean) for column, mean in means.items()}
    return figures | {"ratios": _ratios(values)}


def _ratios(values: Values) -> dict[str, object]:
    """Each of ours over the best other method and over the bounds, the ranker's order over the blend's, paired."""
    ratios: dict[str, object] = {}
    bounds = [name for name in planted.BOUNDS if name in values]
    for metric in next(iter(values.values())):
        others = [name for name in values if name not in (*OURS, *bounds)]
        best = max(others, key=lambda name: float(values[name][metric].mean()))
        pairs = [*((name, best) for name in OURS), (RANKED, "blend"), (BLANKED, "blend")]
        pairs += itertools.product(("two_tower", "blend"), bounds)
        for name, other in pairs:
            ratio = metrics.ratio(values[name][metric], values[other][metric])
            print(
                f"{name} over {other}, {metric}: {ratio.value or 0:.3f} [{ratio.low or 0:.3f}, {ratio.high or 0:.3f}]"
            )
            ratios[f"{name}.{metric}" + f".over_{other}" * (other != best)] = {"over": other, **vars(ratio)}
    return ratios


def main() -> int:
    """Measures what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of retailrocket-sessions and retailrocket-subset")
    parser.add_argument("--scale", type=float, default=0.02, help="size of the demo data, a share of full size")
    parser.add_argument("--final", action="store_true", help="measures the test windows: once, at the end")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    set_up_peers()
    protocols: dict[str, tuple[str, Callable[[Path, Path, bool], Values]]] = {
        "sessions": ("retailrocket-sessions", sessions),
        "subset": ("retailrocket-subset", subset),
        "weekly": ("retailrocket-subset", weekly),
    } | {f"demo, noise {noise}": ("", demo(noise, options.scale)) for noise in (0.0, 0.5, 1.0)}
    figures: dict[str, object] = {"final": options.final}
    for name, (folder, protocol) in protocols.items():
        if folder and not (options.data and (options.data / folder).is_dir()):
            print(f"{name} is passed over: no {folder} in --data {options.data}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as home:
            figures[name] = report(name, protocol(Path(home), (options.data or Path()) / folder, options.final))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
