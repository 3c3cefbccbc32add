"""python -m tasks.rollback [--to GENERATION]: puts an earlier generation and its models back in force."""

import argparse
import sys

from tasks import publication, registry, tracking
from tasks.failures import BadUsage, TaskFailure, Unavailable
from tasks.publication import Generation
from tasks.tracking import RANKER_MODEL, RETRIEVER_MODEL


def main(argv: list[str]) -> int:
    """Moves the pointer of the store, then the alias `champion`; repeating it with the same --to is harmless."""
    parser = argparse.ArgumentParser(prog="python -m tasks.rollback", description=__doc__)
    parser.add_argument("--to", help="which generation; default: the one that was in force before")
    arguments = parser.parse_args(argv)
    try:
        target, replaced = _roll_back(arguments.to)
    except TaskFailure as failure:
        print(failure, file=sys.stderr)
        return failure.exit_code
    if target.name == replaced.name:
        print(f"in force already: {target.name}")
    else:
        print(f"in force: {target.name}, in place of {replaced.name}")
    print(f"champion: {RETRIEVER_MODEL} {target.retriever_version}, {RANKER_MODEL} {target.ranker_version or 'none'}")
    return 0


def _roll_back(name: str | None) -> tuple[Generation, Generation]:
    store = publication.store()
    if not store.exists():
        raise BadUsage(f"nothing was published yet: {store.place} does not exist; run `make run` first")
    client = tracking.connect()  # before anything moves: both databases answer, or nothing is done
    target, replaced = store.roll_back(name)
    withdrawn = [one.retriever_version for one in store.generations() if one.verdict == "rolled_back"]
    versions = {RETRIEVER_MODEL: target.retriever_version, RANKER_MODEL: target.ranker_version}
    try:
        registry.enthrone(client, versions, target.verdict, withdrawn)
    except Unavailable as error:
        raise Unavailable(
            f"{target.name} is in force, but the alias champion did not follow: {error}; repeat it with "
            f"TO={target.name} (--to)"
        ) from error
    return target, replaced


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
