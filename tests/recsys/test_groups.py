"""Who the ranker learns from and is judged on."""

import itertools
from collections.abc import Iterator

import numpy as np

from tasks.recsys import groups
from tasks.recsys.groups import judges, learners
from tasks.recsys.interactions import CART, VIEW, Histories, Interactions, Truth, histories
from tests.recsys.made import Row, chance, table

CUT, END = 100, 200
ROWS: list[Row] = [
    # user 0 comes back once: the last interaction has nothing before it in the window
    (0, 0, VIEW, 10),
    (0, 1, VIEW, 20),
    (0, 1, CART, 110),
    # user 1 comes back twice, the first time to an item that nobody knew at the cut
    (1, 2, VIEW, 30),
    (1, 3, VIEW, 120),
    (1, 0, VIEW, 130),
    (1, 1, CART, 140),
    # user 2 is new
    (2, 0, VIEW, 150),
    (2, 2, CART, 160),
    (2, 2, VIEW, 210),
    # user 3 is new, and ends with an item that nobody knew
    (3, 0, VIEW, 170),
    (3, 3, VIEW, 180),
    # user 4 is new and does one thing
    (4, 0, VIEW, 190),
]
KNOWN = table(ROWS)


def told(asked: Histories, truth: Truth) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Items of each history, and (item, event) of what followed."""
    assert asked.user.tolist() == truth.user.tolist() == list(range(len(asked)))

    def rows() -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        for number in range(len(asked)):
            past, then = (slice(*one.start[number : number + 2].tolist()) for one in (asked, truth))
            yield (
                asked.item[past].tolist(),
                list(zip(truth.item[then].tolist(), truth.event[then].tolist(), strict=True)),
            )

    return list(rows())


def test_learners_are_who_came_back_and_then_how_visits_go_on() -> None:
    assert told(*learners(KNOWN, CUT, END, cap=10)) == [
        ([0, 1], [(1, CART)]),
        ([2], [(0, VIEW), (1, CART), (3, VIEW)]),
        ([2, 0], [(1, CART)]),
        ([0], [(2, CART)]),
    ]


def test_a_history_holds_the_newest_only() -> None:
    assert [past for past, _ in told(*learners(KNOWN, CUT, END, cap=1))] == [[1], [2], [0], [0]]


def test_those_who_came_back_judge_where_there_are_enough() -> None:
    known, cut, end = chance(1, 600, days=40), 20 * 86_400_000, 40 * 86_400_000
    came_back = np.intersect1d(known.before(cut).user, known.between(cut, end).user)
    assert len(came_back) >= groups.FEW
    past = histories(known, cut, 10, came_back.astype(np.int32))
    assert [items for items, _ in told(*judges(known, cut, end, cap=10))] == [
        past.item[low:high].tolist() for low, high in itertools.pairwise(past.start)
    ]


def test_else_everybody_s_last_interaction_judges_an_unknown_item_included() -> None:
    assert told(*judges(KNOWN, CUT, END, cap=10)) == [
        ([0, 1], [(1, CART)]),
        ([2, 0], [(1, CART)]),
        ([0], [(2, CART)]),
        ([0], [(3, VIEW)]),
    ]


def test_how_visits_go_on_is_thinned_evenly() -> None:
    """Of as many visits as there may be twice, every other one; each is of an item of its own."""
    visits, items, cut = 2 * groups.LATER - 1, 25, 1_000
    known = table(
        [*((0, item, VIEW, item) for item in range(items))]
        + [(1 + visit, visit % items, VIEW, cut + 2 * visit) for visit in range(visits)]
        + [(1 + visit, visit // items % items, VIEW, cut + 2 * visit + 1) for visit in range(visits)]
    )
    found = told(*learners(known, cut, cut + 2 * visits, 50))
    kept = range(0, visits, 2)
    assert found == [([visit % items], [(visit // items % items, VIEW)]) for visit in kept]


def test_nothing_of_the_window_is_known_to_who_is_asked_at_its_cut() -> None:
    known = chance(2, 600, days=40)
    cut, end = 20 * 86_400_000, 40 * 86_400_000
    asked, truth = learners(known, cut, end, 50)
    back = len(judges(known, cut, end, 50)[1])
    assert asked.time[: asked.start[back]].max() < cut
    assert asked.item.max() < known.before(cut).items
    assert len(asked) == len(truth)


def test_an_empty_window_has_no_group() -> None:
    empty: Interactions = KNOWN.before(CUT)
    for find in (learners, judges):
        asked, truth = find(empty, CUT, END, 10)
        assert len(asked) == len(truth) == 0
