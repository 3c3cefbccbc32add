"""What the visitors of the made-up shop look at, come back to, put into the cart and buy.

Everything is drawn for a block of visitors at a time: memory does not grow with the number of visitors.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.recsys.synthetic import (
    DAY,
    MINUTE,
    SECOND,
    START,
    WEEKS,
    Bools,
    DemoConfig,
    Floats,
    Ints,
    Part,
    Shop,
    stream,
)
from tasks.recsys.synthetic_visits import Visits, lay_out, view_counts

VISITORS_A_BLOCK = 131_072
KINDS = pl.Series(["view", "addtocart", "transaction"])

TASTES = (0.75, 0.18, 0.07)
"""Chance that a visit is about the visitor's first, second or third taste."""
SECOND_IS_PARTNER = 0.5
COMPLEMENT, WANDER = 0.12, 0.05
"""Chances that a newly met item complements the visit's cluster, or is anything that is popular."""
RETURN_NOW, RETURN_LATER, RETURN_HALVES = 0.34, 0.70, 30.0 * DAY
"""Chance to look at a known item again: within a visit; on coming back at once, halved every so many ms."""
DRIFT_KEPT, DRIFT_STEP, OUT_OF_STOCK = 0.8, 0.35, 0.15
"""Share of a rise or fall kept a week later, spread of what is added; weight of what is out of stock."""
KEENNESS = 0.8
"""Spread between visitors, as a logarithm, of the chance to put an item into the cart."""
CART, CART_ON_RETURN, BUY_VISIT, BUY_ITEM = 0.0205, 2.5, 0.41, 0.8
"""That chance, how many times more likely on coming back; chances that a visit with a cart buys, and that it
then takes an item of it."""


@dataclass(frozen=True)
class Odds:
    """Running sums of the items' weights by week and cluster: a draw is one search in them."""

    running: Floats
    """[WEEKS * sold + 1] sum of the weights before each item of each week."""
    first_sold: Ints
    """[clusters + 1] as in `Shop`."""

    def draw(self, week: Ints, cluster: Ints, uniform: Floats) -> Ints:
        """[draws] an item alive in `week`, of `cluster`, or of any if the cluster is -1 or has none alive."""
        sold = self.first_sold[-1]
        start = week * sold
        low = self.running[start + self.first_sold[cluster]]
        high = self.running[start + self.first_sold[cluster + 1]]
        anything = (cluster < 0) | (high <= low)
        low = np.where(anything, self.running[start], low)
        high = np.where(anything, self.running[start + sold], high)
        # A sum rounded up to `high` would be the next cluster's item.
        target = np.minimum(low + uniform * (high - low), np.nextafter(high, low))
        item: Ints = np.searchsorted(self.running, target, side="right") - 1 - start
        return item


@dataclass(frozen=True)
class Chosen:
    """The views of a block of visitors as these meant them, before chance replaces its share."""

    first: int
    """visitorid of the block's first visitor"""
    visits: Visits
    """When they looked."""
    tastes: Ints
    """[visitors, 3] clusters that they like, best first."""
    item: Ints
    """[views] the item of each view."""
    again: Bools
    """[views] whether the visitor has come back to it."""


def event_blocks(shop: Shop) -> Iterator[pl.DataFrame]:
    """The rows of events.csv, a block of visitors at a time; rows of a block are in the order of time."""
    chance = fixed_odds(shop)
    baskets = 0
    for block, chosen in enumerate(chosen_blocks(shop)):
        visits = chosen.visits
        steps = funnel(visits, chosen.item, chosen.again, stream(shop.config, Part.FUNNEL, block))
        item = replace_by_chance(shop, chance, chosen.item[steps.view], visits.week[steps.view], block)
        yield pl.DataFrame(
            {
                "timestamp": START + steps.at,
                "visitorid": chosen.first + visits.visitor[steps.view],
                "event": KINDS.gather(steps.kind),
                "itemid": shop.item_id[item],
                "transactionid": pl.Series(steps.basket + baskets).set(pl.Series(steps.basket < 0), None),
            }
        ).sort("timestamp", maintain_order=True)
        baskets += int(steps.basket.max()) + 1


