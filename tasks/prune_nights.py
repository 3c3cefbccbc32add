"""Removes the files of old nights that nothing needs any more; their metrics stay."""

import logging

from tasks import prune
from tasks.contracts import Pruned, PruneNightsConfig, Publication
from tasks.tracking import TaskRun

log = logging.getLogger(__name__)


def prune_nights(publication: Publication, config: PruneNightsConfig, run: TaskRun) -> Pruned:
    """Tells the plan, carries it out, and keeps what was told; `tasks.prune` has the rules."""
    told: list[str] = []

    def tell(line: str) -> None:
        log.info("%s", line)
        told.append(line)

    nights, freed = prune.prune(
        config.keep_nights, config.keep_generations, carry_out=config.keep_nights > 0, tell=tell
    )
    out = run.work / "pruned"
    out.mkdir()
    (out / "plan.txt").write_text("".join(f"{line}\n" for line in told))
    return Pruned(**run.store(out, publication.as_of), nights=nights, freed=freed)
