"""A made-up shop whose tastes are known: the catalogue, its categories and its weeks.

Sizes and proportions are those of the public Retailrocket data at scale 1.  Items belong to clusters: small
sets of substitutes that one taste chooses among.  `synthetic_visits` says when visitors come,
`synthetic_events` what they do, `synthetic_properties` what the shop knows of its items.  Every part draws
from its own random stream, so that no part's draws depend on how another part, or a thread, got on.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SECOND, MINUTE, HOUR, DAY, WEEK = 1_000, 60_000, 3_600_000, 86_400_000, 604_800_000
START = int(datetime(2015, 5, 3, 3, tzinfo=UTC).timestamp()) * SECOND
SPAN = int(datetime(2015, 9, 18, 3, tzinfo=UTC).timestamp()) * SECOND - START
WEEKS = math.ceil(SPAN / WEEK)
"""Weeks that begin within the span, counted from `START`: 20."""
SNAPSHOTS = 18
"""Weekly looks at the catalogue, on the Sundays that begin weeks 1 to 18."""

FULL_VISITORS, FULL_ITEMS, FULL_CATEGORIES = 1_407_580, 466_867, 1_669
FULL_SOLD = 270_000
"""Items that anybody may meet at scale 1; some 235,000 of them are met in the end."""
NO_PROPERTIES = 0.1845
"""Share of the sold items that the property files do not know, as in the real files."""

ALIVE_IN_A_CLUSTER = 32
"""Items of a cluster alive at a time, on average: fewer than the 50 of recall@50, more than a page shows."""
ALIVE_SHARE = 0.48
"""Share of the sold items alive in a week, which follows from the two below."""
BORN_BEFORE, LIFE_WEEKS = 0.5, 14.0
"""Share of items there from the start; mean of what an item lives beyond two weeks."""
SELLS_OUT, COMES_BACK = 0.22, 0.44
"""Chances a week that what is in stock is so no longer, and that what is not comes back."""
ZIPF = 0.65
"""Popularity falls as rank ** -ZIPF inside a cluster: the flat Zipf curve of a shop with a long tail."""


class Part(IntEnum):
    """The random streams, one for each part of the data."""

    TREE = 0
    CLUSTERS = 1
    ITEMS = 2
    AVAILABILITY = 3
    DRIFT = 4
    COUNTS = 5
    TASTES = 6
    VISITS = 7
    CHOICES = 8
    FUNNEL = 9
    CHANCE = 10
    VOCABULARY = 11
    PROPERTIES = 12


@dataclass(frozen=True)
class DemoConfig:
    """What the demo data is made from: the same three values give the same bytes."""

    scale: float = 0.02
    """Size against the real data: events, visitors, items and property rows grow linearly.  0.001 to 10."""
    noise: float = 0.0
    """Share of events whose item chance alone draws, whoever the visitor is.  0: all structure, 1: none."""
    seed: int = 7
    """Chooses the shop and everything in it."""

    def __post_init__(self) -> None:
        if not 0.001 <= self.scale <= 10:
            raise ValueError(f"scale is {self.scale}, expected 0.001 to 10")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise is {self.noise}, expected 0 to 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, expected 0 or more")

    def sized(self, full: int) -> int:
        """How many of something there are, when there are `full` of it at scale 1."""
        return round(full * self.scale)


@dataclass(frozen=True)
class Shop:
    """The catalogue.  Items are numbered by cluster, the sold ones first; ids are what the files show."""

    config: DemoConfig
    """What it was made from."""
    category_id: Ints
    """[categories] id of each category."""
    category_parent: Ints
    """[categories] index of the parent; a root is its own parent."""
    cluster_category: Ints
    """[clusters] index of the leaf category that a cluster is in; a leaf may hold several clusters."""
    cluster_appeal: Floats
    """[clusters] share of tastes that are for the cluster."""
    cluster_partner: Ints
    """[clusters] the cluster whose items complement this one's."""
    first_sold: Ints
    """[clusters + 1] index of each cluster's first sold item; the last is the number of sold items."""
    item_id: Ints
    """[items] id of each item."""
    item_cluster: Ints
    """[items] cluster of each item."""
    item_popularity: Floats
    """[items] weight of an item among everything alive."""
    item_born: Ints
    """[items] week in which the item can first be met."""
    item_dies: Ints
    """[items] week in which the item can no longer be met: it lives for born <= week < dies."""
    item_has_properties: Bools
    """[items] whether the property files know the item."""
    available: Bools
    """[WEEKS, items] in stock during the week.  Out of stock is met less often, dead is never in stock."""

    @property
    def sold(self) -> int:
        """Number of items that may be met at all."""
        return int(self.first_sold[-1])


