"""The plain pandas way of preparing a single cut, at its best: Arrow's reader, no apply, no checks.

Writes what Nightjar writes of one cut: splits, encoders, histories, user and item features with the newest values of
the ten most frequent properties and of the three whose meaning is known.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

DAY = 86_400_000
CAP = 50
EVENTS = ("view", "addtocart", "transaction")
KNOWN = ["categoryid", "available", "790"]


def main(data: Path, out: Path) -> None:
    """Reads the files of `data` and writes into `out`."""
    events = _events(data)
    as_of = int(events["timestamp"].max()) + 1
    events["user"], users = pd.factorize(events["visitorid"])
    events["item"], items = pd.factorize(events["itemid"])
    events["code"] = events["event"].map({name: code for code, name in enumerate(EVENTS)}).astype("int8")
    pd.DataFrame({"visitorid": users}).to_parquet(out / "users.parquet")
    pd.DataFrame({"itemid": items}).to_parquet(out / "items.parquet")
    rows = events[["user", "item", "code", "timestamp"]].astype({"user": "int32", "item": "int32"})
    c1, c2 = (rows["timestamp"].iloc[int(share * len(rows))] for share in (0.70, 0.85))
    rows = rows.sort_values(["user", "timestamp", "item", "code"], ignore_index=True)
    bounds = {"train": (0, c1), "validation": (c1, c2), "test": (c2, as_of)}
    for part, (start, end) in bounds.items():
        rows[(rows["timestamp"] >= start) & (rows["timestamp"] < end)].to_parquet(out / f"{part}.parquet")
    _histories(rows).to_parquet(out / "histories.parquet")
    _users(rows).to_parquet(out / "user_features.parquet")
    features = _items(rows, as_of).join(_properties(data, items, as_of))
    features.to_parquet(out / "item_features.parquet")


def _events(data: Path) -> pd.DataFrame:
    found = pd.concat([pd.read_csv(path, engine="pyarrow") for path in sorted(data.glob("events*.csv"))])
    found = found.drop_duplicates()
    return found.sort_values(["timestamp", "visitorid", "itemid", "event"], ignore_index=True)


def _histories(rows: pd.DataFrame) -> pd.DataFrame:
    newest = rows[rows.groupby("user").cumcount(ascending=False) < CAP]
    return newest.groupby("user").agg({"item": list, "code": list, "timestamp": list})


def _users(rows: pd.DataFrame) -> pd.DataFrame:
    counts = rows.groupby(["user", "code"]).size().unstack(fill_value=0)
    more = rows.groupby("user").agg(items=("item", "nunique"), first=("timestamp", "min"), last=("timestamp", "max"))
    return counts.rename(columns=str).join(more)


def _items(rows: pd.DataFrame, as_of: int) -> pd.DataFrame:
    first: pd.Series[float] = ((as_of - rows.groupby("item")["timestamp"].min()) / DAY).rename("age_days")
    parts: list[pd.DataFrame | pd.Series[float]] = [first]
    for days in (1, 7, 14, 28, 100_000):
        recent = rows[rows["timestamp"] >= as_of - days * DAY]
        parts.append(recent.groupby(["item", "code"]).size().unstack(fill_value=0).add_prefix(f"{days}d_"))
    found = pd.concat(parts, axis=1).fillna(0)
    usual = found["100000d_2"].sum() / found["100000d_0"].sum()
    found["conversion"] = (found["100000d_2"] + 20 * usual) / (found["100000d_0"] + 20)
    return found


def _properties(data: Path, items: pd.Index[int], as_of: int) -> pd.DataFrame:
    files = sorted(data.glob("item_properties*.csv"))
    types = {"property": "str", "value": "str"}
    found = pd.concat([pd.read_csv(path, engine="pyarrow", dtype=types) for path in files], ignore_index=True)
    found = found[found["timestamp"] < as_of]
    frequent = found.loc[~found["property"].isin(KNOWN), "property"].value_counts().index[:10]
    found = found[found["property"].isin([*KNOWN, *frequent]) & found["itemid"].isin(items)]
    found = found.sort_values(["timestamp", "value"]).drop_duplicates(["itemid", "property"], keep="last")
    wide = found.pivot(index="itemid", columns="property", values="value")
    wide.index = items.get_indexer(wide.index)
    wide["790"] = pd.to_numeric(wide["790"].str.lstrip("n"), errors="coerce")
    return wide


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
