"""python -m tasks.recommendations OUT [--generation NAME]: writes published recommendations as a Parquet file."""

import argparse
import sys
from pathlib import Path

import polars as pl

from tasks import publication, storage
from tasks.failures import BadUsage, CannotWrite, TaskFailure


def main(argv: list[str]) -> int:
    """Writes visitorid, rank, itemid, score of a generation, by default of the one in force."""
    parser = argparse.ArgumentParser(prog="python -m tasks.recommendations", description=__doc__)
    parser.add_argument("out", type=Path, help="the Parquet file to write")
    parser.add_argument("--generation", help="which generation; default: the one in force")
    arguments = parser.parse_args(argv)
    partial = arguments.out.with_name(f".{arguments.out.name}.partial")
    try:
        rows = _read(arguments.generation)
        storage.write_table(partial, rows)
        partial.rename(arguments.out)
    except TaskFailure as failure:
        print(failure, file=sys.stderr)
        return failure.exit_code
    except OSError as error:
        print(f"cannot write {arguments.out}: {error.strerror}", file=sys.stderr)
        return CannotWrite.exit_code
    finally:
        partial.unlink(missing_ok=True)
    print(f"{arguments.out}: {rows.height} rows, {rows['visitorid'].n_unique()} visitors")
    return 0


def _read(generation: str | None) -> pl.DataFrame:
    store = publication.store()
    if not store.exists():
        raise BadUsage(f"nothing was published yet: {store.place} does not exist; run `make run` first")
    return store.read(generation)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
