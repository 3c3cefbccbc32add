import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tasks.recsys.candidates import COVISITATION, OWN_HISTORY, POPULAR, SOURCES, TWO_TOWER, Pairs
from tasks.recsys.features import FEATURES, READS, ItemTable, features, item_table, simple_place
from tasks.recsys.interactions import CART, DAY, TRANSACTION, VIEW, Histories, Interactions, histories
from tasks.recsys.statistics import item_statistics
from tests.recsys.made import asked, chance, table, views

CUT = 30 * DAY


def pairs(*rows: tuple[int, int]) -> Pairs:
    """(list, item): the n-th is n-th in the blend, named by co-visitation at n with score n / 10 and by nobody else."""
    row, item = np.array(rows, dtype=np.int32).T
    place = np.arange(1, len(rows) + 1, dtype=np.int16)
    rank = np.zeros((len(rows), len(SOURCES)), dtype=np.int16)
    score = np.zeros((len(rows), len(SOURCES)), dtype=np.float32)
    rank[:, 1], score[:, 1] = place, place / 10
    return Pairs(row, item, place, rank, score)


def shop(known: Interactions, category: list[int], price: list[float]) -> ItemTable:
    properties = {"category": np.array(category, dtype=np.int32), "price": np.array(price, dtype=np.float32)}
    return item_table({**item_statistics(known, CUT), **properties})


def named(values: npt.NDArray[np.float32]) -> list[dict[str, float]]:
    """Rows of features by name."""
    return [dict(zip(FEATURES, row, strict=True)) for row in values.tolist()]


def test_what_the_sources_said() -> None:
    (row,) = named(features(pairs((0, 1)), asked([0]), shop(views((0, 0, 1), (0, 1, 2)), [-1, -1], [1, 1])))
    assert (row["place"], row["covisitation_rank"]) == (1, 1)
    assert row["covisitation_score"] == pytest.approx(0.1)
    absent = ["own_history_rank", "two_tower_rank", "popular_rank", "two_tower_score", "two_tower_gap"]
    assert all(math.isnan(row[name]) for name in absent)


def test_a_score_is_compared_with_the_best_of_its_own_list() -> None:
    found = pairs((0, 0), (0, 1), (1, 0), (1, 1))
    near, tower = SOURCES.index(COVISITATION), SOURCES.index(TWO_TOWER)
    found.rank[:, near] = 1, 2, 0, 1
    found.score[:, near] = 8, 2, 0, 3
    found.rank[:, tower] = 1, 0, 2, 1
    found.score[:, tower] = -1, 0, -5, -2
    rows = named(features(found, asked([0], [0]), shop(views((0, 0, 1), (0, 1, 2)), [-1, -1], [1, 1])))
    assert [row["covisitation_share"] for row in rows] == pytest.approx([1, 1 / 4, math.nan, 1], nan_ok=True)
    assert [row["two_tower_gap"] for row in rows] == pytest.approx([0, math.nan, -3, 0], nan_ok=True)


def test_the_place_among_the_simple_methods_is_that_of_the_first_who_names_the_item() -> None:
    found = pairs((0, 0), (0, 1), (0, 2), (0, 3))
    own, near, tower, popular = (SOURCES.index(one) for one in (OWN_HISTORY, COVISITATION, TWO_TOWER, POPULAR))
    found.rank[:] = 0
    found.rank[0, [own, near]] = 2, 1
    found.rank[1, [near, popular]] = 3, 1
    found.rank[2, popular] = 4
    found.rank[3, tower] = 5
    assert simple_place(found).tolist() == [2, 50 + 3, 50 + 300 + 4, 50 + 300 + 300 + 5]


def test_what_the_history_did_with_the_item_its_category_and_its_price() -> None:
    known = table([(0, 0, VIEW, DAY), (0, 1, VIEW, 2 * DAY), (0, 0, CART, 3 * DAY), (0, 2, VIEW, 4 * DAY)])
    items = shop(known, [5, 5, 6], [10.0, 30.0, math.nan])
    past = histories(known, CUT, 50)
    viewed_twice, once, newest = named(features(pairs((0, 0), (0, 1), (0, 2)), past, items))
    assert [r["own_count"] for r in (viewed_twice, once, newest)] == [2, 1, 1]
    assert [r["own_strongest"] for r in (viewed_twice, once, newest)] == [2, 1, 1]
    assert [r["own_steps"] for r in (viewed_twice, once, newest)] == [1, 2, 0]
    assert [r["category_count"] for r in (viewed_twice, once, newest)] == [3, 3, 1]
    mean = (10 + 30 + 10) / 3
    assert viewed_twice["price_ratio"] == pytest.approx(10 / mean)
    assert once["price_ratio"] == pytest.approx(30 / mean)
    assert math.isnan(newest["price_ratio"]) and math.isnan(newest["price"])
    assert (once["history_length"], once["history_carts"]) == (4, 1 / 4)


def test_an_item_that_the_history_lacks() -> None:
    known = views((0, 0, 1), (1, 1, 2))
    (row,) = named(features(pairs((0, 1)), histories(known, CUT, 50, np.array([0])), shop(known, [5, -1], [1, 1])))
    assert (row["own_count"], row["own_strongest"], row["category_count"]) == (0, 0, 0)
    assert math.isnan(row["own_steps"])