def stream(config: DemoConfig, part: Part, block: int = 0) -> np.random.Generator:
    """The random numbers of one part of the data, block by block, whatever else has been drawn."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=(part, block))))


def make_shop(config: DemoConfig) -> Shop:
    """Build the catalogue: tree, clusters, items, lives and stock."""
    category_id, parent = _tree(config)
    category, appeal, partner = _clusters(config, parent)
    rng = stream(config, Part.ITEMS)
    items, sold = config.sized(FULL_ITEMS), config.sized(FULL_SOLD)
    cluster = rng.integers(len(appeal), size=items)
    cluster[:sold].sort()
    born, dies = _lives(items, rng)
    return Shop(
        config=config,
        category_id=category_id,
        category_parent=parent,
        cluster_category=category,
        cluster_appeal=appeal,
        cluster_partner=partner,
        first_sold=np.searchsorted(cluster[:sold], np.arange(len(appeal) + 1)).astype(np.int64),
        item_id=rng.permutation(items).astype(np.int64),
        item_cluster=cluster,
        item_popularity=appeal[cluster] * (1 - rng.random(items)) ** -ZIPF,
        item_born=born,
        item_dies=dies,
        item_has_properties=(np.arange(items) >= sold) | (rng.random(items) >= NO_PROPERTIES),
        available=_stock(born, dies, stream(config, Part.AVAILABILITY)),
    )


def life_ms(shop: Shop) -> tuple[Ints, Ints]:
    """[items] first and last-but-excluded instant of each item's life, UTC ms.

    A visit is dated by the week in which it began, and none lasts a day: hence the day of grace.
    """
    return START + shop.item_born * WEEK, START + shop.item_dies * WEEK + DAY


def category_tree(shop: Shop) -> pl.DataFrame:
    """The rows of category_tree.csv; a root has no parent."""
    parent = shop.category_id[shop.category_parent]
    root = shop.category_parent == np.arange(len(parent))
    frame = pl.DataFrame({"categoryid": shop.category_id, "parentid": parent})
    return frame.with_columns(pl.when(pl.Series(~root)).then(pl.col("parentid")).alias("parentid"))


def _tree(config: DemoConfig) -> tuple[Ints, Ints]:
    """Ids and parents of the categories: each hangs below one of the first third, the rest are leaves."""
    rng = stream(config, Part.TREE)
    count = max(50, config.sized(FULL_CATEGORIES))
    roots = max(4, count // 67)
    index = np.arange(count)
    parent = np.where(index < roots, index, rng.integers(0, np.maximum(roots, index // 3)))
    # The real ids have gaps too: categories that no longer exist.
    return rng.permutation(count + count // 50)[:count].astype(np.int64), parent.astype(np.int64)


def _clusters(config: DemoConfig, parent: Ints) -> tuple[Ints, Floats, Ints]:
    """[clusters] leaf category, share of tastes and complementing cluster."""
    rng = stream(config, Part.CLUSTERS)
    count = max(6, round(config.sized(FULL_SOLD) * ALIVE_SHARE / ALIVE_IN_A_CLUSTER))
    leaves = rng.permutation(np.setdiff1d(np.flatnonzero(parent != np.arange(len(parent))), parent))
    appeal = np.exp(rng.normal(0, 0.4, count))
    ring = rng.permutation(count)
    partner = np.empty(count, dtype=np.int64)
    partner[ring] = np.roll(ring, 1)
    return leaves[np.arange(count) % len(leaves)].astype(np.int64), appeal / appeal.sum(), partner


def _lives(items: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """[items] week of birth and of death: half are there at the start, the others come later."""
    born = np.where(rng.random(items) < BORN_BEFORE, 0, rng.integers(1, SNAPSHOTS + 1, items))
    weeks = 2 + np.floor(rng.exponential(LIFE_WEEKS, items)).astype(np.int64)
    return born, np.minimum(born + weeks, WEEKS)


def _stock(born: Ints, dies: Ints, rng: np.random.Generator) -> Bools:
    """[WEEKS, items] a chain with two states: what is in stock mostly stays so, what is not comes back."""
    available = np.empty((WEEKS, len(born)), dtype=np.bool_)
    state = rng.random(len(born)) < COMES_BACK / (SELLS_OUT + COMES_BACK)
    for week in range(WEEKS):
        draw = rng.random(len(born), dtype=np.float32)
        state = np.where(state, draw >= SELLS_OUT, draw < COMES_BACK)
        available[week] = state & (born <= week) & (week < dies)
    return available
