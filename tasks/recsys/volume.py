"""Whether the newest day of a clickstream looks like the days before it."""

from collections.abc import Sequence

import numpy as np

from tasks.recsys.interactions import DAY, EVENTS, Interactions, Longs

WEEKS = 4
DAYS = 7 * WEEKS
"""Days that the newest one is compared with."""
FEWEST_DAYS = 7
"""With fewer days to compare with, nothing can be said."""
STEADY = 5
"""Events of a type on nearly every day; a rarer type may be absent by chance."""


def by_day(events: Interactions, as_of: int) -> Longs:
    """[≤ 1 + DAYS, event types]: events of the 24 hours before as_of, then of the 24 hours before these, and so on.

    A day that the events do not cover whole is none to compare with.
    """
    if not len(events):
        return np.zeros((0, len(EVENTS)), dtype=np.int64)
    back = (as_of - 1 - events.time) // DAY
    days = min(1 + DAYS, int((as_of - events.time.min()) // DAY))
    code = (back * len(EVENTS) + events.event)[back < days]
    return np.bincount(code, minlength=days * len(EVENTS)).reshape(days, len(EVENTS))


def band(daily: Longs, tolerance: float) -> tuple[float, float] | None:
    """The least and the most events [1 + days, event types] of the newest day that nobody suspects.

    lowest / tolerance … highest · tolerance, where lowest and highest are the 10 % and 90 % quantiles of the days
    before (so that one outage or one sale among them does not widen it).  None: too few days to say.
    """
    if len(daily) <= FEWEST_DAYS:
        return None
    low, high = np.quantile(daily[1:].sum(axis=1), [0.1, 0.9]) * (1 / tolerance, tolerance)
    return float(low), float(high)


def suspicions(daily: Longs, tolerance: float) -> Sequence[str]:
    """What is odd about the newest day, in words; empty when nothing is.

    daily: [1 + days, event types], events of the 24 hours before as_of, then of the 24 hours before these, and so on.

    The newest day's events lie outside of the `band`, or a type has vanished: the newest day has none, and nearly
    every day before had five or more.
    """
    expected = band(daily, tolerance)
    if not expected:
        return []
    newest, before = daily[0], daily[1:]
    low, high = expected
    found = []
    total = int(newest.sum())
    if not low <= total <= high:
        found.append(
            f"{total:,} events in the last 24 hours, expected {low:,.0f} to {high:,.0f} by {len(before)} days before"
        )
    usual = np.quantile(before, 0.1, axis=0)
    found += [
        f"no {EVENTS[event]} in the last 24 hours, at least {usual[event]:.0f} on nearly every day before"
        for event in np.flatnonzero((newest == 0) & (usual >= STEADY))
    ]
    return found
