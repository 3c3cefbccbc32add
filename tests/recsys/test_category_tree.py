import itertools

import numpy as np
import pytest

from tasks.recsys.category_tree import CategoryTree


def tree(parents: dict[int, int]) -> CategoryTree:
    """Category → parent, −1 for a root."""
    rows = sorted(parents.items())
    return CategoryTree(np.array([c for c, _ in rows], "i4"), np.array([p for _, p in rows], "i4"))


def test_the_paths_go_from_the_root_to_the_category() -> None:
    offsets, path = tree({7: -1, 3: 7, 9: 3, 8: -1}).paths()
    assert [path[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [
        [7, 3],
        [7],
        [8],
        [7, 3, 9],
    ]


@pytest.mark.parametrize("size", [0, 1])
def test_a_forest_of_roots_or_of_nothing(size: int) -> None:
    forest = tree(dict.fromkeys(range(size), -1))
    assert (forest.cycle(), forest.orphans().tolist(), forest.paths()[1].tolist()) == ([], [], list(range(size)))


@pytest.mark.parametrize(
    ("parents", "cycle"),
    [
        ({1: 1}, [1]),
        ({1: 2, 2: 1, 3: -1}, [1, 2]),
        ({5: 9, 9: 7, 7: 5, 1: 5, 2: 1, 3: -1}, [5, 9, 7]),
        ({1: 2, 2: 3, 3: 4, 4: -1}, []),
    ],
)
def test_categories_that_are_their_own_ancestors_are_found(parents: dict[int, int], cycle: list[int]) -> None:
    assert tree(parents).cycle() == cycle


def test_a_long_chain_has_no_cycle() -> None:
    assert tree({category: category - 1 for category in range(1_000)}).cycle() == []


def test_orphans_are_those_whose_parent_is_no_category() -> None:
    assert tree({1: -1, 2: 1, 4: 3, 5: 4}).orphans().tolist() == [4]