def chosen_blocks(shop: Shop) -> Iterator[Chosen]:
    """What the visitors have in mind, a block of visitors at a time."""
    counts, odds = view_counts(shop.config), drifting_odds(shop)
    for block, first in enumerate(range(0, len(counts), VISITORS_A_BLOCK)):
        visits = lay_out(counts[first : first + VISITORS_A_BLOCK], stream(shop.config, Part.VISITS, block))
        tastes = draw_tastes(shop, block, int(visits.visitor[-1]) + 1)
        yield Chosen(first, visits, tastes, *choose_items(shop, odds, visits, tastes, block))


def drifts(shop: Shop) -> Floats:
    """[WEEKS, sold] how far each item is above or below its usual popularity, as a logarithm."""
    rng = stream(shop.config, Part.DRIFT)
    drift = np.zeros((WEEKS + 1, shop.sold))
    for week in range(WEEKS):
        drift[week + 1] = DRIFT_KEPT * drift[week] + DRIFT_STEP * rng.standard_normal(shop.sold)
    return drift[1:]


def drifting_odds(shop: Shop) -> Odds:
    """Odds of an item for somebody with a taste: popularity that drifts from week to week, stock and life."""
    stock = np.where(shop.available[:, : shop.sold], 1.0, OUT_OF_STOCK)
    alive = np.stack([alive_popularity(shop, week) for week in range(WEEKS)])
    return odds_of(shop, alive * stock * np.exp(drifts(shop)))


def fixed_odds(shop: Shop) -> Odds:
    """Odds of an item when chance alone decides: one popularity for all weeks, over the items alive."""
    return odds_of(shop, np.stack([alive_popularity(shop, week) for week in range(WEEKS)]))


def draw_tastes(shop: Shop, block: int, visitors: int) -> Ints:
    """[visitors, 3] clusters that each visitor of the block likes, best first."""
    rng = stream(shop.config, Part.TASTES, block)
    tastes = rng.choice(len(shop.cluster_appeal), size=(visitors, len(TASTES)), p=shop.cluster_appeal)
    related = rng.random(visitors) < SECOND_IS_PARTNER
    tastes[:, 1] = np.where(related, shop.cluster_partner[tastes[:, 0]], tastes[:, 1])
    return tastes


@dataclass(frozen=True)
class Steps:
    """The events of a block: each view, then the carts, then the lines of the baskets."""

    view: Ints
    """[events] number of the view that the event stems from."""
    kind: Ints
    """[events] number in `KINDS`."""
    at: Ints
    """[events] time since `START`, ms."""
    basket: Ints
    """[events] number of the basket in the block; -1 for what is no transaction."""


def choose_items(shop: Shop, odds: Odds, visits: Visits, tastes: Ints, block: int) -> tuple[Ints, Bools]:
    """[views] the item of each view, and whether the visitor has come back to it."""
    rng = stream(shop.config, Part.CHOICES, block)
    views = len(visits.visitor)
    pick = np.searchsorted(np.cumsum(TASTES), rng.random(visits.session[-1] + 1) * (1 - 1e-9))[visits.session]
    cluster = tastes[visits.visitor, pick]
    turn = rng.random(views)
    cluster = np.where(turn < COMPLEMENT, shop.cluster_partner[cluster], cluster)
    cluster = np.where(turn > 1 - WANDER, -1, cluster)
    met = odds.draw(visits.week, cluster, rng.random(views))
    source = origins(looks_back(visits, rng))
    item = met[source]
    # What has died meanwhile cannot be looked at again.
    dead = visits.week >= shop.item_dies[item]
    item = np.where(dead, met, item)
    return item, (source != np.arange(views)) & ~dead


