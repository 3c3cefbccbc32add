import math

import numpy as np
import pytest

from tasks.recsys.interactions import CART, DAY, TRANSACTION, VIEW
from tasks.recsys.statistics import freshness, item_statistics, user_statistics
from tests.recsys.made import chance, table

CUT = 40 * DAY
KNOWN = table(
    [
        (0, 0, VIEW, 5 * DAY),
        (0, 1, VIEW, 20 * DAY),
        (1, 0, VIEW, 27 * DAY),
        (1, 0, CART, 30 * DAY),
        (1, 0, TRANSACTION, 34 * DAY),
        (0, 0, VIEW, 39 * DAY),
        (2, 2, VIEW, CUT),
    ]
)


def test_items_are_counted_by_event_type_and_horizon() -> None:
    found = item_statistics(KNOWN, CUT)
    assert found["item"].tolist() == [0, 1]
    assert [found[f"views_{h}"].tolist() for h in ("1d", "7d", "14d", "28d", "all")] == [
        [1, 0],
        [1, 0],
        [2, 0],
        [2, 1],
        [3, 1],
    ]
    assert [found[f"carts_{h}"].tolist() for h in ("7d", "14d")] == [[0, 0], [1, 0]]
    assert [found[f"transactions_{h}"].tolist() for h in ("1d", "7d")] == [[0, 0], [1, 0]]
    assert found["age_days"].tolist() == [35, 20]
    assert found["conversion"].tolist() == pytest.approx([(1 + 20 * 1 / 4) / (3 + 20), (0 + 20 * 1 / 4) / (1 + 20)])


def test_users_are_counted_with_their_first_and_last_instant() -> None:
    found = user_statistics(KNOWN, CUT)
    assert {name: values.tolist() for name, values in found.items()} == {
        "user": [0, 1],
        "views": [3, 1],
        "carts": [0, 1],
        "transactions": [0, 1],
        "items": [2, 1],
        "first": [5 * DAY, 27 * DAY],
        "last": [39 * DAY, 34 * DAY],
    }


@pytest.mark.parametrize("statistics", [item_statistics, user_statistics])
def test_what_comes_at_or_after_the_cut_changes_nothing(statistics: object) -> None:
    known = chance(4, 300)
    whole, early = (statistics(rows, 80 * DAY) for rows in (known, known.before(80 * DAY)))  # type: ignore[operator]
    for name, values in whole.items():
        np.testing.assert_array_equal(values, early[name])


def test_an_item_is_as_fresh_as_its_interactions_are_new() -> None:
    """Item 0 was met today and 28 and 56 days ago, item 1 once, 28 days ago."""
    known = table([(0, 0, VIEW, 4 * DAY), (0, 1, VIEW, 32 * DAY), (1, 0, CART, 32 * DAY), (0, 0, VIEW, 60 * DAY)])
    found = freshness(known, 60 * DAY + 1)
    assert found.tolist() == pytest.approx([math.log((1 + 0.5 + 0.25 + 0.3) / 3.6), math.log(0.8 / 1.6)], abs=1e-6)
    assert freshness(known, 60 * DAY)[0] == pytest.approx(math.log((0.5 + 0.25 + 0.3) / 2.6), abs=1e-6)
