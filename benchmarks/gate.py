"""How often the gate is wrong: planted worse, equal and better challengers over 200 simulated nights, a slow decay.

python benchmarks/gate.py: a table, then one line of JSON.  A user's recall is drawn from a beta distribution about what
the user can reach, which model and baseline share; the gate is the product's, with its defaults.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tasks.recsys import gate, metrics
from tasks.recsys.gate import Facts, Record
from tasks.recsys.metrics import Doubles, Mean

NIGHTS = 200
USERS = (300, 20_000)
"""Warm users of a window: a small shop's, and those of a night at full Retailrocket size."""
LEVEL, SPREAD = 0.42, 0.3
"""Mean of what users can reach, and its standard deviation over users."""
BASELINE = 0.92
"""What the best simple method reaches of it."""
CHALLENGERS = {
    "worse, by 20 %": 0.8,
    "as the best simple method": BASELINE,
    "between the two": 0.96,
    "equal": 1.0,
    "better, by 5 %": 1.05,
}
"""Challenger → what it reaches of what the champions do."""
DECAY = 0.99
"""What each night of a slow decay keeps of the night before."""
NAME = "recall@50 of the blend"
SHOWN = Mean(0.02, 0.01, 0.03, 400)
"""A gain beyond doubt, in the place of what is not simulated."""


@dataclass(frozen=True)
class Rates:
    """How many of the nights were promoted."""

    challenger: str
    users: int
    nights: int
    promoted: int
    not_worse: int
    """not shown to be worse than the best simple method: what a gate would promote that asks for no more"""


def night(rng: np.random.Generator, users: int, quality: float, champions: list[Record]) -> Facts:
    """The gate's facts of a night whose models reach `quality` of the level."""
    can = _beta(rng, np.full(users, LEVEL), SPREAD)
    mine, simple = (_beta(rng, np.minimum(can * share, 0.98), 0.1) for share in (quality, BASELINE))
    seed = int(rng.integers(2**31))
    return Facts(
        as_of=len(champions) + 1,
        published_as_of=0,
        backfill=False,
        baseline="simple",
        suspect=(),
        blend_minus_baseline=metrics.paired(mine, simple, 200, seed),
        after_minus_before=SHOWN,
        coverage=1.0,
        min_coverage=0.99,
        distinct_lists=users,
        lists=users,
        figures={NAME: metrics.estimate(mine, 200, seed)},
        champions=champions,
    )


def _beta(rng: np.random.Generator, mean: Doubles, deviation: float) -> Doubles:
    """Values in 0 … 1 about each mean."""
    mean = np.clip(mean, 0.01, 0.99)
    weight = np.maximum(mean * (1 - mean) / deviation**2 - 1, 0.1)
    return rng.beta(mean * weight, (1 - mean) * weight)


def crowned(facts: Facts) -> Record:
    """The record that a promoted night leaves."""
    return Record(f"of night {facts.as_of}", facts.as_of, forced=False, figures=facts.figures)


def simulate(challenger: str, users: int, nights: int, seed: int) -> Rates:
    """Nights whose models reach a share of the level, each against 30 champions who reached all of it."""
    rng = np.random.default_rng(seed)
    champions = [crowned(night(rng, users, 1.0, [])) for _ in range(30)]
    facts = [night(rng, users, CHALLENGERS[challenger], champions) for _ in range(nights)]
    promoted = sum(gate.decide(one)[0] == "promoted" for one in facts)
    return Rates(challenger, users, nights, promoted, sum((one.blend_minus_baseline.high or 0) >= 0 for one in facts))


def decay(users: int, nights: int, seed: int, *, best: bool = True) -> int | None:
    """The first night that is held when each keeps `DECAY` of the night before; None: none is.

    `best` compares with the last 30 champions, as the product does; else with the last alone.
    """
    rng = np.random.default_rng(seed)
    champions: list[Record] = []
    for number in range(nights):
        facts = night(rng, users, DECAY**number, champions)
        # The floor, the best simple method, is left out: what remains is what the champions' records catch.
        facts = replace(facts, blend_minus_baseline=SHOWN)
        if gate.decide(facts)[0] == "held":
            return number
        champions = [*champions, crowned(facts)][-30 if best else -1 :]
    return None


def main() -> int:
    """Prints the rates."""
    rows = list(_rows())
    print(f"{'challenger':<28}{'users':>8}{'nights':>8}{'promoted':>10}{'not worse':>14}")
    for row in rows:
        shares = f"{row.promoted / row.nights:>10.1%}{row.not_worse / row.nights:>14.1%}"
        print(f"{row.challenger:<28}{row.users:>8,}{row.nights:>8}{shares}")
    held = {f"{users}": (decay(users, NIGHTS, 1), decay(users, NIGHTS, 1, best=False)) for users in USERS}
    for count, (best, last) in held.items():
        print(f"decay by 1 % a night, {count} users: held at night {best}; against the last champion alone: {last}")
    print(json.dumps({"rates": [vars(row) for row in rows], "decay_held_at_night": held}))
    return 0


def _rows() -> Iterator[Rates]:
    for users in USERS:
        for challenger in CHALLENGERS:
            yield simulate(challenger, users, NIGHTS, seed=1)


if __name__ == "__main__":
    sys.exit(main())
