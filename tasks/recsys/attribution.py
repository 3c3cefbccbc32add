"""What each source brings to the candidates: recall with it alone, and what nobody but it names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.recsys import metrics
from tasks.recsys.interactions import Ints, Truth
from tasks.recsys.metrics import Bools, Doubles, Mean


@dataclass(frozen=True)
class Brought:
    """Recall of one source's candidates."""

    named: Mean
    """of the relevant items, those that it names"""
    alone: Mean
    """of the relevant items, those that no other source names"""


def ceiling(user: Ints, truth: Truth, resamples: int, seed: int) -> Mean:
    """Recall of the candidates whole, which no order of them can exceed.

    user [found]: position in `truth.user` of the user of each relevant pair that is among the candidates.
    """
    return metrics.estimate(_recall(user, np.ones(len(user), dtype=bool), truth), resamples, seed)


def brought(
    user: Ints, named: Bools, sources: Sequence[str], truth: Truth, resamples: int, seed: int
) -> Mapping[str, Brought]:
    """Source → what it brings; `named` [found, sources] says which of them name a relevant pair, `user` as above."""
    one = named.sum(axis=1) == 1
    return {
        source: Brought(
            *(metrics.estimate(_recall(user, which, truth), resamples, seed) for which in (said, said & one))
        )
        for source, said in zip(sources, named.T, strict=True)
    }


def _recall(user: Ints, which: Bools, truth: Truth) -> Doubles:
    """[users]: the pairs that count over all relevant items."""
    found: Doubles = np.bincount(user[which], minlength=len(truth)) / np.diff(truth.start)
    return found
