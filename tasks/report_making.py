"""Sections of the morning page: how the night was made.  Where the facts of one are missing, the word why."""

from collections.abc import Callable, Mapping, Sequence

from tasks import report_plots as plots
from tasks.contracts import TASKS
from tasks.nights import Spent
from tasks.recsys import baselines
from tasks.recsys.evaluation import HEADLINE, LOSSES
from tasks.recsys.interactions import EVENTS
from tasks.report_facts import Facts, Row
from tasks.report_page import Folded, Part, Plot, Section, Table, estimate, number
from tasks.report_plots import BLUE, COLOURS, GREEN, GREY, ORANGE, PURPLE, Line, plain

LOST = (GREY, PURPLE, ORANGE, BLUE, GREEN)
"""Colours of `LOSSES`; what was found is green."""
BESIDE = 7
"""Earlier nights whose durations stand beside tonight's."""


def _candidates(facts: Facts) -> Section:
    title = "Candidates: the ceiling, and who brings it"
    ceiling = facts.ceiling.value
    if ceiling is None:
        return Section(title, missing="nobody to ask between c2 and as_of")
    found = facts.brought
    panels = {
        "recall of its candidates": {name: one.named.value for name, one in found.items()},
        "recall that it alone brings": {name: one.alone.value for name, one in found.items()},
    }
    rows = [(name, estimate(one.named), estimate(one.alone)) for name, one in found.items()]
    how = (
        f"the dashed line is the recall of all candidates together, {number(ceiling)}: no ranker can find more. Left "
        "is what a source names of it; right what would be lost without the source."
    )
    return Section(
        title,
        [
            Plot(plots.bars(panels, ceiling), how),
            Table(
                ("source", "names", "alone names"),
                [("together", estimate(facts.ceiling), ""), *rows],
                f"Available items, users averaged: {facts.ceiling.n:,}.",
            ),
        ],
    )


def _losses(facts: Facts) -> Section:
    title, found = "Where recall is lost", facts.recall.get("losses_of_blend", {})
    if not found.get("n"):
        return Section(title, missing="nobody came between c2 and as_of")
    shares = {name.replace("_", " "): float(found[name]) for name in LOSSES}
    how = (
        f"all {found['n']:,} (user, item) pairs of the window, those of users without a history included, by the first "
        "thing that kept the item out of the list; the last part was found."
    )
    return Section(title, [Plot(plots.stack(shares, LOST, "share of relevant pairs"), how)])


def _learning(facts: Facts) -> Section:
    """The curves of the two-tower by epoch, the ranker's by tree."""
    curves = {name: values for name, values in facts.curves.items() if values}
    if not curves:
        return Section("Learning curves", missing="nothing was learned in steps")
    parts: list[Part] = []
    for title, unit, how in CURVES:
        found = {name: values for name, values in curves.items() if name.startswith(title)}
        if found:
            shown = {
                name.removeprefix(f"{title}, "): Line(range(1, len(values) + 1), plain(values), colour)
                for colour, (name, values) in zip(COLOURS, found.items(), strict=False)
            }
            parts.append(Plot(plots.lines(shown, unit, title, zero=False), how))
    return Section("Learning curves", parts)


LOSS, JUDGED, BOOSTED = "two-tower loss", "two-tower validation recall@50", "ranker, LightGBM's own NDCG@10"
CURVES = (
    (
        LOSS,
        "epoch",
        "one line a fit; it should fall, and flatten. The three are fitted by one recipe on ever more data.",
    ),
    (JUDGED, "epoch", "of the fit before c1 on c1–c2, by which the number of epochs is chosen: the best epoch wins."),
    (
        BOOSTED,
        "tree",
        "on the last learning window; boosting stops where it rises no more. Its height is no figure of quality.",
    ),
)
"""First words of a curve's name, what its steps are, how to read it."""


def _features(facts: Facts) -> Section:
    title = "What the ranker looks at"
    if not facts.features:
        return Section(title, missing="there was too little to learn from, the order of the candidates was kept")
    features = sorted(facts.features, key=lambda feature: -feature["contribution"])
    panels = {
        "mean |SHAP value|": {feature["name"]: feature["contribution"] for feature in features},
        "gain": {feature["name"]: feature["gain"] for feature in features},
    }
    how = (
        "left, how far a feature moves a score up or down on average; right, what the splits on it gained in learning. "
        "Both say what is used, not what is a cause."
    )
    rows = [
        (feature["name"], f"{feature['contribution']:.4f}", f"{feature['gain']:,.0f}", feature["meaning"])
        for feature in features
    ]
    table = Table(("feature", "mean |SHAP|", "gain", "meaning"), rows, text=True)
    return Section(title, [Plot(plots.bars(panels), how), Folded("The features in words", [table])])


