"""The category tree: what is wrong with it, and the path from a root to each category."""

from dataclasses import dataclass

import numpy as np

from tasks.recsys.interactions import Ints, Longs

NO_PARENT = -1


@dataclass(frozen=True)
class CategoryTree:
    """Categories with their parents."""

    category: Ints
    """[categories], ascending, distinct"""
    parent: Ints
    """[categories], −1 for a root"""

    def __len__(self) -> int:
        return len(self.category)

    def __contains__(self, category: int) -> bool:
        at = int(np.searchsorted(self.category, category))
        return at < len(self.category) and int(self.category[at]) == category

    def orphans(self) -> Ints:
        """[orphans]: categories whose parent is no category of the tree, ascending."""
        found: Ints = self.category[(self.parent != NO_PARENT) & ~np.isin(self.parent, self.category)]
        return found

    def cycle(self) -> list[int]:
        """Categories that are each other's ancestors, the least one first; empty in a tree."""
        at = self._parents()
        looped = np.arange(len(self))
        for _ in range(len(self).bit_length()):  # 2^k steps up after k doublings: only a cycle has no end
            at = np.where(at < 0, at, at[at])
            looped = np.flatnonzero(at >= 0)
        if not len(looped):
            return []
        parents = self._parents()
        on_cycle = [int(at[looped[0]])]  # so many steps up from anywhere end on the cycle
        while (above := int(parents[on_cycle[-1]])) != on_cycle[0]:
            on_cycle.append(above)
        first = on_cycle.index(min(on_cycle))
        return [int(self.category[one]) for one in on_cycle[first:] + on_cycle[:first]]

    def paths(self) -> tuple[Longs, Ints]:
        """Offsets [categories + 1] and the categories of all paths, each from its root down to the category itself.

        Needs a tree without a cycle; above an orphan there is nothing.
        """
        parents, steps = self._parents(), [np.arange(len(self))]
        while len(self) and (steps[-1] >= 0).any():
            steps.append(np.where(steps[-1] < 0, -1, parents[steps[-1]]))
        table = np.stack(steps[::-1], axis=1) if len(self) else np.zeros((0, 1), dtype=np.int64)
        real = table >= 0
        offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))]).astype(np.int64)
        return offsets, self.category[table[real]]

    def _parents(self) -> Longs:
        """[categories]: position of each category's parent, −1 where there is none in the tree."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.category, self.parent), len(self) - 1)
        return np.where(self.category[at] == self.parent, at, -1)
