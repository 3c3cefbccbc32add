"""What the made-up shop writes down of its items: weekly snapshots of which only changes are kept.

An item's first snapshot lists all its properties; later ones list a property only when its value is another.
Values are numbers into one vocabulary of strings, so that no string is built twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.recsys.synthetic import SNAPSHOTS, START, WEEK, Bools, Ints, Part, Shop, stream

ITEMS_A_BLOCK = 16_384

NAMES = ("categoryid", "available", "790", "888", "6", "283", "776", "678", "364", "202")
"""Properties that every category has, the most frequent ones of the real files.  790 is the price."""
CATEGORY, AVAILABLE, PRICE = 0, 1, 2
TEXTS = (3, 5)
"""Rows of `NAMES` whose value is a text of several hashed words."""
CHANGES = (0.03, 0.0, 0.58, 0.69, 0.07, 0.05, 0.04, 0.02, 0.02, 0.01)
"""Chance of a new value a week, for each of `NAMES`; stock has its own course."""

DETAILS, DETAIL_NAMES = 28, 39
"""Properties of its category that an item may have, each one of so many names: some 1,100 names in all."""
DETAIL_SHARE, DETAIL_CHANGE = 0.8, 0.008
TYPICAL = 0.7
"""Share of hashed values that are what most items of the cluster have."""

LADDER = 1_100
"""Prices that exist.  A change of price climbs or falls a few rungs of about 0.6 % each."""
WORDS, NUMBERS, SENTENCES = 20_000, 4_000, 30_000


@dataclass(frozen=True)
class Vocabulary:
    """Every string that the property files may contain, by number."""

    names: pl.Series
    """Property names: `NAMES`, then `DETAIL_NAMES` for each of the details."""
    values: pl.Series
    """Values: 0, 1, the categories, the prices, words, numbers, texts."""
    prices: int
    """Number of the lowest price; the categories end here."""

    @property
    def words(self) -> int:
        """Number of the first word; the prices end here."""
        return self.prices + LADDER


def make_vocabulary(shop: Shop) -> Vocabulary:
    """All names and values, hashed as in the real files: words are numbers, numbers begin with an n."""
    rng = stream(shop.config, Part.VOCABULARY)
    hashed = rng.permutation(1_200)[: DETAILS * DETAIL_NAMES + len(NAMES)]
    details = [str(name) for name in hashed if str(name) not in NAMES][: DETAILS * DETAIL_NAMES]
    words = [str(word) for word in rng.permutation(1_330_000)[:WORDS]]
    numbers = [f"n{number}.000" for number in 12 * rng.permutation(50_000)[:NUMBERS]]
    tokens = np.array(words + numbers)
    sizes = rng.integers(2, 8, SENTENCES)
    spoken = tokens[rng.integers(len(tokens), size=int(sizes.sum()))]
    texts = [" ".join(part) for part in np.split(spoken, np.cumsum(sizes)[:-1])]
    steps = np.round(40 * 1.006 ** np.arange(LADDER)).astype(np.int64)
    # Low rungs would round to the same price: each is at least one step above the one below.
    rungs = np.maximum.accumulate(steps - np.arange(LADDER)) + np.arange(LADDER)
    prices = [f"n{120 * rung}.000" for rung in rungs]
    categories = [str(category) for category in shop.category_id]
    values = ["0", "1", *categories, *prices, *words, *numbers, *texts]
    return Vocabulary(pl.Series([*NAMES, *details]), pl.Series(values), 2 + len(categories))


def property_blocks(shop: Shop) -> Iterator[pl.DataFrame]:
    """The rows of the two property files, a block of items at a time; the rows of a block are mixed."""
    vocabulary = make_vocabulary(shop)
    known = np.flatnonzero(shop.item_has_properties)
    for block, first in enumerate(range(0, len(known), ITEMS_A_BLOCK)):
        items = known[first : first + ITEMS_A_BLOCK]
        rng = stream(shop.config, Part.PROPERTIES, block)
        changed, born = changes(shop, items, rng)
        row, slot, look = (index.astype(np.int64) for index in np.nonzero(changed))
        value = hashed_values(shop, vocabulary, items[row], slot, look == born[row], rng)
        for special, values in (
            (CATEGORY, _category_values(shop, items, changed[:, CATEGORY], born)),
            (AVAILABLE, shop.available[1 : SNAPSHOTS + 1, items].T.astype(np.int64)),
            (PRICE, vocabulary.prices + _rungs(shop, items, changed[:, PRICE], born, rng)),
        ):
            rows = slot == special
            value[rows] = values[row[rows], look[rows]]
        mixed = rng.permutation(len(row))
        yield pl.DataFrame(
            {
                "timestamp": START + (look[mixed] + 1) * WEEK,
                "itemid": shop.item_id[items[row[mixed]]],
                "property": vocabulary.names.gather(_names(shop, items[row], slot)[mixed]),
                "value": vocabulary.values.gather(value[mixed]),
            }
        )


def changes(shop: Shop, items: Ints, rng: np.random.Generator) -> tuple[Bools, Ints]:
    """[items, properties, SNAPSHOTS] whether a row is written; [items] the first snapshot of each."""
    rate = np.array([*CHANGES, *[DETAIL_CHANGE] * DETAILS], dtype=np.float32)
    shape = (len(items), len(rate), SNAPSHOTS)
    born = np.maximum(shop.item_born[items] - 1, 0)
    look = np.arange(SNAPSHOTS)
    living = (look > born[:, None]) & (look + 1 < shop.item_dies[items, None])
    changed = (rng.random(shape, dtype=np.float32) < rate[:, None]) & living[:, None, :]
    stock = shop.available[: SNAPSHOTS + 1, items].T
    changed[:, AVAILABLE] = (stock[:, 1:] != stock[:, :-1]) & (look > born[:, None])
    changed[np.arange(len(items)), :, born] = True
    has = rng.random(shape[:2]) < np.where(np.arange(len(rate)) < len(NAMES), 1.0, DETAIL_SHARE)
    return changed & has[:, :, None], born


def hashed_values(
    shop: Shop, vocabulary: Vocabulary, item: Ints, slot: Ints, opens: Bools, rng: np.random.Generator
) -> Ints:
    """[rows] numbers of values that tell the cluster to who looks at many of them.

    item, slot: [rows] item and property, in runs of one property of one item; opens: [rows] a run begins.
    """
    run = np.cumsum(opens) - 1
    head = np.flatnonzero(opens)
    text = np.isin(slot, TEXTS)
    size = np.where(text, SENTENCES, WORDS + NUMBERS)
    typical = _mix(shop.item_cluster[item[head]], slot[head])
    own = rng.integers(1 << 30, size=len(head))
    start = np.where(rng.random(len(head)) < TYPICAL, typical, own)[run]
    # Each change is one further in the vocabulary: never the value that was there before.
    turn = np.arange(len(slot)) - head[run]
    values: Ints = vocabulary.words + np.where(text, WORDS + NUMBERS, 0) + (start + turn) % size
    return values


def _category_values(shop: Shop, items: Ints, changed: Bools, born: Ints) -> Ints:
    """[items, SNAPSHOTS] the leaf category, or the one above it after every other change."""
    leaf = shop.cluster_category[shop.item_cluster[items]]
    turn = np.cumsum(changed & (np.arange(SNAPSHOTS) > born[:, None]), axis=1)
    values: Ints = 2 + np.where(turn % 2 == 0, leaf[:, None], shop.category_parent[leaf][:, None])
    return values


def _rungs(shop: Shop, items: Ints, changed: Bools, born: Ints, rng: np.random.Generator) -> Ints:
    """[items, SNAPSHOTS] price of each item as a rung of the ladder; clusters have their price level."""
    usual = _mix(shop.item_cluster[items], np.full(len(items), PRICE)) % 700
    level = 110 + usual + rng.integers(0, 170, len(items))
    shape = changed.shape
    step = rng.integers(1, 7, shape) * (2 * rng.integers(0, 2, shape) - 1)
    step[~changed | (np.arange(SNAPSHOTS) <= born[:, None])] = 0
    rungs: Ints = level[:, None] + np.cumsum(step, axis=1)
    return rungs


def _names(shop: Shop, item: Ints, slot: Ints) -> Ints:
    """[rows] number of the property name: details are called differently from category to category."""
    detail = slot - len(NAMES)
    category = shop.cluster_category[shop.item_cluster[item]]
    named = len(NAMES) + detail * DETAIL_NAMES + _mix(category, slot) % DETAIL_NAMES
    return np.where(detail < 0, slot, named)


def _mix(left: Ints, right: Ints) -> Ints:
    """[rows] a number below 2 ** 31 that looks random but is the same for the same pair."""
    mixed = (left * 40_503 + right * 2_246_822_519 + 374_761_393) & 0xFFFF_FFFF
    mixed = ((mixed ^ (mixed >> 15)) * 668_265_263) & 0xFFFF_FFFF
    spread: Ints = (mixed ^ (mixed >> 13)) & 0x7FFF_FFFF
    return spread
