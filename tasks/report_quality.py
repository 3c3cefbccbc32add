"""Sections of the morning page: what the lists are worth.  Where the facts of one are missing, the word why."""

from collections.abc import Callable, Mapping, Sequence

from tasks import report_plots as plots
from tasks.nights import Told
from tasks.recsys import baselines, metrics
from tasks.recsys.evaluation import DEPTHS, HEADLINE
from tasks.recsys.metrics import Mean
from tasks.recsys.realised import BASELINES as REALISED
from tasks.report_facts import Facts
from tasks.report_page import Plot, Section, Table, estimate, instant, stacked
from tasks.report_plots import BLUE, GREEN, GREY, ORANGE, PURPLE, Line

POPULATIONS = {
    "": "warm users, everything",
    "views": "views",
    "carts": "carts",
    "transactions": "transactions",
    "unseen": "items new to the user",
    "cold_items": "items with under 5 events",
    "cold_users": "users without a history",
}
"""Part of what people did → its name for a person."""
NOBODY = "nobody came between c2 and as_of"
RANKED = {"before ranking": BLUE, "after ranking": PURPLE, "best order of the candidates": GREEN}
RECALL = f"recall@{HEADLINE}"
INTERVAL = "The line through a dot is its 95 % interval over users."


def _short(facts: Facts) -> Section:
    report, ranker = facts.report, facts.ranker
    rows = [
        (f"{RECALL}, two-tower alone", report.two_tower),
        (f"{RECALL}, all sources blended", report.blend),
        (f"… of the best simple method, {report.baseline}", report.best_baseline),
        ("… blend minus that, paired", report.blend_minus_baseline),
        ("NDCG@10 before ranking", ranker.ndcg_before),
        ("NDCG@10 after ranking", ranker.ndcg_after),
        (f"… of the better simple method, {ranker.baseline}", ranker.ndcg_baseline),
        ("… after minus before, paired", ranker.after_minus_before),
    ]
    means = [(name, Mean(**found.model_dump())) for name, found in rows]
    told = [
        (name, estimate(mean), metrics.verdict(mean) if "minus" in name else "", f"{mean.n:,}") for name, mean in means
    ]
    note = "Measured on what warm users did between c2 and as_of, which no model of this measurement has seen."
    return Section("In short", [Table(("", "value and 95 % interval", "verdict", "users"), told, note)])


def _by_as_of(facts: Facts) -> list[Told]:
    """One night an as_of up to tonight's, the one that was begun last, oldest first."""
    found: dict[int, Told] = {}
    for night in facts.nights:
        if night.as_of is not None and night.as_of <= facts.dataset.as_of:
            found.setdefault(night.as_of, night)
    return [found[as_of] for as_of in sorted(found)]


def _logged(night: Told, name: str) -> Mean:
    """A number of a night with its interval."""
    value, low, high = (night.metrics.get(name + end) for end in ("", ".low", ".high"))
    return Mean(value, low, high, int(night.metrics.get(f"{name}.n", 0)))


def _realised(facts: Facts) -> Section:
    """realised.METRIC of the generations' lists, realised.METHOD.METRIC of a simple method as of the same instant."""
    title, metric = "Realised recall", "recall_at_50"
    nights = [night for night in _by_as_of(facts) if f"realised.{metric}" in night.metrics]
    if not nights:
        return Section(title, missing="no earlier generation has met what people did since; the next night has one")
    names = {
        "the earlier lists": (f"realised.{metric}", BLUE),
        REALISED[-1]: (f"realised.{REALISED[-1]}.{metric}", ORANGE),
        REALISED[0]: (f"realised.{REALISED[0]}.{metric}", GREY),
    }
    x = [night.as_of or 0 for night in nights]
    curves = {
        name: Line(x, [_logged(night, key) for night in nights], colour, main=colour != GREY)
        for name, (key, colour) in names.items()
    }
    keys = (f"realised.{metric}", f"realised.{REALISED[-1]}.{metric}", f"realised.minus_{REALISED[-1]}.{metric}")
    rows = [
        (instant(night.as_of or 0), *(estimate(_logged(night, key)) for key in keys), f"{_logged(night, keys[0]).n:,}")
        for night in nights[::-1]
    ]
    how = (
        "each point is the last earlier generation, scored on what the known visitors did until the night's as_of; the "
        "orange line is what a simple method would have reached for the same visitors, bands are 95 % intervals. Blue "
        "above orange is what the system is worth."
    )
    return Section(
        title,
        [
            Plot(plots.lines(curves, "as_of", f"realised {RECALL}", dated=True), how),
            Table(("until", "the earlier lists", REALISED[-1], "difference, paired", "users"), rows),
        ],
    )


