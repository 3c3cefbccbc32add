from dataclasses import replace

import pytest

from tasks.recsys.gate import Facts, decide
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
    assert decide(replace(GOOD, published_as_of=None)) == ("first", "nothing was published before")
    verdict, reason = decide(replace(GOOD, published_as_of=None, blend_minus_baseline=WORSE))
    assert verdict == "first"
    assert "would have held: recall@50" in reason


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(GOOD, blend_minus_baseline=WORSE), "recall@50 of the blend"),
        (replace(GOOD, after_minus_before=WORSE), "order is worse"),
        (replace(GOOD, blend_minus_baseline=NOBODY), "n = 0"),
        (replace(GOOD, suspect=("no view",)), "the input is suspect: no view"),
        (replace(GOOD, coverage=0.6), "60.00% of the visitors"),
        (replace(GOOD, distinct_lists=3), "nearly all alike: 3 different ones of 1000"),
        (replace(GOOD, as_of=9), "earlier than 10"),
        (replace(GOOD, backfill=True), "backfill"),
    ],
)
def test_each_objection_holds_the_night(facts: Facts, said: str) -> None:
    verdict, reason = decide(facts)
    assert verdict == "held"
    assert said in reason


def test_what_is_within_noise_of_the_baseline_is_not_held() -> None:
    assert decide(replace(GOOD, blend_minus_baseline=NOISE, after_minus_before=NOISE))[0] == "promoted"
    assert decide(replace(GOOD, as_of=10))[0] == "promoted"
