"""The gate: whether tonight's models may take over, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from tasks.recsys import metrics
from tasks.recsys.metrics import Mean

Verdict = Literal["promoted", "held", "first", "forced"]
Publish = Literal["as_usual", "always", "never"]


@dataclass(frozen=True)
class Record:
    """What a champion reached when it took over."""

    name: str
    """its version, for a person"""
    as_of: int
    """UTC ms"""
    forced: bool
    """a person let it pass: what came before it is no measure any more"""
    figures: dict[str, Mean]
    """figure → its value then"""


@dataclass(frozen=True)
class Facts:
    """What the gate looks at."""

    as_of: int
    """of tonight's generation, UTC ms"""
    published_as_of: int | None
    """of the generation in force, UTC ms; None when there is none"""
    backfill: bool
    """a run of a past day, which publishes nothing unless asked"""
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
    empty_lists: int = 0
    figures: dict[str, Mean] = field(default_factory=dict)
    """figure → tonight's value, of those that champions have a record of"""
    champions: Sequence[Record] = ()
    """the last ones, in any order"""
    max_drop: float = 0.05
    """share of a champion's figure that may be lost"""
    publish: Publish = "as_usual"
    force_reason: str = ""
    """why a person wants tonight's generation whatever the gate says; empty: nobody does"""
    rolled_back: bool = False
    """a person has taken this very generation out of force"""


def decide(facts: Facts) -> tuple[Verdict, str]:
    """The verdict and its reason, with the numbers.

    Whether to publish at all is no question of quality: `publish` = never, a backfill that nobody asked to publish, and
    an as_of before the one in force hold the night, forced or not.  Else the first publication is made whatever
    the gate says, and so is one that a person forces.
    """
    if barred := [text for text in (_not_asked(facts), _too_old(facts)) if text]:
        return "held", _join(barred)
    objections = [text for text in (_rolled_back(facts), *_suspect(facts), *_lists(facts), *_quality(facts)) if text]
    would = f"; the gate would have held: {_join(objections)}" * bool(objections)
    if facts.published_as_of is None:
        return "first", f"nothing was published before; {_order(facts)}" + would
    if facts.force_reason:
        return "forced", f"{facts.force_reason}; {_order(facts)}" + would
    return ("held", _join(objections)) if objections else ("promoted", _join([_blend(facts), _order(facts)]))


def ranker_serves(after_minus_before: Mean) -> bool:
    """Whether the lists are in the ranker's order, given the paired NDCG@10 of that minus the order it was given.

    A ranker that is not shown to beat the order it was given steps aside: the lists keep that order, which is the one
    that the rest of the gate judges.
    """
    return metrics.verdict(after_minus_before) == "better"


def _order(facts: Facts) -> str:
    gain = f"NDCG@10 minus that of the order before: {told(facts.after_minus_before)}"
    if ranker_serves(facts.after_minus_before):
        return f"ranker's {gain}"
    return f"the ranker steps aside, not shown to beat the order it was given: {gain}"


def _not_asked(facts: Facts) -> str:
    if facts.publish == "never":
        return "publish = never"
    if facts.backfill and facts.publish != "always":
        return "a backfill publishes nothing unless publish = always"
    return ""


def _too_old(facts: Facts) -> str:
    if facts.published_as_of is not None and facts.as_of < facts.published_as_of:
        return f"as_of {_told(facts.as_of)} is earlier than {_told(facts.published_as_of)}, which is in force"
    return ""


def _told(instant: int) -> str:
    return f"{datetime.fromtimestamp(instant / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _rolled_back(facts: Facts) -> str:
    return "this generation was rolled back; force_reason, or a rollback to it, puts it back" * facts.rolled_back


def _suspect(facts: Facts) -> list[str]:
    return [f"the input is suspect: {reason}" for reason in facts.suspect]


def _lists(facts: Facts) -> list[str]:
    objections = []
    if facts.coverage < facts.min_coverage:
        objections.append(
            f"only {facts.coverage:.2%} of the visitors have a full list, expected {facts.min_coverage:.2%}"
        )
    if facts.empty_lists:
        objections.append(f"{facts.empty_lists} of {facts.lists} lists are empty")
    if facts.lists > 1 and facts.distinct_lists < max(2.0, 0.01 * facts.lists):
        objections.append(f"the lists are nearly all alike: {facts.distinct_lists} different ones of {facts.lists}")
    return objections


def _quality(facts: Facts) -> list[str]:
    """Held unless tonight's retrieval is shown to be better: the interval of the paired difference lies above 0."""
    objections = []
    gain = facts.blend_minus_baseline
    if gain.low is None:
        objections.append(f"too few warm users did anything in the window: recall@50 has no interval (n = {gain.n})")
    elif gain.low <= 0:
        objections.append(f"not shown to beat the simple methods: {_blend(facts)}")
    return objections + _drops(facts)


def _drops(facts: Facts) -> list[str]:
    """Figures that fell too far below the best of the last champions'.

    A night is held when the upper end of its interval lies below (1 − `max_drop`) times the lower end of the best
    champion's, the one whose lower end is highest.  Both ends, because the two were measured on windows of their
    own, and because the best of many is partly luck.  The best of many and not the last, because each night may lose a
    little within noise of the night before: small losses add up until they show.  A champion that a person forced
    is a new start; those before it do not count.
    """
    champions = sorted(facts.champions, key=lambda one: one.as_of)
    start = max((number for number, one in enumerate(champions) if one.forced), default=0)
    objections = []
    for name, tonight in facts.figures.items():
        reached = [(found.low, one) for one in champions[start:] if (found := one.figures.get(name)) and found.low]
        low, best = max(reached, key=lambda pair: pair[0] or 0.0, default=(None, None))
        if low is None or best is None or tonight.high is None or tonight.high >= (1 - facts.max_drop) * low:
            continue
        objections.append(
            f"{name} {_value(tonight)} is more than {facts.max_drop:.0%} below {_value(best.figures[name])} of "
            f"champion {best.name}; if the shop has changed and this is its new level, force_reason accepts it"
        )
    return objections


def _blend(facts: Facts) -> str:
    return f"recall@50 of the blend minus {facts.baseline}: {told(facts.blend_minus_baseline)}"


def told(mean: Mean) -> str:
    """A difference for a person."""
    if mean.value is None or mean.low is None:
        return f"no interval, n = {mean.n}"
    return f"{mean.value:+.4f} [{mean.low:+.4f}, {mean.high:+.4f}], n = {mean.n}"


def _value(mean: Mean) -> str:
    return f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}], n = {mean.n}"


def _join(texts: list[str]) -> str:
    return "; ".join(texts)
