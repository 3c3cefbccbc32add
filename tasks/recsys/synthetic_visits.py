"""When the visitors of the made-up shop come, for how long, and how often they come back."""

from dataclasses import dataclass

import numpy as np

from tasks.recsys.synthetic import (
    DAY,
    FULL_VISITORS,
    HOUR,
    MINUTE,
    SECOND,
    SPAN,
    START,
    WEEK,
    DemoConfig,
    Floats,
    Ints,
    Part,
    stream,
)

ONE_VIEW, TAIL = 0.726, 1.74
"""Share of visitors with a single view; Pareto exponent of the views of the others."""
LEAVE = 0.30
"""Chance that a visitor leaves between two views and comes back for the next one."""
PAUSE, PAUSE_SPREAD = 4.0 * DAY, 1.5
"""Median of the time away, ms, and the standard deviation of its logarithm."""


@dataclass(frozen=True)
class Visits:
    """The views of a block of visitors, in the order in which each visitor made them."""

    visitor: Ints
    """[views] row of the visitor in the block."""
    position: Ints
    """[views] views of the same visitor before."""
    session: Ints
    """[views] number of the visit in the block."""
    away: Floats
    """[views] time away before the visit if the view opens one that is not the first, ms; else 0."""
    at: Ints
    """[views] time since `START`, ms."""
    week: Ints
    """[views] week in which the visit began."""


def view_counts(config: DemoConfig) -> Ints:
    """[visitors] views each visitor makes: the quantiles of the distribution, dealt out at random.

    Quantiles and not draws: with so heavy a tail the total would otherwise vary much with the seed.
    """
    visitors = config.sized(FULL_VISITORS)
    rank = (stream(config, Part.COUNTS).permutation(visitors) + 0.5) / visitors
    beyond = np.minimum((1 - rank) / (1 - ONE_VIEW), 1.0)
    return np.where(rank < ONE_VIEW, 1, np.floor(2 * beyond ** (-1 / TAIL))).astype(np.int64)


def lay_out(counts: Ints, rng: np.random.Generator) -> Visits:
    """When the views happen: visits of views 10 s to 5 min apart, longer times away between them.

    counts: [visitors] views of each.
    """
    visitor = np.repeat(np.arange(len(counts)), counts)
    position = np.arange(len(visitor)) - (np.cumsum(counts) - counts)[visitor]
    # Who looks at a thousand things makes longer visits, not a thousand visits.
    leave = np.maximum(LEAVE / np.sqrt(1 + counts / 20), 0.02)
    opens = (position == 0) | (rng.random(len(visitor)) < leave[visitor])
    session = np.cumsum(opens) - 1
    head = np.flatnonzero(opens)
    clock = np.cumsum(np.where(opens, 0.0, 10 * SECOND * 30 ** rng.random(len(visitor))))
    offset = clock - clock[head][session]
    length = offset[np.append(head[1:], len(visitor)) - 1]
    away = np.exp(rng.normal(np.log(PAUSE), PAUSE_SPREAD, len(head))) * (position[head] > 0)
    begins = _session_starts(visitor[head], length, away, rng)
    return Visits(
        visitor=visitor,
        position=position,
        session=session,
        away=np.where(opens, away[session], 0.0),
        at=(begins[session] + offset).astype(np.int64),
        week=(begins // WEEK).astype(np.int64)[session],
    )


def _session_starts(owner: Ints, length: Floats, away: Floats, rng: np.random.Generator) -> Floats:
    """[visits] when each visit begins, ms since `START`; owner is its visitor, length and away in ms."""
    first = np.searchsorted(owner, np.arange(owner[-1] + 1))
    last = np.append(first[1:], len(owner)) - 1
    again = np.ones(len(owner), dtype=np.bool_)
    again[first] = False
    firm = np.cumsum(np.where(again, np.roll(length, 1) + HOUR, 0.0))
    firm -= firm[first][owner]
    loose = np.cumsum(away)
    loose -= loose[first][owner]
    # Somebody who comes often comes at shorter intervals: all visits have to fit into the span.
    room = 0.95 * SPAN - firm[last] - length[last]
    offset = firm + loose * np.minimum(1.0, room / np.maximum(loose[last], 1.0))[owner]
    arrival = rng.random(len(first)) * (SPAN - offset[last] - length[last])
    return np.minimum(_rhythm(arrival[owner] + offset), SPAN - length - 4 * MINUTE)


def _rhythm(even: Floats) -> Floats:
    """[visits] times spread evenly over the span, ms, moved towards the evenings and the working week."""
    hour = np.arange(SPAN // HOUR)
    daily = 1 + 0.65 * np.cos(2 * np.pi * (hour + START // HOUR - 21) / 24)
    weekday = (START // DAY + 3 + (hour + 3) // 24) % 7
    busy = np.append(0.0, np.cumsum(daily * np.where(weekday >= 5, 0.85, 1.0)))
    moved: Floats = np.interp(even, busy * (SPAN / busy[-1]), np.append(hour, hour[-1] + 1) * float(HOUR))
    return moved