def test_what_is_known_of_the_item() -> None:
    recent = [(user, 0, VIEW, round((30 - age) * DAY)) for user, age in enumerate((1, 2, 8, 13, 20, 25))]
    known = table([*recent, (0, 0, TRANSACTION, 29 * DAY), (7, 1, VIEW, 4 * DAY), (8, 0, VIEW, CUT)])
    row, other = named(features(pairs((0, 0), (0, 1)), asked([0]), shop(known, [-1, -1], [1, 1])))
    assert (row["item_views"], row["item_purchases"], row["item_recent"]) == (6, 1, 5)
    assert row["item_trend"] == pytest.approx((4 * 3 + 20) / (7 + 20))
    assert row["item_conversion"] == pytest.approx((1 + 20 / 7) / (6 + 20))
    assert other["item_conversion"] == pytest.approx((0 + 20 / 7) / (1 + 20))
    assert (row["item_age"], other["item_age"]) == (25, 26)


def slow(pair: Pairs, at: int, known: Interactions, past: Histories, items: ItemTable) -> dict[str, float]:
    """Every feature of one pair by its description, missing ones left out."""
    item, mine = int(pair.item[at]), slice(past.start[pair.row[at]], past.start[pair.row[at] + 1])
    history = list(zip(past.item[mine].tolist(), past.event[mine].tolist(), strict=True))
    rows = list(zip(known.item.tolist(), known.event.tolist(), ((CUT - known.time) / DAY).tolist(), strict=True))
    found = {"place": at + 1, "covisitation_rank": at + 1, "covisitation_score": (at + 1) / 10}
    found["simple_place"] = OWN_HISTORY.depth + at + 1
    found["covisitation_share"] = (at + 1) / (np.flatnonzero(pair.row == pair.row[at])[-1] + 1)
    own = [(step, event) for step, (other, event) in enumerate(reversed(history)) if other == item]
    found |= {"own_count": len(own), "own_strongest": max((event + 1 for _, event in own), default=0)}
    found |= {"own_steps": own[0][0]} if own else {}
    category = items.category[item]
    found["category_count"] = sum(items.category[other] == category >= 0 for other, _ in history)
    prices = [float(items.price[other]) for other, _ in history if not math.isnan(items.price[other])]
    if not math.isnan(items.price[item]):
        found["price"] = float(items.price[item])
        found |= {"price_ratio": found["price"] / (sum(prices) / len(prices))} if prices else {}
    found["history_length"] = len(history)
    found["history_carts"] = sum(event >= CART for _, event in history) / max(len(history), 1)
    ages = [age for other, _, age in rows if other == item]
    views, buys = (sum(o == item and e == event for o, e, _ in rows) for event in (VIEW, TRANSACTION))
    usual = sum(e == TRANSACTION for _, e, _ in rows) / sum(e == VIEW for _, e, _ in rows)
    week, month = (sum(age <= days for age in ages) for days in (7, 28))
    found |= {"item_views": views, "item_purchases": buys, "item_conversion": (buys + 20 * usual) / (views + 20)}
    found |= {"item_recent": sum(age <= 14 for age in ages), "item_age": max(ages)}
    return found | {"item_trend": (4 * week + 20) / (month + 20)}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_feature_equals_the_slow_way(seed: int) -> None:
    known = chance(seed, 300, users=12, items=15, days=40)
    early = known.before(CUT)
    category = [item % 4 - 1 for item in range(early.items)]
    price = [math.nan if item % 5 == 0 else 2.0 * item for item in range(early.items)]
    items, past = shop(known, category, price), histories(known, CUT, 20, np.arange(13))
    asked_of = pairs(*((user, item) for user in range(13) for item in range(early.items)))
    found = named(features(asked_of, past, items))
    for at, row in enumerate(found):
        expected = slow(asked_of, at, early, past, items)
        assert {name for name, value in row.items() if not math.isnan(value)} == set(expected)
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_learning_and_serving_see_the_same_whatever_the_block() -> None:
    known = chance(4, 600)
    items = shop(known, [i % 4 for i in range(known.items)], [float(i) for i in range(known.items)])
    users = np.arange(known.users)
    past = histories(known, CUT, 50, users)
    rows = pairs(*((int(u), i) for u in users for i in range(known.items)))
    whole = features(rows, past, items)
    for user in (0, 3, known.users - 1):
        mine = rows.row == user
        one = rows.where(mine)
        alone = Pairs(np.zeros(mine.sum(), dtype=np.int32), one.item, one.place, one.rank, one.score)
        np.testing.assert_array_equal(features(alone, past.take(np.array([user])), items), whole[mine])


def test_nothing_at_or_after_the_cut_reaches_a_feature() -> None:
    known = chance(5, 600, days=60)
    early = known.before(CUT)
    category, price = [1] * early.items, [2.0] * early.items
    rows = pairs(*((u, i) for u in range(5) for i in range(early.items)))
    tables = [
        features(rows, histories(some, CUT, 50, np.arange(5)), shop(some, category, price)) for some in (known, early)
    ]
    np.testing.assert_array_equal(tables[0], tables[1])


def test_the_readme_has_every_feature_with_its_meaning_unit_and_what_it_reads() -> None:
    rows = {f"| `{name}` | {one.meaning} | {one.unit} | {one.reads} |" for name, one in FEATURES.items()}
    rows |= {f"| {name} | {meaning} |" for name, meaning in READS.items()}
    assert rows <= set((Path(__file__).parents[2] / "README.md").read_text().splitlines())
    assert {one.reads for one in FEATURES.values()} == set(READS)
