"""The gate over many simulated nights: planted challengers, false promotions and false holds counted; slow decay."""

import pytest

from benchmarks import gate

pytestmark = pytest.mark.learn


@pytest.mark.parametrize(
    ("challenger", "low", "high"),
    [
        ("worse, by 20 %", 0, 2),
        ("as the best simple method", 0, 15),
        ("equal", 180, 200),
        ("better, by 5 %", 196, 200),
    ],
)
def test_false_promotions_and_false_holds_are_few(challenger: str, low: int, high: int) -> None:
    assert low <= gate.simulate(challenger, 300, 200, seed=7).promoted <= high


def test_a_slow_decay_is_caught_by_the_best_champion_and_not_by_the_last() -> None:
    held = gate.decay(2_000, 60, seed=7)
    assert held is not None and 4 <= held <= 30
    assert gate.decay(2_000, 60, seed=7, best=False) is None