def funnel(visits: Visits, item: Ints, again: Bools, rng: np.random.Generator) -> Steps:
    """What follows from the views: item [views], and whether the visitor has come back to it, again [views].

    Carts follow a view within a minute; a visit that buys takes most of its cart in one basket at its end.
    """
    keen = np.exp(rng.normal(-KEENNESS * KEENNESS / 2, KEENNESS, visits.visitor[-1] + 1))
    chance = CART * keen[visits.visitor] * np.where(again, CART_ON_RETURN, 1.0)
    cart = np.flatnonzero(rng.random(len(item)) < chance)
    # An item is put into the cart once a visit: a basket has no line twice.
    cart = cart[np.unique(visits.session[cart] * (item.max() + 1) + item[cart], return_index=True)[1]]
    cart_at = visits.at[cart] + rng.integers(5 * SECOND, MINUTE, len(cart))
    buys = rng.random(visits.session[-1] + 1) < BUY_VISIT
    bought = buys[visits.session[cart]] & (rng.random(len(cart)) < BUY_ITEM)
    _, first, basket = np.unique(visits.session[cart[bought]], return_index=True, return_inverse=True)
    latest = np.maximum.reduceat(cart_at[bought], first) if len(first) else first
    paid_at = latest + rng.integers(30 * SECOND, 2 * MINUTE, len(first))
    lines = (len(item), len(cart), len(basket))
    return Steps(
        view=np.concatenate([np.arange(len(item)), cart, cart[bought]]),
        kind=np.repeat([0, 1, 2], lines),
        at=np.concatenate([visits.at, cart_at, paid_at[basket]]),
        basket=np.concatenate([np.full(len(item) + len(cart), -1), basket]),
    )


def replace_by_chance(shop: Shop, chance: Odds, item: Ints, week: Ints, block: int) -> Ints:
    """[events] the items, of which the share `noise` is drawn anew, whoever the visitor."""
    rng = stream(shop.config, Part.CHANCE, block)
    hit = np.flatnonzero(rng.random(len(item)) < shop.config.noise)
    changed = item.copy()
    changed[hit] = chance.draw(week[hit], np.full(len(hit), -1), rng.random(len(hit)))
    return changed


def replaced(config: DemoConfig, views: int, block: int) -> Bools:
    """[views] whether `replace_by_chance` replaces the item of a view of the block; views are its first events."""
    return stream(config, Part.CHANCE, block).random(views) < config.noise


def alive_popularity(shop: Shop, week: int) -> Floats:
    """[sold] popularity of the items alive in the week, 0 for the others."""
    alive = (shop.item_born <= week) & (week < shop.item_dies)
    weight: Floats = (shop.item_popularity * alive)[: shop.sold]
    return weight


def odds_of(shop: Shop, weight: Floats) -> Odds:
    """Odds from the weights [WEEKS, sold] of the items."""
    running = np.zeros(weight.size + 1)
    np.cumsum(weight, out=running[1:])
    return Odds(running, shop.first_sold)


def looks_back(visits: Visits, rng: np.random.Generator) -> Ints:
    """[views] the earlier view of the same visitor whose item is looked at again, else the view itself."""
    views = len(visits.visitor)
    returns = np.where(visits.away > 0, RETURN_LATER * 0.5 ** (visits.away / RETURN_HALVES), RETURN_NOW)
    returns = np.where(visits.position > 0, returns, 0.0)
    # Half of the returns are to the last view, a third to one of the two before it, and so on.
    back = np.floor(1 / (1 - rng.random(views)))
    anywhere = 1 + np.floor(rng.random(views) * visits.position)
    back = np.where(back > visits.position, anywhere, back).astype(np.int64)
    source: Ints = np.arange(views) - np.where(rng.random(views) < returns, back, 0)
    return source


def origins(source: Ints) -> Ints:
    """[views] where the chain of returns that leads to each view began: its source's source, and so on."""
    # Halve the chains until all end.
    while not np.array_equal(further := source[source], source):
        source = further
    return source
