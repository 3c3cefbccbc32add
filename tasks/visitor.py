"""python -m tasks.visitor VISITORID [--generation NAME] [--json]: what one visitor did, gets, and why.

The list is ranked again from the files of the night that made the generation, by the code that serves; if it is not
the published one, that is said, and the command fails.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks import candidate_files, dataset_files, nights, publication, ranker_files, reader, tracking
from tasks.failures import BadConfig, BadData, BadUsage, TaskFailure
from tasks.publication import Generation, Store
from tasks.recsys import explaining
from tasks.recsys.explaining import Explained, Reason
from tasks.recsys.interactions import EVENTS, Histories, Longs

SHOWN, MISSED = 10, 3
"""Interactions and recommendations that are told, and candidates that come right after the list."""


@dataclass(frozen=True)
class Did:
    """An interaction of the history."""

    item: int
    event: str
    time: int
    """UTC ms"""


@dataclass(frozen=True)
class Visitor:
    """What one visitor did and gets; items are itemids."""

    visitor: int
    generation: str
    in_force: bool
    as_of: int
    """UTC ms"""
    known: bool
    """False: had no interaction before as_of, and gets the default list"""
    history: Sequence[Did]
    """the newest first"""
    length: int
    """of the published list"""
    listed: Sequence[Explained]
    """the first of the list, best first"""
    missed: Sequence[Explained]
    """those that came next"""
    differs: str
    """how the list that the files give is not the published one; empty: it is the same"""
    default: Sequence[int]
    """the first items that an unknown visitor gets"""


def main(argv: list[str]) -> int:
    """Prints what there is of the visitor, for a person or as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tasks.visitor", description=__doc__)
    parser.add_argument("visitor", type=int, help="the visitorid")
    parser.add_argument("--generation", help="which generation; default: the one in force")
    parser.add_argument("--json", action="store_true", help="as one JSON document")
    arguments = parser.parse_args(argv)
    try:
        found = look_up(arguments.visitor, arguments.generation)
    except TaskFailure as failure:
        print(failure, file=sys.stderr)
        return failure.exit_code
    print(json.dumps(asdict(found)) if arguments.json else "\n".join(lines(found)))
    if found.differs:
        print(f"NOT THE PUBLISHED LIST: {found.differs}", file=sys.stderr)
    return BadData.exit_code if found.differs else 0


def look_up(visitor: int, name: str | None) -> Visitor:
    """A visitor in a generation, by default the one in force.

    Raises BadUsage and BadConfig where there is no such generation, BadData where its night's files are gone.
    """
    store = publication.store()
    generation, in_force = _generation(store, name)
    default = reader.default_list(store, generation.name, SHOWN)
    about = Visitor(
        visitor=visitor,
        generation=generation.name,
        in_force=in_force,
        as_of=generation.as_of,
        known=False,
        history=(),
        length=0,
        listed=(),
        missed=(),
        differs="",
        default=default[default >= 0].tolist(),
    )
    found = reader.published(store, generation.name, visitor)
    if found is None:
        return about
    number, items, scores = found
    with tempfile.TemporaryDirectory() as work:
        history, candidates = _explained(generation, visitor, number, Path(work))
    return replace(
        about,
        known=True,
        history=history,
        length=len(items),
        listed=candidates[: min(SHOWN, len(items))],
        missed=candidates[len(items) :][:MISSED],
        differs=_differs(candidates, items, scores),
    )


def _generation(store: Store, name: str | None) -> tuple[Generation, bool]:
    """The one that is meant, and whether it is in force."""
    if not store.exists():
        raise BadUsage(f"nothing was published yet: {store.place} does not exist; run `make run` first")
    current = store.in_force()
    found = store.find(name) if name else current
    if found is None:
        known = ", ".join(one.name for one in store.generations()) or "none yet: run `make run` first"
        what = f"no generation {name}" if name else "no generation is in force"
        raise BadConfig(f"{what} in {store.place}; there are: {known}")
    return found, found == current


