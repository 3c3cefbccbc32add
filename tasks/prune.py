"""python -m tasks.prune [--nights N] [--yes]: what old nights hold that nothing needs; with --yes it is removed.

Removed are the files of old nights in MLflow, never their runs, metrics, params or tags, and old generations of the
store.  What stays, whatever its age: the night of every version that an alias names (champion, challenger, any other)
with all that it was made from, that of every generation that is kept, the one in force first, and a night in progress.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from tasks import nights, publication, tracking
from tasks.contracts import PruneNightsConfig
from tasks.failures import TaskFailure
from tasks.nights import Night
from tasks.publication import Store

NIGHTS, GENERATIONS = (PruneNightsConfig.model_fields[name].default for name in ("keep_nights", "keep_generations"))


Stays = list[tuple[Night, str]]
"""Old nights with the reason why they stay."""


def main(argv: list[str]) -> int:
    """Prints the plan, then carries it out if told so."""
    parser = argparse.ArgumentParser(prog="python -m tasks.prune", description=__doc__)
    parser.add_argument("--nights", type=_at_least(1), default=NIGHTS, help="nights that ran last and keep their files")
    parser.add_argument(
        "--generations", type=_at_least(2), default=GENERATIONS, help="generations written last that stay in the store"
    )
    parser.add_argument("--yes", action="store_true", help="remove it")
    arguments = parser.parse_args(argv)
    try:
        prune(arguments.nights, arguments.generations, carry_out=arguments.yes)
    except TaskFailure as failure:
        print(failure, file=sys.stderr)
        return failure.exit_code
    return 0


def prune(
    keep_nights: int, keep_generations: int, *, carry_out: bool, tell: Callable[[str], object] = print
) -> tuple[int, int]:
    """Tells what old nights and generations hold that nothing needs, and removes it if told to carry it out.

    Returns the nights whose files were removed, and the bytes of these.
    """
    client, store = tracking.connect(), publication.store()
    outdated = store.outdated(keep_generations) if store.exists() else []
    reasons = {**_generations(store, outdated), **nights.named_by_aliases(client)}
    old, stays = decide(nights.with_files(client), reasons, keep_nights)
    sizes = [nights.size(client, night) for night in old]
    for night, reason in stays:
        tell(f"stays   {_told(night)}: {reason}")
    for night, size in zip(old, sizes, strict=True):
        tell(f"remove  {_told(night)}: {size / 1e6:,.1f} MB of files; its metrics stay")
    for name in outdated:
        tell(f"remove  generation {name} of {store.place}")
    whole = f"{len(old)} nights, {sum(sizes) / 1e6:,.1f} MB, and {len(outdated)} generations"
    if not carry_out:
        tell(f"to remove: {whole}; nothing was removed, YES=1 (--yes) does it")
        return 0, 0
    if outdated:
        store.prune(keep_generations)
    removed: list[int] = []
    for night, size in zip(old, sizes, strict=True):
        if nights.in_progress(client, night):
            tell(f"stays   {_told(night)}: it has begun to run")
        else:
            nights.remove_files(client, night)
            removed.append(size)
    tell(f"removed: {whole}")
    return len(removed), sum(removed)


def decide(found: Sequence[Night], reasons: Mapping[str, str], keep: int) -> tuple[list[Night], Stays]:
    """The nights to remove and those that are old and stay.

    found: the nights that have files, the last first; reasons: night → why it stays however old it is.
    """
    old = [(night, "it is in progress" if night.running else reasons.get(night.run_id, "")) for night in found[keep:]]
    return [night for night, why in old if not why], [(night, why) for night, why in old if why]


def _generations(store: Store, outdated: Sequence[str]) -> dict[str, str]:
    """Night → the generation of it that is kept: a rollback needs its models."""
    if not store.exists():
        return {}
    current = store.in_force()
    kept = {one.night: f"its generation {one.name} is kept" for one in store.generations() if one.name not in outdated}
    return kept | ({current.night: f"its generation {current.name} is in force"} if current else {})


def _told(night: Night) -> str:
    return f"{night.name} ({night.run_id[:8]}, ran {datetime.fromtimestamp(night.last / 1000, UTC):%Y-%m-%d %H:%M} UTC)"


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}, expected a whole number from {least}")
        return int(text)

    return number


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