def _before(facts: Facts) -> Section:
    """Tonight's measurement beside the same of the nights before."""
    title, blend = "The nights before", "blend.recall_at_50"
    nights = [night for night in _by_as_of(facts) if blend in night.metrics]
    if len(nights) < 2:
        return Section(title, missing="no earlier night has been measured")
    x = [night.as_of or 0 for night in nights]
    simple = [
        max((_logged(night, f"{name}.recall_at_50") for name in baselines.BASELINES), key=lambda mean: mean.value or 0)
        for night in nights
    ]
    after, before = "after.ndcg_at_10", "before.ndcg_at_10"
    ndcg = {
        "after ranking": Line(x, [_logged(night, after) for night in nights], PURPLE),
        "before ranking": Line(x, [_logged(night, before) for night in nights], GREY, main=False),
    }
    recall = {
        "all sources blended": Line(x, [_logged(night, blend) for night in nights], BLUE),
        "best simple method": Line(x, simple, GREEN, main=False),
    }
    rows = [
        (instant(night.as_of or 0), night.verdict, *(estimate(_logged(night, name)) for name in (blend, after)))
        for night in nights[::-1]
    ]
    how = "one point a night, measured on its own window c2–as_of; bands are 95 % intervals, so only a step out of the "
    how += "band is a change. The grey or green line is what had to be beaten."
    return Section(
        title,
        [
            Plot(plots.lines(recall, "as_of", RECALL, dated=True), how),
            Plot(plots.lines(ndcg, "as_of", "NDCG@10", dated=True), how),
            Table(("as_of", "verdict", f"{RECALL} of the blend", "NDCG@10 after ranking"), rows),
        ],
    )


def _colours(facts: Facts) -> dict[str, str]:
    names = dict.fromkeys(baselines.BASELINES, GREY)
    return {**names, facts.report.baseline: GREEN, "two_tower": ORANGE, "blend": BLUE}


def _mean(facts: Facts, method: str, metric: str) -> Mean:
    found: Mapping[str, float] = facts.recall.get(method, {}).get(metric) or {}
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    return Mean(value, low, high, int(found.get("n", 0)))


def _methods(facts: Facts) -> list[str]:
    """The blend, the two-tower, then the simple methods, the best first."""
    simple = sorted(baselines.BASELINES, key=lambda name: -(_mean(facts, name, "recall_at_50").value or 0))
    return ["blend", "two_tower", *simple]


def _recall(facts: Facts) -> Section:
    title, methods, colours = "Recall, beside every simple method", _methods(facts), _colours(facts)
    if not facts.report.blend.n:
        return Section(title, missing=NOBODY)
    strong = ("blend", "two_tower", facts.report.baseline)
    curves = {
        name: Line(DEPTHS, [_mean(facts, name, f"recall_at_{k}") for k in DEPTHS], colours[name], name in strong)
        for name in strong
    }
    keys = [*(f"recall_at_{k}" for k in DEPTHS), "ndcg_at_10"]
    rows = [(name, *(stacked(_mean(facts, name, key)) for key in keys)) for name in methods]
    forest = {name: {RECALL: _mean(facts, name, "recall_at_50")} for name in methods}
    return Section(
        title,
        [
            Plot(
                plots.lines(curves, "k", "recall@k", ticks=DEPTHS),
                "the higher, the more of what people did was in the first k of the list; bands are 95 % intervals over "
                "users. Green is the best simple method of the same night.",
            ),
            Plot(plots.forest(forest, colours, RECALL), f"further right is better. {INTERVAL}"),
            Table(
                ("", *(f"recall@{k}" for k in DEPTHS), "NDCG@10"),
                rows,
                f"Warm users, repeats allowed, the full catalogue; {facts.report.blend.n:,} users.",
            ),
        ],
    )


def _ranking(facts: Facts) -> Section:
    title = "Before and after ranking"
    if not facts.ranker.ndcg_after.n:
        return Section(title, missing=NOBODY)
    names = dict(zip(("before", "after", "ceiling"), RANKED, strict=True))
    order = [*names, *(name for name in facts.ndcg if name not in names and "minus" not in name)]
    groups = {names.get(name, name): {"NDCG@10": facts.ndcg[name]} for name in order if name in facts.ndcg}
    gains = [
        (name.replace("_", " "), estimate(mean), metrics.verdict(mean), f"{mean.n:,}")
        for name, mean in facts.ndcg.items()
        if "minus" in name
    ]
    return Section(
        title,
        [
            Plot(
                plots.forest(groups, dict.fromkeys(groups, GREY) | RANKED, "NDCG@10"),
                "further right is better; the same candidates in other orders, and simple methods. The best order is "
                f"what a ranker that knew the answers would reach with these candidates. {INTERVAL}",
            ),
            Table(("paired, user by user", "difference", "verdict", "users"), gains),
        ],
    )


def _populations(facts: Facts) -> Section:
    best, colours = facts.report.baseline, _colours(facts)
    popular = "popular_14_days"
    methods = dict.fromkeys(("blend", "two_tower", best, popular))
    groups = {}
    for key, label in POPULATIONS.items():
        metric = f"{key}.recall_at_50" if key else "recall_at_50"
        found = {name: _mean(facts, name, metric) for name in methods if metric in facts.recall.get(name, {})}
        if any(mean.value is not None for mean in found.values()):
            groups[f"{label}\n{max(mean.n for mean in found.values()):,} users"] = found
    rows = [
        (label.replace("\n", ", "), *(stacked(group[name]) if name in group else "" for name in methods))
        for label, group in groups.items()
    ]
    if not groups:
        return Section("By event, for whom", missing=NOBODY)
    how = f"one row a part of what people did, further right is better. {INTERVAL} A wide one means few users."
    return Section(
        "By event, for whom",
        [
            Plot(plots.forest(groups, colours, RECALL), how),
            Table((RECALL, *methods), rows),
        ],
    )


SECTIONS: Sequence[Callable[[Facts], Section]] = (_short, _realised, _before, _recall, _ranking, _populations)
"""In the order of a person's questions."""