def _data(facts: Facts) -> Section:
    dataset = facts.dataset
    counts = {"events": dataset.events, "users": dataset.users, "items": dataset.items}
    counts |= {"duplicates removed": dataset.duplicates, "rows rejected": dataset.rejected}
    odd = [f"Suspect: {said}." for said in dataset.suspect] or ["Nothing about the input is suspect."]
    parts: list[Part] = [*odd, Table(tuple(counts), [[f"{count:,}" for count in counts.values()]])]
    if len(facts.daily):
        how = "each bar is 24 hours, the last ends at as_of. "
        how += (
            "With the top of the last bar outside of the shaded band the night is suspect, and the gate holds it."
            if facts.band
            else "There are too few days before it to say what is usual."
        )
        parts.append(Plot(plots.days(facts.daily, facts.band, dataset.as_of), how))
        newest = ", ".join(f"{count:,} {name}" for name, count in zip(EVENTS, facts.daily[0].tolist(), strict=True))
        expected = f"; between {facts.band[0]:,.0f} and {facts.band[1]:,.0f} events are usual" if facts.band else ""
        parts.append(f"The last 24 hours: {newest}{expected}.")
    return Section("The data", parts)


def _spread(facts: Facts) -> Section:
    """Coverage of the catalogue, and popularity bias."""
    coverage, bias = f"coverage_at_{HEADLINE}", f"popularity_bias_at_{HEADLINE}"
    methods = [name for name in ("blend", "two_tower", *baselines.BASELINES) if coverage in facts.recall.get(name, {})]
    if not methods:
        return Section("Coverage and popularity", missing="no list was measured")
    panels = {
        f"coverage of the catalogue, top {HEADLINE}": {name: facts.recall[name][coverage] for name in methods},
        "popularity bias": {name: facts.recall[name][bias] for name in methods},
    }
    rows = [(name, *(number(panel[name]) for panel in panels.values())) for name in methods]
    how = (
        "left, the share of all items that is in anybody's list; right, above 1 the lists push what is popular anyway "
        "further than people do by themselves, below 1 they lean to the long tail."
    )
    return Section(
        "Coverage and popularity",
        [Plot(plots.bars(panels), how), Table(("", "coverage", "popularity bias"), rows)],
    )


def _spent(facts: Facts) -> Section:
    tonight, *others = (night.spent for night in facts.nights)
    order = list(TASKS)
    names = sorted(tonight, key=lambda name: (order.index(name.partition("[")[0]), name))
    seconds = _beside(names, [tonight, *others[:BESIDE]], lambda spent: spent.seconds)
    memory = _beside(names, [tonight, *others[:BESIDE]], lambda spent: (spent.peak_memory or 0) / 1e9)
    rows = [(name, f"{seconds[name][0]:,.1f}", f"{memory[name][0]:.2f}") for name in names]
    rows.append(("together", f"{sum(spent.seconds for spent in tonight.values()):,.1f}", ""))
    how = f"a bar is tonight, a ring one of {BESIDE} other nights at most. A bar far beyond its rings wants a look."
    return Section(
        "Time and memory",
        [
            Plot(plots.beside({"seconds": seconds, "peak memory, GB": memory}), how),
            Table(
                ("task", "seconds", "peak memory, GB"),
                rows,
                "This page is made by write_report, whose own cost is in the next one.",
            ),
        ],
    )


def _beside(
    names: Sequence[str], nights: Sequence[Mapping[str, Spent]], of: Callable[[Spent], float]
) -> dict[str, list[float]]:
    """Task → tonight's number, then those of the other nights that have one."""
    return {name: [of(night[name]) for night in nights if name in night] for name in names}


def _visitors(facts: Facts) -> Section:
    if not facts.visitors:
        return Section("Some visitors", missing="there is no visitor with a history")
    parts: list[Part] = [
        "From the shortest history to the longest. Does the list look as if it were for the one who did this?"
    ]
    for one in facts.visitors:
        history = Table(("did", "category", "event, UTC"), _rows(one.history), text=True)
        shown = Table(("gets", "category", ""), _rows(one.shown), text=True)
        parts.append(Folded(f"Visitor {one.visitor}: {one.length:,} interactions", [history, shown]))
    return Section("Some visitors", parts)


def _rows(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    return [(str(row.item), str(row.category) if row.category >= 0 else "unknown", row.about) for row in rows]


SECTIONS: Sequence[Callable[[Facts], Section]] = (
    *(_candidates, _losses, _learning, _features, _data, _spread, _spent, _visitors),
)
"""From the candidates to the lists."""
