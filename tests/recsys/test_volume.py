import numpy as np
import pytest

from tasks.recsys.interactions import DAY, Interactions
from tasks.recsys.volume import DAYS, band, by_day, suspicions

USUAL = [100, 10, 6]


def days(newest: list[int], before: int = DAYS) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The newest day, then days of 90 to 110 % of the usual counts."""
    rng = np.random.default_rng(2)
    return np.array([newest, *(np.round(np.array(USUAL) * rng.uniform(0.9, 1.1)) for _ in range(before))], "i8")


@pytest.mark.parametrize("newest", [USUAL, [60, 10, 6], [190, 20, 6]])
def test_a_usual_day_is_not_suspect(newest: list[int]) -> None:
    assert suspicions(days(newest), 2.0) == []


@pytest.mark.parametrize("newest", [[9, 1, 1], [300, 10, 6]])
def test_a_day_outside_the_band_is_suspect(newest: list[int]) -> None:
    (said,) = suspicions(days(newest), 2.0)
    assert said.startswith(f"{sum(newest)} events in the last 24 hours, expected")
    assert suspicions(days(newest), 20.0) == []


def test_an_event_type_that_has_vanished_is_named() -> None:
    assert suspicions(days([100, 0, 6]), 2.0) == [
        "no addtocart in the last 24 hours, at least 9 on nearly every day before"
    ]


def test_a_rare_type_may_be_absent() -> None:
    rare = days([100, 10, 0])
    rare[1:, 2] = np.arange(DAYS) % 5
    assert suspicions(rare, 2.0) == []


def test_one_outage_among_the_days_before_does_not_widen_the_band() -> None:
    broken = days([9, 1, 1])
    broken[3] = 0
    assert len(suspicions(broken, 2.0)) == 1


@pytest.mark.parametrize("before", [0, 6])
def test_with_few_days_nothing_is_said(before: int) -> None:
    assert suspicions(days([0, 0, 0], before), 2.0) == []
    assert suspicions(days([0, 0, 0])[:0], 2.0) == []
    assert band(days(USUAL, before), 2.0) is None


def test_the_band_is_what_a_day_must_leave_to_be_suspect() -> None:
    usual = days(USUAL)
    low, high = band(usual, 2.0) or (0, 0)
    for total, suspect in ((low + 1, False), (low - 1, True), (high - 1, False), (high + 1, True)):
        usual[0] = [round(total), 0, 0]
        assert any("events in the last 24 hours" in said for said in suspicions(usual, 2.0)) is suspect


def test_days_are_counted_backwards_from_the_instant_and_whole() -> None:
    time = np.array([5, DAY - 1, DAY, 2 * DAY + 1, 3 * DAY - 1], dtype=np.int64) + 7
    ids = np.zeros(len(time), dtype=np.int32)
    events = Interactions(ids, ids, np.array([0, 0, 2, 1, 0], dtype=np.int8), time)
    assert by_day(events, 3 * DAY + 7).tolist() == [[1, 1, 0], [0, 0, 1]]
    assert by_day(events.before(0), 3 * DAY).shape == (0, 3)
