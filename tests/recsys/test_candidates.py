import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.recsys import candidates
from tasks.recsys.candidates import CURVES, SOURCES, Candidates, Curves, Floats, blend, shapes, without
from tasks.recsys.interactions import Ints

NAMED = st.lists(st.integers(0, 14), max_size=7, unique=True)
LISTS = st.lists(st.tuples(*[NAMED] * len(SOURCES)), min_size=1, max_size=6)
"""Of each user, what each source names, best first."""

FUSED: Curves = tuple((0.0, weight) for weight in (2.0, 1.0, 1.5, 0.5))
"""Reciprocal rank fusion by hand: ranks count nearly alike."""

Named = list[tuple[list[int], ...]]


def padded(rows: list[list[int]], depth: int) -> Ints:
    return np.array([row + [-1] * (depth - len(row)) for row in rows], dtype=np.int32).reshape(len(rows), depth)


def sources(users: Named) -> tuple[list[Ints], list[Floats]]:
    """Lists and scores of each source; a score says which source, user's place and item it is of."""
    lists = [padded([user[s] for user in users], 7 + s) for s in range(len(SOURCES))]
    scores = [(100 * s + np.where(one >= 0, one, -1)).astype(np.float32) for s, one in enumerate(lists)]
    return lists, scores


def slow(user: tuple[list[int], ...], k: int, curves: Curves = CURVES) -> list[int]:
    """The blend of a user, by its definition; rounded, so that ties are ties."""
    gain: dict[int, float] = {}
    for number, (curve, named) in enumerate(zip(curves, user, strict=True)):
        of_rank = shapes(7 + number) @ curve
        for item, said in zip(named, of_rank.tolist(), strict=False):
            gain[item] = gain.get(item, 0.0) + said
    return sorted(gain, key=lambda item: (-round(gain[item], 11), item))[:k]


def the_same(one: Candidates, other: Candidates) -> bool:
    pairs = ((one.item, other.item), (one.rank, other.rank), (one.score, other.score))
    return all(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


@given(LISTS, st.integers(1, 12))
def test_blend_equals_the_slow_way(users: Named, k: int) -> None:
    found = blend(*sources(users), k)
    assert found.item.tolist() == [row + [-1] * (k - len(row)) for row in (slow(user, k) for user in users)]
    for user, items, ranks, scores in zip(users, found.item, found.rank, found.score, strict=True):
        for item, rank, score in zip(items.tolist(), ranks.tolist(), scores.tolist(), strict=True):
            assert rank == [named.index(item) + 1 if item in named else 0 for named in user]
            assert score == [100 * s + item if item in named else 0 for s, named in enumerate(user)]


@given(LISTS, st.tuples(*[st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 2)] * len(SOURCES)))
def test_curves_are_those_given_whatever_the_chunks(users: Named, curves: Curves) -> None:
    expected = [row + [-1] * (9 - len(row)) for row in (slow(user, 9, curves) for user in users)]
    again = candidates.ROWS  # times the same, so that there are several blocks
    assert blend(*sources(users * again), 9, curves).item.tolist() == expected * again


@given(LISTS, st.integers(1, 12), st.integers(1, 5))
def test_a_list_does_not_depend_on_its_company(users: Named, k: int, chunk: int) -> None:
    whole = blend(*sources(users), k)
    for at in range(0, len(users), chunk):
        part = blend(*sources(users[at : at + chunk]), k)
        rows = slice(at, at + chunk)
        assert the_same(part, Candidates(whole.item[rows], whole.rank[rows], whole.score[rows]))


@given(LISTS)
def test_a_longer_list_begins_with_the_shorter_one(users: Named) -> None:
    short, long = (blend(*sources(users), k) for k in (3, 9))
    assert the_same(short, Candidates(long.item[:, :3], long.rank[:, :3], long.score[:, :3]))


def test_blend_by_hand() -> None:
    own, near, tower, popular = [7], [3, 7], [3], [9]
    found = blend(*sources([(own, near, tower, popular)]), 4, FUSED)
    # 7: 2 / 31 and 1 / 32; 3: 1 / 31 and 1.5 / 31; 9: 0.5 / 31, each over the sum of the source's ranks
    assert found.item.tolist() == [[7, 3, 9, -1]]
    assert found.rank[0].tolist() == [[1, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert found.score[0].tolist() == [[7, 107, 0, 0], [0, 103, 203, 0], [0, 0, 0, 309], [0, 0, 0, 0]]


def test_nobody_and_nothing_to_blend() -> None:
    assert blend(*sources([]), 5).item.shape == (0, 5)
    assert blend(*sources([([], [], [], [])]), 2).item.tolist() == [[-1, -1]]


@given(LISTS, st.sets(st.integers(0, 14)))
def test_without_moves_the_rest_up(users: Named, dropped: set[int]) -> None:
    unwanted = np.isin(np.arange(15), list(dropped))
    found = without(blend(*sources(users), 12), unwanted)
    for user, items, ranks, scores in zip(users, found.item.tolist(), found.rank, found.score, strict=True):
        kept = [item for item in slow(user, 12) if item not in dropped]
        assert items == kept + [-1] * (12 - len(kept))
        for item, rank, score in zip(items, ranks.tolist(), scores.tolist(), strict=True):
            assert rank == [named.index(item) + 1 if item in named else 0 for named in user]
            assert score == [100 * s + item if item in named else 0 for s, named in enumerate(user)]


def test_without_nothing_unwanted_is_the_same() -> None:
    blended = blend(*sources([([1, 2], [2, 3], [5], []), ([], [], [0], [14])]), 6)
    assert the_same(without(blended, np.zeros(15, dtype=bool)), blended)


def test_pairs_are_the_places_that_are_taken() -> None:
    pairs = blend(*sources([([7], [3, 7], [3], [9]), ([], [], [], []), ([], [4], [], [])]), 4, FUSED).pairs()
    assert len(pairs) == 4
    assert pairs.row.tolist() == [0, 0, 0, 2]
    assert pairs.item.tolist() == [7, 3, 9, 4]
    assert pairs.place.tolist() == [1, 2, 3, 1]
    assert pairs.rank.tolist() == [[1, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert pairs.score.tolist() == [[7, 107, 0, 0], [0, 103, 203, 0], [0, 0, 0, 309], [0, 104, 0, 0]]


def test_where_keeps_whole_rows_of_pairs() -> None:
    pairs = blend(*sources([([7], [3, 7], [3], [9])]), 4, FUSED).pairs()
    kept = pairs.where(pairs.item != 3)
    assert kept.item.tolist() == [7, 9]
    assert kept.place.tolist() == [1, 3]
    assert kept.rank.tolist() == [[1, 2, 0, 0], [0, 0, 0, 1]]
    assert kept.score.tolist() == [[7, 107, 0, 0], [0, 0, 0, 309]]


def test_unwanted_items_are_left_out_and_the_rest_moves_up() -> None:
    lists = np.array([[3, 0, 2, 9], [1, -1, -1, -1], [2, 3, -1, -1]], dtype=np.int32)
    unwanted = np.array([False, False, True, True])
    assert candidates.items_without(lists, unwanted).tolist() == [[0, 9, -1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]]
