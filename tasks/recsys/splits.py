"""Cuts in time: where a model's past ends and the window that it is judged on begins."""

import numpy as np

from tasks.recsys.interactions import DAY, Longs

LONGEST_WINDOW = 7 * DAY
"""A label window of the ranker covers at most a week, ms."""


def quantile_cuts(time: Longs, first: float, second: float) -> tuple[int, int]:
    """The instants c1 < c2 (UTC ms) that leave these shares of the events before them.

    `time` [n], ascending.  Raises ValueError when the events are too few or too bunched to be cut in three.
    """
    if not 0 < first < second < 1:
        raise ValueError(f"cuts at quantiles {first} and {second}: expected 0 < first < second < 1")
    c1, c2 = (int(time[int(share * len(time))]) for share in (first, second))
    if not time[0] < c1 < c2 <= time[-1]:
        raise ValueError(
            f"{len(time)} events between {time[0]} and {time[-1]} cannot be cut in three at quantiles {first} and "
            f"{second} (the cuts would be {c1} and {c2}): expected more events, at more instants"
        )
    return c1, c2


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
