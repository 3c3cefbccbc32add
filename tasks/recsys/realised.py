"""Realised recall: what the lists of an earlier generation were worth to those who came since.

Nothing is fitted and nothing is chosen here: the lists were written before the window began.  Whoever is asked gets the
list that the shop would have shown, the default list where there was none of their own.
"""

from collections.abc import Iterator, Mapping

from tasks.recsys import baselines, evaluation, metrics
from tasks.recsys.evaluation import Question
from tasks.recsys.interactions import Interactions, Ints
from tasks.recsys.metrics import Doubles, Hits, Mean

DEPTH = 50
"""Length of the lists that are scored; a shorter one ends in -1."""
GENERATION, COLD = "generation", "cold_users"
BASELINES = ("popular_14_days", "own_history", "own_history_then_popular")
"""Simple methods as of the generation's as_of that it is scored beside; it is paired with the last."""
MINUS = f"minus_{BASELINES[-1]}"
METRICS = ("recall_at_10", "recall_at_20", "recall_at_50", "ndcg_at_10")
POPULATIONS = ("", "unseen", "views", "carts", "transactions")

Report = Mapping[str, Mapping[str, Mean]]
"""Method → metric, `views.recall_at_50` of a part of what people did → its mean over users."""


def score(
    interactions: Interactions, asked: Question, cut: int, shown: Ints, cold: Ints, resamples: int, seed: int
) -> Report:
    """Every method's metrics on what people did after the cut, the generation's as_of.

    shown: [users of asked.truth, DEPTH], the generation's lists; cold: [DEPTH], what somebody unknown was shown.
    """
    report: dict[str, dict[str, Mean]] = {}
    overall: dict[str, dict[str, Doubles]] = {}
    for name, lists in _lists(interactions, asked, cut, shown):
        parts = _parts(metrics.hits(lists, asked.truth), asked)
        overall[name] = parts[""]
        report[name] = {
            f"{part}.{metric}" if part else metric: metrics.estimate(values, resamples, seed)
            for part, found in parts.items()
            for metric, values in found.items()
        }
    hit = metrics.hits(cold[None].repeat(len(asked.cold), axis=0), asked.cold)
    strangers = evaluation.per_user(hit, asked.cold)
    report[COLD] = {name: metrics.estimate(strangers[name], resamples, seed) for name in METRICS}
    best = overall[BASELINES[-1]]
    report[MINUS] = {
        name: metrics.paired(values, best[name], resamples, seed) for name, values in overall[GENERATION].items()
    }
    return report


def _lists(interactions: Interactions, asked: Question, cut: int, shown: Ints) -> Iterator[tuple[str, Ints]]:
    yield GENERATION, shown
    for name in BASELINES:
        yield name, baselines.BASELINES[name](interactions, asked.asked, cut, DEPTH)


def _parts(hit: Hits, asked: Question) -> dict[str, dict[str, Doubles]]:
    """Population → metric → one value a user who has something in it [users of the population]."""
    populations = evaluation.populations(asked)
    found = {name: evaluation.of_population(hit, asked.truth, populations[name]) for name in POPULATIONS}
    return {name: {metric: values[metric] for metric in METRICS} for name, values in found.items()}
