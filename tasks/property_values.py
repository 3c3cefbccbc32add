"""The adapter to the items' properties: the values that held as of each cut."""

from collections.abc import Iterator, Sequence

import polars as pl

from tasks.intake import AVAILABLE, CATEGORY, KNOWN_PROPERTIES, PRICE, Database
from tasks.recsys.interactions import Longs


def as_of_cuts(db: Database, items: Longs, cuts: Sequence[int], frequent: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """Each cut (UTC ms, ascending) with the items that have a property as of it, by dense id.

    items [items]: the encoder.  A value holds from its instant to the next one of the same item and property; of
    values of one instant the greatest counts.

    Columns: item; category and available, −1 where unknown; price, null where unknown; and as text property_… of the
    `frequent` properties with the most rows before the cut, besides those whose meaning is known.
    """
    chosen = _frequent(db, cuts, frequent)
    names = [*KNOWN_PROPERTIES, *sorted({name for one in chosen.values() for name in one})]
    _narrow(db, items, names)
    held = pl.DataFrame(schema={"item": pl.Int32, **dict.fromkeys(names, pl.String)})
    for start, cut in zip((0, *cuts), cuts, strict=False):
        held = held.update(_newest(db, names, start, cut), on="item", how="full").sort("item")
        yield cut, _typed(held, chosen[cut])
    db.execute("DROP TABLE held")


def _frequent(db: Database, cuts: Sequence[int], most: int) -> dict[int, list[str]]:
    """Cut → names of the properties with the most rows before it, ties by name."""
    stretch = "CASE " + " ".join(f"WHEN ts < {cut} THEN {at}" for at, cut in enumerate(cuts)) + " END"
    counts: pl.DataFrame = db.sql(
        f"SELECT property, {stretch} AS stretch, count(*) AS rows FROM properties "
        f"WHERE ok AND ts < {cuts[-1]} GROUP BY 1, 2"
    ).pl()
    others = counts.filter(~pl.col("property").is_in(KNOWN_PROPERTIES))
    found = {}
    for at, cut in enumerate(cuts):
        before = others.filter(pl.col("stretch") <= at).group_by("property").agg(pl.col("rows").sum())
        found[cut] = sorted(before.sort("rows", "property", descending=[True, False])["property"].head(most))
    return found


def _narrow(db: Database, items: Longs, names: Sequence[str]) -> None:
    """Makes `held` of `properties`: the rows of these properties and of the known items, both as numbers."""
    db.register("known", pl.DataFrame({"itemid": items}).with_row_index("item").to_arrow())
    db.execute(
        """CREATE TABLE held AS SELECT ts, item::INTEGER AS item, value,
            list_position($names, property)::SMALLINT - 1 AS property
        FROM properties JOIN known USING (itemid) WHERE ok AND property IN (SELECT unnest($names))""",
        {"names": list(names)},
    )
    db.execute("DROP TABLE properties")


def _newest(db: Database, names: Sequence[str], start: int, end: int) -> pl.DataFrame:
    """The last value of each property with start <= ts < end, one row an item."""
    columns = ", ".join(
        f"(max({{'ts': ts, 'value': value}}) FILTER (property = {at})).value AS {_quoted(name)}"
        for at, name in enumerate(names)
    )
    query = f"SELECT item, {columns} FROM held WHERE ts >= {start} AND ts < {end} GROUP BY item"
    table: pl.DataFrame = db.sql(query).pl()
    return table


def _typed(held: pl.DataFrame, frequent: Sequence[str]) -> pl.DataFrame:
    """The values as the types that features are made of."""
    return held.select(
        "item",
        pl.col(CATEGORY).cast(pl.Int32).fill_null(-1).alias("category"),
        pl.col(AVAILABLE).cast(pl.Int8).fill_null(-1).alias("available"),
        pl.col(PRICE).str.strip_chars_start("n").cast(pl.Float32, strict=False).alias("price"),
        *(pl.col(name).alias(f"property_{name}") for name in frequent),
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