def _explained(generation: Generation, visitor: int, number: int, work: Path) -> tuple[list[Did], list[Explained]]:
    """The visitor's history, the newest first, and all candidates of the list of that number, best first."""
    made = nights.published(tracking.connect(), generation.night, generation.name)
    cut = f"cuts/{generation.as_of}"
    needed = ("users.parquet", "items.parquet", f"{cut}/histories", f"{cut}/items.parquet")
    data = tracking.parts(f"runs:/{made.dataset}/dataset", needed, work / "dataset")
    holder = made.candidates[number % len(made.candidates)]
    shard = tracking.parts(f"runs:/{holder}/candidates", ("serve.parquet",), work / "candidates")
    booster = None
    if generation.ranker_version:
        booster = ranker_files.read_booster(tracking.parts(f"runs:/{made.ranker}/ranker", (), work))
    user = np.flatnonzero(dataset_files.read_user_ids(data) == visitor).astype(np.int32)
    past = dataset_files.read_histories(data, generation.as_of, user)
    pairs = candidate_files.read_list(shard / "serve.parquet", number)
    found = explaining.explain(booster, pairs, past, ranker_files.read_items(data, generation.as_of))
    ids = dataset_files.read_item_ids(data)
    return _history(past, ids), [replace(one, item=int(ids[one.item])) for one in found]


def _history(past: Histories, ids: Longs) -> list[Did]:
    rows = zip(ids[past.item].tolist(), past.event.tolist(), past.time.tolist(), strict=True)
    return [Did(item, EVENTS[event], time) for item, event, time in rows][::-1]


def _differs(candidates: Sequence[Explained], items: Sequence[int], scores: Sequence[float]) -> str:
    """The first place where the published list is another; scores are published to six digits."""
    for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1):
        mine = candidates[rank - 1] if rank <= len(candidates) else None
        if mine is None or mine.item != item or not np.isclose(mine.score, score, rtol=1e-5, atol=1e-5):
            here = f"item {mine.item} ({mine.score:.6f})" if mine else "nothing"
            return f"at rank {rank} item {item} ({score:.6f}) is published, the night's files give {here}"
    return ""


def lines(found: Visitor) -> Iterator[str]:
    """The answer for a person."""
    state = "in force" if found.in_force else "not in force"
    yield f"visitor {found.visitor}, generation {found.generation} ({state}), as of {_minute(found.as_of)} UTC"
    if not found.known:
        yield "not known: no interaction before that instant; gets the default list, best first"
        yield f"  {', '.join(map(str, found.default))}"
        return
    yield f"\ndid, the newest first, {len(found.history)} in all"
    for did in found.history[:SHOWN]:
        yield f"  {_minute(did.time)}  {did.event:<12} item {did.item}"
    why = "what moved their scores most" if any(one.reasons for one in found.listed) else "where the blend has them"
    yield f"\ngets {found.length} items; the first {len(found.listed)}, and {why}"
    yield from _ranked(found.listed, 1)
    if found.missed:
        yield "\njust missed the list"
        yield from _ranked(found.missed, found.length + 1)
    yield "\n" + (f"NOT THE PUBLISHED LIST: {found.differs}" if found.differs else "the same list as is published")


def _ranked(candidates: Sequence[Explained], first: int) -> Iterator[str]:
    for rank, one in enumerate(candidates, first):
        sources = ", ".join(f"{name} at {at}" for name, at in one.sources.items())
        yield f"{rank:>4}  item {one.item:<9} {one.score:>9.4f}  named by {sources}; blended at {one.place}"
        for reason in one.reasons:
            yield f"      {reason.moved:+9.4f}  {_value(reason)}"


def _value(reason: Reason) -> str:
    """A feature's meaning and value."""
    if reason.value is None:
        return f"missing: {reason.meaning}"
    number = f"{reason.value:,.0f}" if reason.value == round(reason.value) else f"{reason.value:.3f}"
    return f"{number} ({reason.unit}): {reason.meaning}"


def _minute(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
