"""Scores of a booster's trees for many pairs at once: the same numbers as LightGBM's own, several times as fast."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Masks = npt.NDArray[np.unsignedinteger[Any]]

MOST_LEAVES = 64
"""Bits of the widest mask."""
ROWS = 1 << 16
"""Pairs at a time: their masks and a column stay in the cache."""


@dataclass(frozen=True)
class Node:
    """A split: whoever fails `value <= threshold` loses the leaves on its left."""

    feature: int
    threshold: np.float32
    missing_is_zero: bool
    """the feature had no missing value in training; else one goes where `missing_goes_left` says"""
    missing_goes_left: bool
    left: int
    """mask of the leaves on its left, bit 0 for the leftmost of the tree"""

    def fails(self, values: Floats) -> npt.NDArray[np.bool_]:
        """[pairs]"""
        if self.missing_goes_left or self.missing_is_zero:
            return values > self.threshold
        return ~(values <= self.threshold)


@dataclass(frozen=True)
class Tree:
    """A regression tree by its splits, in any order, and the values of its leaves from left to right."""

    nodes: tuple[Node, ...]
    values: Doubles
    """[leaves]"""


@dataclass(frozen=True)
class Trees:
    """A sum of trees, whose leaves are found by masks: of the leaves that no split has taken, the leftmost.

    A split is then one comparison of a whole column, without a branch (Lucchese et al. 2015, QuickScorer: a fast
    algorithm to rank documents with additive ensembles of regression trees, SIGIR).
    """

    trees: tuple[Tree, ...]

    @staticmethod
    def of(booster: Any) -> "Trees":
        """The trees of a LightGBM booster without categorical splits, of at most `MOST_LEAVES` leaves each."""
        return Trees(tuple(_tree(one["tree_structure"]) for one in booster.dump_model()["tree_info"]))

    def scores(self, columns: Floats) -> Doubles:
        """[pairs, features] → [pairs], bit by bit what `booster.predict` gives; fastest where columns lie together."""
        total = np.zeros(len(columns))
        for start in range(0, len(columns), ROWS):
            _add(self.trees, columns[start : start + ROWS], total[start : start + ROWS])
        return total


def _add(trees: tuple[Tree, ...], columns: Floats, total: Doubles) -> None:
    """Adds the trees' values of a block [pairs, features] to its scores [pairs]."""
    wanted = {(node.feature, node.missing_is_zero) for tree in trees for node in tree.nodes}
    column = {(feature, zero): _column(columns[:, feature], zero) for feature, zero in wanted}
    for tree in trees:
        mask = np.min_scalar_type((1 << len(tree.values)) - 1).type
        gone = np.zeros(len(columns), dtype=mask)
        for node in tree.nodes:
            gone |= node.fails(column[node.feature, node.missing_is_zero]).view(np.uint8) * mask(node.left)
        total += _value(tree.values, gone)


def _column(values: Floats, missing_is_zero: bool) -> Floats:
    return np.where(np.isnan(values), np.float32(0), values) if missing_is_zero else np.ascontiguousarray(values)


def _value(values: Doubles, gone: Masks) -> Doubles:
    """[leaves], [pairs] masks of leaves → [pairs], the value of the first leaf that is not in it."""
    if gone.dtype == np.uint8:
        return np.append(values, np.zeros(8))[LEFTMOST].take(gone)
    free = ~gone & (gone + gone.dtype.type(1))  # its bit alone
    return values.take(np.frexp(free.astype(np.float64))[1] - 1)


LEFTMOST = np.array([next((bit for bit in range(8) if not mask >> bit & 1), 0) for mask in range(256)], dtype=np.uint8)
"""[256]: the first bit that a mask of 8 lacks."""


def _tree(root: Mapping[str, Any]) -> Tree:
    values: list[float] = []
    nodes = tuple(_nodes(root, values))
    return Tree(nodes, np.array(values))


def _nodes(node: Mapping[str, Any], values: list[float]) -> Iterator[Node]:
    """The splits below a node of LightGBM's dump; appends the values of its leaves, from left to right."""
    if "leaf_value" in node:
        values.append(node["leaf_value"])
        return
    first = len(values)
    yield from _nodes(node["left_child"], values)
    left = (1 << len(values)) - (1 << first)
    yield from _nodes(node["right_child"], values)
    yield Node(
        feature=node["split_feature"],
        threshold=_not_above(node["threshold"]),
        missing_is_zero=node["missing_type"] == "None",
        missing_goes_left=node["default_left"],
        left=left,
    )


def _not_above(threshold: float) -> np.float32:
    """The largest float32 that is not above: it parts the float32 values as the threshold does."""
    with np.errstate(over="ignore"):  # there is one for "not missing", above all float32
        near = np.float32(threshold)
    return near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf))
