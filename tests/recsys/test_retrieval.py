from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.recsys import baselines, cooccurrence, index, retrieval
from tasks.recsys.candidates import COVISITATION, CURVES, OWN_HISTORY, POPULAR, SOURCES, Candidates
from tasks.recsys.interactions import DAY, Histories, Interactions, histories
from tasks.recsys.retrieval import POPULAR_DAYS, Retriever, Tower, learned_curves, retriever
from tasks.recsys.two_tower import TwoTower
from tests.recsys.made import asked, chance, views

CUT = 100 * DAY
EVENTS = chance(0, 600, users=80, items=400)
KNOWN = EVENTS.before(CUT)
K = 120


def tower(items: int, window: int = 4) -> Tower:
    """A two-tower as it is before anything is learned, with biases that are not all the same."""
    torch.manual_seed(5)
    model = TwoTower(items, 16, window)
    torch.nn.init.normal_(model.bias.weight)
    return Tower(model, index.build(model.item_vectors().numpy()))


@pytest.fixture(scope="module")
def made() -> Retriever:
    return retriever(EVENTS, CUT, tower(KNOWN.items), cooccurrence.covisitation(EVENTS, CUT), K)


def blended(sources: Retriever, of: Histories, k: int = K) -> Candidates:
    blocks = list(sources.blended(of, k))
    parts = ([b.item for b in blocks], [b.rank for b in blocks], [b.score for b in blocks])
    return Candidates(*(np.concatenate(part) for part in parts))  # type: ignore[arg-type]


def named(found: Candidates, source: str, row: int) -> list[int]:
    """Items that a source named in a list, by its rank."""
    rank = found.rank[row, :, [one.name for one in SOURCES].index(source)]
    places = np.flatnonzero(rank)
    return [int(item) for item in found.item[row, places[np.argsort(rank[places])]]]


def test_the_tower_recommends_by_the_inner_product_and_repeats() -> None:
    of = asked([3, 5, 8], [9])
    made = tower(20)
    items, scores = made.recommend(of, 20)
    windows = made.windows(of)
    queries, own = made.queries(windows)
    products = queries @ made.model.item_vectors().numpy().T
    for user, step in zip(*np.nonzero(np.isfinite(own)), strict=True):
        assert own[user, step] > products[user, windows.item[user, step]]
        products[user, windows.item[user, step]] = own[user, step]
    assert items.tolist() == np.argsort(-products, axis=1).tolist()
    assert scores == pytest.approx(-np.sort(-products, axis=1), rel=1e-5, abs=1e-5)


def test_a_windows_padding_changes_nothing() -> None:
    made, of = tower(20, 7), asked([3], [], [5, 8, 5], [9, 1], list(range(7)))
    windows = made.windows(of)
    vectors, own = made.queries(windows)
    item, event = torch.from_numpy(windows.item).long(), torch.from_numpy(windows.event).long()
    expected = made.model.query_vectors(item, event)
    assert vectors == pytest.approx(expected[0].numpy(), abs=1e-5)
    assert own == pytest.approx(expected[1].numpy(), abs=1e-5)


def test_an_item_that_the_tower_does_not_know_is_recommended_to_whom_it_is_a_repeat() -> None:
    found, scores = tower(20, 7).recommend(asked([25, 3, 20, 5, 8], [3, 5, 8]), 10)
    assert {20, 25} < set(found[0].tolist())
    assert found[1].max() < 20
    assert (np.diff(scores) <= 0).all()


def test_after_unknown_items_alone_the_tower_names_them_and_then_the_most_popular() -> None:
    made = tower(20)
    torch.nn.init.normal_(made.model.bias.weight)
    made = Tower(made.model, index.build(made.model.item_vectors().numpy()))
    popular = torch.argsort(-made.model.bias.weight.squeeze(1)).tolist()
    assert made.recommend(asked([99, 20]), 7)[0].tolist() == [[20, 99, *popular[:5]]]


def test_without_a_history_the_tower_says_nothing() -> None:
    items, scores = tower(20).recommend(asked([], [3]), 5)
    assert items[0].tolist() == [-1] * 5
    assert scores[0].tolist() == [0] * 5
    assert (items[1] >= 0).all()


def test_where_the_catalogue_ends_the_tower_says_nothing() -> None:
    items, scores = tower(3).recommend(asked([1]), 5)
    assert sorted(items[0, :3].tolist()) == [0, 1, 2]
    assert items[0, 3:].tolist() == [-1, -1]
    assert scores[0, 3:].tolist() == [0, 0]


def test_each_source_is_in_the_blend(made: Retriever) -> None:
    of = histories(EVENTS, CUT, 50)
    found = blended(made, of, k=600)
    walk = cooccurrence.two_steps(made.neighbours, np.arange(KNOWN.items))
    neighbours = cooccurrence.recommend(of, cooccurrence.recency(of), walk, COVISITATION.depth)[0]
    for row in range(0, len(of), 9):
        own = [item for item in baselines.own_items(of, OWN_HISTORY.depth)[row].tolist() if item >= 0]
        assert named(found, "own_history", row) == own
        assert named(found, "covisitation", row) == [item for item in neighbours[row].tolist() if item >= 0]
        assert named(found, "two_tower", row) == made.tower.recommend(of, 300)[0][row][: KNOWN.items].tolist()
        assert named(found, "popular", row) == made.popular[: POPULAR.depth].tolist()


