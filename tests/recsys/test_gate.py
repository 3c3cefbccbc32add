from dataclasses import replace
from typing import Any

import pytest

from tasks.recsys.gate import Facts, Record, decide, ranker_serves
from tasks.recsys.metrics import Mean

BETTER, NOISE, WORSE = Mean(0.02, 0.01, 0.03, 400), Mean(0.0, -0.01, 0.01, 400), Mean(-0.02, -0.03, -0.01, 400)
NOBODY = Mean(None, None, None, 0)

GOOD = Facts(
    as_of=20,
    published_as_of=10,
    backfill=False,
    baseline="popular_7_days",
    suspect=(),
    blend_minus_baseline=BETTER,
    after_minus_before=BETTER,
    coverage=1.0,
    min_coverage=0.99,
    distinct_lists=900,
    lists=1_000,
)


def test_a_better_night_is_promoted_with_its_numbers() -> None:
    verdict, reason = decide(GOOD)
    assert verdict == "promoted"
    assert "popular_7_days: +0.0200 [+0.0100, +0.0300], n = 400" in reason


def test_the_first_is_published_whatever_the_gate_says() -> None:
    verdict, reason = decide(replace(GOOD, published_as_of=None))
    assert verdict == "first"
    assert reason.startswith("nothing was published before; ranker's NDCG@10")
    assert "would have held" not in reason
    verdict, reason = decide(replace(GOOD, published_as_of=None, blend_minus_baseline=WORSE))
    assert verdict == "first"
    assert "would have held: not shown to beat" in reason


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(GOOD, blend_minus_baseline=WORSE), "not shown to beat the simple methods: recall@50 of the blend"),
        (replace(GOOD, blend_minus_baseline=NOISE), "+0.0000 [-0.0100, +0.0100], n = 400"),
        (replace(GOOD, blend_minus_baseline=NOBODY), "n = 0"),
        (replace(GOOD, suspect=("no view",)), "the input is suspect: no view"),
        (replace(GOOD, coverage=0.6), "60.00% of the visitors"),
        (replace(GOOD, distinct_lists=3), "nearly all alike: 3 different ones of 1000"),
        (replace(GOOD, distinct_lists=1, lists=3), "nearly all alike: 1 different ones of 3"),
        (replace(GOOD, empty_lists=2), "2 of 1000 lists are empty"),
        (replace(GOOD, rolled_back=True), "rolled back"),
    ],
)
def test_each_objection_holds_the_night(facts: Facts, said: str) -> None:
    verdict, reason = decide(facts)
    assert verdict == "held"
    assert said in reason


@pytest.mark.parametrize("objection", [{}, {"force_reason": "new shop"}, {"published_as_of": None}])
@pytest.mark.parametrize(
    ("asked", "said"),
    [({"backfill": True}, "publishes nothing unless"), ({"publish": "never"}, "publish = never")],
)
def test_what_nobody_asked_to_publish_is_held_forced_or_first(
    objection: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    verdict, reason = decide(replace(GOOD, **objection, **asked))
    assert verdict == "held"
    assert said in reason


def test_a_backfill_publishes_when_it_is_asked_to() -> None:
    assert decide(replace(GOOD, backfill=True, publish="always"))[0] == "promoted"


def test_a_forced_night_keeps_its_reason_and_what_the_gate_had_said() -> None:
    verdict, reason = decide(replace(GOOD, force_reason="a new catalogue", coverage=0.5))
    assert verdict == "forced"
    assert reason.startswith("a new catalogue; ranker's NDCG@10")
    assert "; the gate would have held: only 50.00%" in reason


@pytest.mark.parametrize("asked", [{}, {"force_reason": "please"}, {"publish": "always", "backfill": True}])
def test_nothing_goes_back_in_time(asked: dict[str, Any]) -> None:
    verdict, reason = decide(replace(GOOD, as_of=9_000, published_as_of=10_000, **asked))
    assert verdict == "held"
    assert reason == "as_of 1970-01-01 00:00:09 is earlier than 1970-01-01 00:00:10, which is in force"


RECALL = "recall@50 of the blend"


def champion(number: int, low: float, *, forced: bool = False) -> Record:
    return Record(f"version {number}", number, forced, {RECALL: Mean(low + 0.02, low, low + 0.04, 400)})


def against(high: float, *champions: Record) -> tuple[str, str]:
    """Tonight's interval ends at `high`; a twentieth may be lost."""
    return decide(
        replace(GOOD, figures={RECALL: Mean(high - 0.02, high - 0.04, high, 400)}, champions=champions, max_drop=0.05)
    )


def test_a_figure_that_fell_below_the_tolerance_is_held_with_both_numbers() -> None:
    assert against(0.381, champion(1, 0.4))[0] == "promoted"
    verdict, reason = against(0.379, champion(1, 0.4))
    assert verdict == "held"
    assert "0.3590 [0.3390, 0.3790], n = 400 is more than 5% below 0.4200 [0.4000, 0.4400]" in reason
    assert "champion version 1" in reason and "force_reason" in reason


def test_it_is_the_best_champion_that_counts_not_the_last() -> None:
    assert against(0.36, champion(3, 0.36), champion(2, 0.38), champion(1, 0.4))[0] == "held"
    assert against(0.36, champion(3, 0.36), champion(2, 0.37))[0] == "promoted"


def test_a_forced_champion_is_a_new_start() -> None:
    champions = champion(1, 0.5), champion(2, 0.3, forced=True), champion(3, 0.31)
    assert against(0.30, *champions)[0] == "promoted"
    assert against(0.29, *champions)[0] == "held"


def test_a_champion_without_a_figure_is_no_measure() -> None:
    unknown = Record("version 1", 1, False, {RECALL: NOBODY})
    assert against(0.01, unknown, Record("version 2", 2, False, {}))[0] == "promoted"


@pytest.mark.parametrize("gain", [WORSE, NOISE, NOBODY, Mean(0.0, 0.0, 0.0, 400), Mean(0.1, None, None, 1)])
def test_a_ranker_that_is_not_shown_to_beat_the_order_it_was_given_steps_aside(gain: Mean) -> None:
    assert not ranker_serves(gain)
    verdict, reason = decide(replace(GOOD, after_minus_before=gain))
    assert verdict == "promoted"
    assert "the ranker steps aside, not shown to beat the order it was given: NDCG@10" in reason


def test_a_ranker_that_is_shown_to_be_better_serves() -> None:
    assert ranker_serves(BETTER)
    assert "ranker's NDCG@10 minus that of the order before: +0.0200 [+0.0100, +0.0300]" in decide(GOOD)[1]


def test_the_same_day_may_be_published_again() -> None:
    assert decide(replace(GOOD, as_of=10))[0] == "promoted"
