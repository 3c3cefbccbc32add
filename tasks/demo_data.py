"""Make demo data in the Retailrocket file format: `python -m tasks.demo_data OUT_FOLDER`.

Writes events.csv, item_properties_part1.csv, item_properties_part2.csv, category_tree.csv and demo.json.  The
last is the marker that says that this is generated data of the year 2015, and how it was made.  The folder
appears whole or not at all.
"""

import argparse
import json
import logging
import secrets
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import polars as pl

from tasks.failures import TERMINATED, BadUsage, CannotWrite, TaskFailure
from tasks.recsys.synthetic import SPAN, START, DemoConfig, Shop, category_tree, make_shop
from tasks.recsys.synthetic_events import event_blocks
from tasks.recsys.synthetic_properties import property_blocks

log = logging.getLogger(__name__)

VERSION = 1
"""Goes up when the same settings begin to give other bytes."""
MARKER = "demo.json"
EVENTS, TREE = "events.csv", "category_tree.csv"
PARTS = ("item_properties_part1.csv", "item_properties_part2.csv")
FIRST_PART = 0.5425
"""Share of the property rows in part 1, as in the real files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command.  A failure is one line on stderr and an exit code of `tasks.failures`."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        out, config = _read_arguments(arguments)
        make_demo_data(out, config)
    except TaskFailure as failure:
        print(failure, file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        print("interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def make_demo_data(out: Path, config: DemoConfig) -> bool:
    """Write the demo data to `out`; False if the same data was there already and nothing had to be done."""
    out = out.resolve()
    if _already_there(out, config):
        log.info("%s already holds this demo data (%s), nothing to do", out, _told(_settings(config)))
        return False
    try:
        with _appearing_whole(out) as folder:
            rows = _write_all(folder, make_shop(config))
            marker = {
                "about": "generated demo data in the Retailrocket format, of the fixed year 2015",
                **_settings(config),
                "first_ms": START,
                "end_ms": START + SPAN,
                "rows": rows,
            }
            (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CannotWrite(
            f"cannot write demo data to {out}: {error.strerror or error}; "
            "expected a folder, new or empty, in a place with room that may be written to"
        ) from error
    log.info("%s: demo data written (%s)", out, _told(_settings(config)))
    return True


def _read_arguments(arguments: Sequence[str] | None) -> tuple[Path, DemoConfig]:
    parser = _Parser(prog="python -m tasks.demo_data", description="Make demo data like Retailrocket's.")
    parser.add_argument("out", metavar="OUT_FOLDER", type=Path, help="folder to make: a new or an empty one")
    parser.add_argument(
        "--scale",
        type=float,
        default=DemoConfig.scale,
        help="size, 0.001 to 10; 1 is that of the real data, 2.76 M events (default: %(default)s)",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=DemoConfig.noise,
        help="share of events by pure chance, 0 to 1; at 1 there is nothing to learn (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=DemoConfig.seed, help="same seed, same bytes (default: %(default)s)"
    )
    read = parser.parse_args(arguments)
    try:
        return read.out, DemoConfig(scale=read.scale, noise=read.noise, seed=read.seed)
    except ValueError as error:
        raise BadUsage(str(error)) from error


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other failure."""

    def error(self, message: str) -> NoReturn:
        raise BadUsage(f"{message}; see {self.prog} --help")


def _terminate(signum: int, frame: FrameType | None) -> None:
    # Leaves through the clean-up of the half written folder.
    sys.exit(TERMINATED)


def _settings(config: DemoConfig) -> dict[str, float]:
    return {"version": VERSION, "scale": config.scale, "noise": config.noise, "seed": config.seed}


def _told(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _already_there(out: Path, config: DemoConfig) -> bool:
    """Whether `out` holds what would be made.  Anything else that it may hold is a failure."""
    try:
        found = {path.name for path in out.iterdir()}
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadUsage(f"{out}: {error.strerror}; expected a folder, new or empty") from error
    if not found:
        return False
    marker = _marker(out)
    expected = _settings(config)
    if {name: marker.get(name) for name in expected} == expected and found >= {EVENTS, TREE, *PARTS}:
        return True
    raise BadUsage(
        f"{out} is not empty: it holds {min(found)} and {len(found) - 1} more; expected a new or empty "
        f"folder, or whole demo data of {_told(expected)}; give another folder or empty this one"
    )


def _marker(out: Path) -> dict[str, Any]:
    """What demo.json says; nothing if there is none that can be read."""
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


@contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, or is removed on a failure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    folder.mkdir()
    try:
        yield folder
        # Replaces an empty folder, and fails if somebody has put something there meanwhile.
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_all(folder: Path, shop: Shop) -> dict[str, int]:
    """Rows of each file written to `folder`."""
    rows = {TREE: _write([folder / TREE], ((block,) for block in [category_tree(shop)]))[0]}
    rows[EVENTS] = _write([folder / EVENTS], ((block,) for block in event_blocks(shop)))[0]
    written = _write([folder / part for part in PARTS], map(_parted, property_blocks(shop)))
    return rows | dict(zip(PARTS, written, strict=True))


def _parted(block: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    first = round(len(block) * FIRST_PART)
    return block[:first], block[first:]


def _write(paths: list[Path], blocks: Iterable[tuple[pl.DataFrame, ...]]) -> list[int]:
    """Append each block's frames to the files, one frame a file; the rows of each file."""
    rows = [0] * len(paths)
    for frames in blocks:
        for index, (path, frame) in enumerate(zip(paths, frames, strict=True)):
            with path.open("ab") as file:
                frame.write_csv(file, include_header=rows[index] == 0)
            rows[index] += len(frame)
    log.info("%s", ", ".join(f"{path.name}: {count:,} rows" for path, count in zip(paths, rows, strict=True)))
    return rows


if __name__ == "__main__":
    sys.exit(main())