def test_popular_is_of_the_days_before_the_cut(made: Retriever) -> None:
    assert made.popular.tolist() == baselines.popular(EVENTS, CUT, POPULAR_DAYS, K).tolist()
    assert POPULAR_DAYS == 14


def test_who_has_no_history_gets_the_popular_items_and_nothing_else(made: Retriever) -> None:
    found = blended(made, asked([], [3]))
    assert found.item[0].tolist() == made.popular.tolist()
    assert len(made.popular) == K <= POPULAR.depth
    assert found.rank[0].tolist() == [[0, 0, 0, rank] for rank in range(1, K + 1)]
    assert not found.score[0].any()


def test_items_that_came_after_the_towers_cut_come_by_other_sources() -> None:
    known = views(*((u, 0, 1) for u in range(3)), *((u, 1, 2) for u in range(3)), (3, 2, 3), (3, 3, 3))
    sources = retriever(known, 4 * DAY, tower(2), cooccurrence.covisitation(known, 4 * DAY), 4)
    found = blended(sources, asked([2]), 4)
    assert named(found, "two_tower", 0)[0] == 2  # of what it does not know it names repeats alone
    assert 3 not in named(found, "two_tower", 0)
    assert named(found, "own_history", 0) == [2]
    assert named(found, "covisitation", 0) == [3]
    assert named(found, "popular", 0) == [0, 1, 2, 3]


def test_a_list_does_not_depend_on_its_company(made: Retriever) -> None:
    of = histories(EVENTS, CUT, 50)
    whole = blended(made, of)
    same = np.arange(retrieval.ROWS + len(of)) % len(of)
    many = blended(made, of.take(same))
    assert np.array_equal(many.item, whole.item[same])
    assert np.array_equal(many.rank, whole.rank[same])
    assert many.score == pytest.approx(whole.score[same], abs=1e-4)
    alone = blended(made, of.take(np.array([11])))
    assert alone.item[0].tolist() == whole.item[11].tolist()
    assert alone.rank[0].tolist() == whole.rank[11].tolist()


def test_later_events_change_nothing(made: Retriever) -> None:
    assert len(KNOWN) < len(EVENTS)
    again = retriever(KNOWN, CUT, made.tower, cooccurrence.covisitation(KNOWN, CUT), K)
    one, other = blended(made, histories(EVENTS, CUT, 50)), blended(again, histories(KNOWN, CUT, 50))
    assert one.item.tobytes() == other.item.tobytes()
    assert one.rank.tobytes() == other.rank.tobytes()
    assert one.score.tobytes() == other.score.tobytes()


def test_a_walk_made_beforehand_from_every_item_gives_the_same_lists(made: Retriever) -> None:
    walk = cooccurrence.two_steps(made.neighbours, np.arange(made.neighbours.shape[0]))
    of = histories(EVENTS, CUT, 10)
    one, other = blended(made, of), blended(replace(made, walked=walk), of)
    assert one.item.tolist() == other.item.tolist()
    assert one.score.tolist() == other.score.tolist()


def test_nobody_asks(made: Retriever) -> None:
    assert list(made.blended(asked(), K)) == []


# the blend's curves


def test_curves_are_those_of_the_retriever(made: Retriever) -> None:
    alone = retriever(EVENTS, CUT, made.tower, made.neighbours, K, (*[(0.0, 0.0)] * 3, (0.0, 1.0)))
    assert blended(alone, histories(EVENTS, CUT, 50)).item[0].tolist() == made.popular.tolist()


def returning(users: int, *, later: bool) -> Interactions:
    """Each sees 30 of 300 items and comes back to the first of them after the cut; or comes only then at all."""
    rng = np.random.default_rng(0)
    rows = [(user, item, 80 + item / 100) for item in range(300) for user in (users, users + 1)]
    for user in range(users):
        items = rng.choice(300, 30, replace=False).tolist()
        start = 101.0 if later else 90.0
        rows += [(user, item, start + place / 10) for place, item in enumerate(items)] + [(user, items[0], 108.0)]
    return views(*rows)


@pytest.mark.parametrize("later", [False, True])
def test_where_people_come_back_their_own_history_comes_to_count_most(later: bool) -> None:
    events = returning(150, later=later)
    sources = retriever(events, CUT, tower(300), cooccurrence.covisitation(events, CUT), K)
    learned = learned_curves(sources, events, 110 * DAY, 50)
    own, near, likely, often = (sum(curve) for curve in learned)
    assert own > max(near, likely, often)


def test_curves_are_of_what_is_before_the_end_alone(made: Retriever) -> None:
    end = 130 * DAY
    one, other = (learned_curves(made, rows, end, 50) for rows in (EVENTS, EVENTS.before(end)))
    assert one == other


def test_nothing_to_learn_from_leaves_the_curves_alone(made: Retriever) -> None:
    assert learned_curves(made, KNOWN, CUT, 50) == CURVES
