"""What visitors of the demo data may do in a window, for somebody who knows what the data are made from.

See `benchmarks.planted`, which orders items by it.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse, spatial

from tasks.recsys.synthetic import LIFE_WEEKS, START, WEEKS, DemoConfig, Floats, Ints, Part, Shop, stream
from tasks.recsys.synthetic_events import alive_popularity, chosen_blocks, looks_back, origins, replaced
from tasks.recsys.synthetic_visits import Visits, lay_out, view_counts

DRAWS = 100
"""Times that each visitor's window is drawn."""


@dataclass(frozen=True)
class Window:
    """What visitors may do in the window, on average."""

    returned: sparse.csr_array
    """[visitors, sold] chance that the visitor returns to the item"""
    met: Floats
    """[visitors, WEEKS] items that are new in mind, by the week in which they are met"""
    views: Floats
    """[visitors, WEEKS] views"""


@dataclass(frozen=True)
class Past:
    """What the asked visitors had looked at by the cut, as ragged rows."""

    start: Ints
    """[visitors + 1], row i is start[i]:start[i + 1]"""
    item: Ints
    """[views] index of the item; -1 where chance replaced what the visitor had in mind"""
    visit: Ints
    """[views] number of the visit"""
    week: Ints
    """[views] week in which the visit began"""
    at: Ints
    """[views] time since `START`, ms"""


def memories(shop: Shop, visitors: Ints, cut: int) -> Past:
    """What the visitors had looked at before the cut."""
    parts = []
    for number, block in enumerate(chosen_blocks(shop)):
        visits = block.visits
        asked = (visits.at < cut - START) & np.isin(block.first + visits.visitor, visitors)
        item = np.where(replaced(shop.config, len(asked), number), -1, block.item)
        rows = block.first + visits.visitor, item, visits.session, visits.week, visits.at
        parts.append([row[asked] for row in rows])
    who, *rest = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Past(np.searchsorted(who, np.append(visitors, visitors[-1] + 1)).astype(np.int64), *rest)


def drawn_views(shop: Shop, past: Past, cut: int, end: int) -> tuple[Visits, Ints]:
    """Past and drawn views, `DRAWS` times for each visitor, and the view in which each view's item was met.

    cut, end: UTC ms.  A visitor's row in the views is visitor * DRAWS + draw.
    """
    config = DemoConfig(scale=1, seed=shop.config.seed + 1)
    others = lay_out(view_counts(config), stream(config, Part.VISITS))
    now = np.flatnonzero((START + others.at >= cut) & (START + others.at < end))
    first, many = np.unique(others.visitor[now], return_index=True, return_counts=True)[1:]
    came = others.position[now[first]] > 0
    first, many = now[first[came]], many[came]
    like = alike(past, others.position[first], others.at[first - 1], cut - START)
    old = np.repeat(np.diff(past.start), DRAWS)
    total = old + many[like]
    visitor = np.repeat(np.arange(len(like)), total)
    position = np.arange(len(visitor)) - (np.cumsum(total) - total)[visitor]
    # Numbers of another's view; those for views of the past are not used.
    theirs = np.maximum(first[like] - old, 0)[visitor] + position
    views = Visits(visitor, position, visitor, *(getattr(others, name)[theirs] for name in ("away", "at", "week")))
    back = looks_back(views, np.random.default_rng(shop.config.seed))
    return views, origins(np.where(position < old[visitor], np.arange(len(visitor)), back))


def alike(past: Past, before: Ints, last: Ints, cut: int) -> Ints:
    """[visitors * DRAWS] numbers of the others who had looked about as often, and last about as long ago.

    before, last: [others] views before the cut, and the time of the last of them.
    """

    def place(views: Ints, at: Ints) -> Floats:
        # The number of views says more of what is to come: twice as many are as far away as eight times as long ago.
        return np.stack([3 * np.log(views), np.log(np.maximum(cut - at, 1))], axis=1)

    asked = place(np.diff(past.start), past.at[past.start[1:] - 1])
    like: Ints = spatial.cKDTree(place(before, last)).query(asked, k=DRAWS)[1].astype(np.int64).ravel()
    return like


def expected(shop: Shop, past: Past, views: Visits, source: Ints, week: int) -> Window:
    """What the drawn windows hold on average.  A return to what has died by then meets something else."""
    size, noise = (len(past.start) - 1, WEEKS), shop.config.noise
    visitor = views.visitor // DRAWS
    old = np.diff(past.start)[visitor]
    drawn = np.flatnonzero(views.position >= old)
    known = np.where(views.position < old, past.item[(past.start[visitor] + np.minimum(views.position, old - 1))], -1)
    who, when, item = visitor[drawn], np.maximum(views.week[drawn], week), known[source[drawn]]
    pair = np.where(item < 0, -1, views.visitor[drawn] * shop.sold + item)
    _, same = np.unique(pair, return_inverse=True)
    luck = np.random.default_rng(shop.config.seed + 1).random(same.max() + 1)[same]
    back = (item >= 0) & (luck < survival(shop, week)[when, item])
    # Views of the same thing: it shows unless chance replaces them all.
    thing = np.where(back, pair, -1 - np.where(item < 0, source[drawn], drawn))
    _, head, count = np.unique(thing, return_index=True, return_counts=True)
    shows, old_one = (1 - noise**count) / DRAWS, back[head]
    there, new = head[old_one], head[~old_one]
    met, looked = np.zeros(size), np.zeros(size)
    np.add.at(met, (who[new], when[new]), shows[~old_one])
    np.add.at(looked, (who, when), 1 / DRAWS)
    returned = sparse.coo_array((shows[old_one], (who[there], item[there])), shape=(size[0], shop.sold))
    return Window(returned.tocsr(), met, looked)


def survival(shop: Shop, week: int) -> Floats:
    """[WEEKS, sold] chance that an item is alive in a week from `week` on; 0 for what is not alive in `week`."""
    weeks = np.arange(WEEKS)[:, None]
    # An item lives for two weeks and then some more, exponentially.
    lived = np.exp(-np.maximum(weeks - shop.item_born[: shop.sold] - 1, 0) / LIFE_WEEKS)
    alive = (weeks >= week) & (alive_popularity(shop, week) > 0)
    chance: Floats = alive * lived / lived[week]
    return chance
