"""Small tables made by hand, and chance ones, for the tests of the nouns."""

from collections.abc import Iterable, Sequence

import numpy as np

from tasks.recsys.interactions import DAY, Histories, Interactions

Row = tuple[int, int, int, int]
"""(user, item, event, time in ms)"""


def table(rows: Iterable[Row]) -> Interactions:
    """Interactions of rows in any order."""
    ordered = sorted(rows, key=lambda row: (row[0], row[3], row[1], row[2]))
    user, item, event, time = np.array(ordered, dtype=np.int64).reshape(-1, 4).T
    return Interactions(user.astype(np.int32), item.astype(np.int32), event.astype(np.int8), time)


def views(*rows: tuple[int, int, float]) -> Interactions:
    """Views from (user, item, day)."""
    return table((user, item, 0, round(day * DAY)) for user, item, day in rows)


def asked(*pasts: Sequence[int], event: int = 0) -> Histories:
    """Histories of users 0, 1, …: items, oldest first."""
    start = np.concatenate([[0], np.cumsum([len(past) for past in pasts])]).astype(np.int64)
    item = np.array([item for past in pasts for item in past], dtype=np.int32)
    events, time = np.full(len(item), event, dtype=np.int8), np.arange(len(item), dtype=np.int64)
    return Histories(np.arange(len(pasts), dtype=np.int32), start, item, events, time)


def chance(seed: int, rows: int, *, users: int = 30, items: int = 25, days: int = 160) -> Interactions:
    """Rows drawn at random over some days, ids dense in order of first appearance as in a Dataset."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, days * DAY, rows)).tolist()
    user, item = (in_order(rng.integers(0, n, rows).tolist()) for n in (users, items))
    event = rng.choice(3, rows, p=[0.8, 0.12, 0.08]).tolist()
    return table(zip(user, item, event, time, strict=True))


def in_order(ids: Sequence[int]) -> list[int]:
    """Ids renamed in order of first appearance."""
    names = {name: position for position, name in enumerate(dict.fromkeys(ids))}
    return [names[name] for name in ids]
