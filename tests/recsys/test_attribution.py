"""What each source brings, by hand."""

import numpy as np
import pytest

from tasks.recsys import attribution
from tasks.recsys.interactions import Truth

NAMES = ("own_history", "two_tower")


def truth(relevant: list[int]) -> Truth:
    """Users with so many relevant items each."""
    start = np.concatenate([[0], np.cumsum(relevant)]).astype(np.int64)
    users, items = np.arange(len(relevant), dtype=np.int32), np.arange(start[-1], dtype=np.int32)
    return Truth(users, start, items, np.zeros(start[-1], dtype=np.int8))


def test_what_a_source_names_and_what_it_alone_names() -> None:
    """The first user has four relevant items, three of them found; the second has one, and it is found."""
    user = np.array([0, 0, 0, 1], dtype=np.int32)
    named = np.array([[True, False], [True, True], [False, True], [False, True]])
    asked = truth([4, 1])
    assert attribution.ceiling(user, asked, 100, 7).value == pytest.approx((3 / 4 + 1) / 2)
    found = attribution.brought(user, named, NAMES, asked, 100, 7)
    assert found["own_history"].named.value == pytest.approx((2 / 4 + 0) / 2)
    assert found["own_history"].alone.value == pytest.approx((1 / 4 + 0) / 2)
    assert found["two_tower"].named.value == pytest.approx((2 / 4 + 1) / 2)
    assert found["two_tower"].alone.value == pytest.approx((1 / 4 + 1) / 2)
    assert found["two_tower"].named.n == 2


def test_nobody_asked_gives_no_number() -> None:
    nothing, nobody = np.zeros(0, dtype=np.int32), truth([])
    assert attribution.ceiling(nothing, nobody, 100, 7).value is None
    found = attribution.brought(nothing, np.zeros((0, 2), dtype=bool), NAMES, nobody, 100, 7)
    assert {name: one.named.n for name, one in found.items()} == dict.fromkeys(NAMES, 0)
