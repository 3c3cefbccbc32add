"""Cuts in time: where a model's past ends and the window that it is judged on begins."""

from dataclasses import dataclass

import numpy as np

from tasks.recsys.interactions import DAY, Longs

LONGEST_WINDOW = 7 * DAY
"""A label window of the ranker covers at most a week, ms."""


@dataclass(frozen=True)
class Cuts:
    """The instants of a night, UTC ms, ascending."""

    first: int
    """c1"""
    ranker: tuple[int, ...]
    """starts of the ranker's label windows, from c1 on, before c2"""
    second: int
    """c2"""
    as_of: int

    @property
    def every(self) -> list[int]:
        """All instants at which something is known, ascending, each once."""
        return sorted({self.first, *self.ranker, self.second, self.as_of})


def quantile_cuts(time: Longs, first: float, second: float) -> tuple[int, int]:
    """The instants c1 < c2 (UTC ms) that leave these shares of the events before them.

    `time` [n], ascending.
    """
    if not 0 < first < second < 1:
        raise ValueError(f"cuts at quantiles {first} and {second}: expected 0 < first < second < 1")
    c1, c2 = (int(time[int(share * len(time))]) for share in (first, second))
    return c1, c2


def check(time: Longs, c1: int, c2: int) -> None:
    """Raises ValueError unless there are events before c1, in c1–c2 and from c2 on; time [n] ascending, UTC ms."""
    if not time[0] < c1 < c2 <= time[-1] or np.searchsorted(time, c1) == np.searchsorted(time, c2):
        raise ValueError(
            f"{len(time)} events between {time[0]} and {time[-1]} cannot be cut in three at {c1} and {c2}: expected "
            "more events at more instants, or other cuts"
        )


def ranker_cuts(c1: int, c2: int, windows: int) -> tuple[int, ...]:
    """Start instants (UTC ms, ascending) of equal label windows that end at c2, none before c1, none over a week.

    Raises ValueError when there is no room for them.
    """
    if c2 - c1 < windows:
        raise ValueError(f"{c2 - c1} ms between the cuts {c1} and {c2}: expected room for {windows} label windows")
    covered = min(LONGEST_WINDOW * windows, c2 - c1)
    return tuple(c2 - covered * back // windows for back in range(windows, 0, -1))


def dense_ids(ids: Longs) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], Longs]:
    """Codes [n] of the ids [n] in order of first appearance, and the encoder [distinct]: code → id.

    With the rows in order of time, the ids known before any cut are a prefix of the encoder: what comes later cannot
    change the codes of what came before.
    """
    distinct, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    code = np.empty(len(order), dtype=np.int32)
    code[order] = np.arange(len(order), dtype=np.int32)
    return code[inverse], distinct[order]
