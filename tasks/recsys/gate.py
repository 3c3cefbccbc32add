"""The gate: whether tonight's models may take over, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.recsys.metrics import Mean

Verdict = Literal["promoted", "held", "first"]


@dataclass(frozen=True)
class Facts:
    """What the gate looks at."""

    as_of: int
    """of tonight's generation, UTC ms"""
    published_as_of: int | None
    """of the generation in force, UTC ms; None when there is none"""
    backfill: bool
    """a run of a past day, which publishes nothing by itself"""
    baseline: str
    """name of the best simple baseline of the split"""
    suspect: Sequence[str]
    """what is odd about the night's input, in words"""
    blend_minus_baseline: Mean
    """recall@50, paired by user"""
    after_minus_before: Mean
    """NDCG@10 of the ranker's order minus that of the order it was given, paired by user"""
    coverage: float
    """share of the known visitors whose list is full"""
    min_coverage: float
    distinct_lists: int
    lists: int


def decide(facts: Facts) -> tuple[Verdict, str]:
    """The verdict and its reason, with the numbers.

    The first publication is made whatever the gate says: an old list beats none, but none is older than nothing.
    """
    objections = [text for text in (_too_old(facts), *_suspect(facts), *_lists(facts), *_quality(facts)) if text]
    if facts.published_as_of is None:
        return "first", "nothing was published before" + (
            f"; the gate would have held: {_join(objections)}" * bool(objections)
        )
    if objections:
        return "held", _join(objections)
    return "promoted", _join(
        [_blend(facts), f"ranker's NDCG@10 minus the order before: {_told(facts.after_minus_before)}"]
    )


def _too_old(facts: Facts) -> str:
    if facts.backfill:
        return "a backfill publishes nothing by itself"
    if facts.published_as_of is not None and facts.as_of < facts.published_as_of:
        return f"as_of {facts.as_of} is earlier than {facts.published_as_of}, which is in force"
    return ""


def _suspect(facts: Facts) -> list[str]:
    return [f"the input is suspect: {reason}" for reason in facts.suspect]


def _lists(facts: Facts) -> list[str]:
    objections = []
    if facts.coverage < facts.min_coverage:
        objections.append(
            f"only {facts.coverage:.2%} of the visitors have a full list, expected {facts.min_coverage:.2%}"
        )
    if facts.lists > 100 and facts.distinct_lists < 0.01 * facts.lists:
        objections.append(f"the lists are nearly all alike: {facts.distinct_lists} different ones of {facts.lists}")
    return objections


def _quality(facts: Facts) -> list[str]:
    """Held only when tonight's order is shown to be worse: the interval of the paired difference lies below 0."""
    objections = []
    gain, order = facts.blend_minus_baseline, facts.after_minus_before
    if gain.high is None:
        objections.append(f"too few warm users did anything in the window: recall@50 has no interval (n = {gain.n})")
    elif gain.high < 0:
        objections.append(_blend(facts))
    if order.high is not None and order.high < 0:
        objections.append(f"the ranker's order is worse than the order it was given: NDCG@10 {_told(order)}")
    return objections


def _blend(facts: Facts) -> str:
    return f"recall@50 of the blend minus {facts.baseline}: {_told(facts.blend_minus_baseline)}"


def _told(mean: Mean) -> str:
    if mean.value is None or mean.low is None:
        return f"no interval, n = {mean.n}"
    return f"{mean.value:+.4f} [{mean.low:+.4f}, {mean.high:+.4f}], n = {mean.n}"


def _join(texts: list[str]) -> str:
    return "; ".join(texts)
