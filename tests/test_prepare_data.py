"""Preparation on real files: exact in time, the same bytes whatever the files look like, and hard to fool."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks import dataset_files, storage
from tasks.contracts import Dataset
from tasks.failures import BadConfig, BadData, TaskFailure
from tasks.recsys.interactions import DAY
from tests.world import EVENTS_HEADER, Home, MakeInput, Row, lines, ms

START = ms("2015-06-01")
SHARED = Path(__file__).parents[2] / "shared" / "data"


def shop(days: int = 40) -> list[Row]:
    """Twenty visitors who come every day or so: timestamp, visitorid, event, itemid, transactionid."""
    rng = random.Random(3)
    return [
        (START + day * DAY + rng.randrange(DAY), 1000 + visitor, "view", 50 + rng.randrange(30), "")
        for day in range(days)
        for visitor in range(20)
        if rng.random() < 0.5
    ]


def prepare(home: Home, data: Path, **config: Any) -> Dataset:
    context = config.pop("context", {})
    dataset: Dataset = home.run("prepare_data", {"data": str(data), "max_data_age_days": 3650, **config}, **context)
    return dataset


def refused(home: Home, data: Path, **config: Any) -> str:
    """The message of the failure, which must be one of bad data; nothing may have been stored."""
    with pytest.raises(TaskFailure) as failure:
        prepare(home, data, **config)
    assert failure.value.exit_code == BadData.exit_code
    assert not home.artifacts
    return str(failure.value)


def test_splits_by_the_cuts_and_encodes_in_order_of_first_appearance(home: Home, make_input: MakeInput) -> None:
    rows = sorted(shop(), key=str)
    dataset = prepare(home, make_input("data", rows))
    folder = home.stored(dataset)
    c1, c2 = (int(str(rows[int(share * len(rows))][0])) for share in (0.70, 0.85))
    assert (dataset.first_cut, dataset.second_cut, dataset.as_of) == (c1, c2, int(str(rows[-1][0])) + 1)
    parts = {part: storage.read_table(folder / part)["time"] for part in dataset_files.PARTS}
    assert parts["train"].max() < c1 <= parts["validation"].min()  # type: ignore[operator]
    assert parts["validation"].max() < c2 <= parts["test"].min()  # type: ignore[operator]
    assert sum(len(part) for part in parts.values()) == dataset.events == len(rows)
    items = storage.read_table(folder / "items.parquet")["itemid"].to_list()
    assert items == list(dict.fromkeys(int(str(row[3])) for row in rows))


def test_what_comes_at_or_after_as_of_changes_no_byte(home: Home, make_input: MakeInput) -> None:
    early, as_of = shop(), START + 40 * DAY
    properties: list[Row] = [(START, 50, "categoryid", 7), (as_of - 1, 50, "790", "n12.000")]
    late: list[Row] = [(as_of + step, 9999 - step, "transaction", 40 + step, step) for step in range(200)]
    later: list[Row] = [(as_of, 50, "categoryid", 8), (as_of + DAY, 51, "available", 0)]
    instant = "2015-07-11T00:00:00Z"
    assert ms("2015-07-11") == as_of
    without = prepare(home, make_input("without", early, properties), as_of=instant)
    with_more = prepare(home, make_input("with", late + early, later + properties), as_of=instant)
    assert with_more.digest == without.digest
    assert with_more.input_digest != without.input_digest


def test_the_same_rows_give_the_same_bytes_in_whatever_files(home: Home, make_input: MakeInput) -> None:
    rows = shop()
    plain = prepare(home, make_input("plain", rows))
    shuffled = random.Random(1).sample(rows, len(rows))
    halves = make_input("halves", shuffled[:100])
    (halves / "events_2.csv.gz").write_bytes(gzip.compress((EVENTS_HEADER + lines(shuffled[100:])).encode()))
    parquet = make_input("parquet", [])
    (parquet / "events.csv").unlink()
    names = EVENTS_HEADER.strip().split(",")
    pl.DataFrame([tuple(map(str, row)) for row in rows], schema=names, orient="row").write_parquet(
        parquet / "events.parquet"
    )
    assert prepare(home, halves).digest == plain.digest
    assert prepare(home, parquet).digest == plain.digest


def test_a_property_holds_from_its_instant_and_strictly_before_the_cut(home: Home, make_input: MakeInput) -> None:
    rows = sorted(shop(), key=str)
    c1 = int(str(rows[int(0.70 * len(rows))][0]))
    item = int(str(rows[0][3]))
    properties: list[Row] = [
        (c1 - 5, item, "categoryid", 1),
        (c1 - 1, item, "categoryid", 2),
        (c1, item, "categoryid", 3),
        (c1, item, "available", 0),
    ]
    dataset = prepare(home, make_input("data", rows, properties))
    folder = home.stored(dataset)
    at_first, at_end = (dataset_files.read_items(folder, cut).row(0, named=True) for cut in (c1, dataset.as_of))
    assert (at_first["item"], at_first["category"], at_first["available"]) == (0, 2, -1)
    assert (at_end["category"], at_end["available"]) == (3, 0)


def test_exact_duplicates_are_removed_and_counted(home: Home, make_input: MakeInput) -> None:
    rows = shop()
    once, twice = (prepare(home, make_input(name, rows * times)) for name, times in (("once", 1), ("twice", 2)))
    assert (once.duplicates, twice.duplicates) == (0, len(rows))
    assert once.digest == twice.digest


def test_as_of_is_a_choice_then_the_date_of_a_scheduled_run_then_everything(home: Home, make_input: MakeInput) -> None:
    data = make_input("data", shop())
    date = "2015-07-05T00:00:00Z"
    scheduled = {"run_type": "scheduled", "logical_date": date, "run_id": "scheduled__1"}
    assert prepare(home, data, context=scheduled).as_of == ms("2015-07-05")
    assert prepare(home, data, as_of="2015-07-08T00:00:00Z", context=scheduled).as_of == ms("2015-07-08")
    newest = max(int(str(row[0])) for row in shop())
    assert prepare(home, data).as_of == newest + 1


BAD_ROWS: list[tuple[str, list[str]]] = [
    ("abc,1,view,2,", ["timestamp = 'abc'", "milliseconds"]),
    ("1433116800,1,view,2,", ["timestamp = '1433116800'", "looks like seconds"]),
    ("1.43322E+12,1,view,2,", ["timestamp = '1.43322E+12'", "spreadsheet"]),
    ("1433116800000,1,click,2,", ["event = 'click'", "view, addtocart, transaction"]),
    ("1433116800000,1,view,,", ["itemid = ''", "whole number"]),
    ("1433116800000,-1,view,2,", ["visitorid = '-1'", "whole number"]),
    ("1433116800000,1,view", ["3"]),
    ("1433116800000,1,view,2,,x,y", ["7"]),
]


@pytest.mark.parametrize(("row", "said"), BAD_ROWS)
def test_a_bad_row_is_named_with_its_line_field_and_value(
    home: Home, make_input: MakeInput, row: str, said: list[str]
) -> None:
    data = make_input("data", shop())
    with (data / "events.csv").open("a") as file:
        file.write(row + "\n")
    message = refused(home, data)
    assert f"events.csv:{len(shop()) + 2}" in message
    assert all(words in message for words in said), message


def test_a_few_bad_rows_are_left_out_when_that_is_allowed(home: Home, make_input: MakeInput) -> None:
    data = make_input("data", shop())
    whole = prepare(home, make_input("whole", shop()))
    with (data / "events.csv").open("a") as file:
        file.write("abc,1,view,2,\n")
    dataset = prepare(home, data, max_rejected_share=0.01)
    assert (dataset.rejected, dataset.digest) == (1, whole.digest)
    with pytest.raises(BadData, match=r"allowed 0\.01%"):
        prepare(home, data, max_rejected_share=0.0001)


def cut_archive(data: Path) -> None:
    packed = gzip.compress((data / "events.csv").read_bytes())
    (data / "events.csv").unlink()
    (data / "events.csv.gz").write_bytes(packed[: len(packed) // 2])


def rewrite(change: Callable[[str], str]) -> Callable[[Path], None]:
    def harm(data: Path) -> None:
        (data / "events.csv").write_text(change((data / "events.csv").read_text()))

    return harm


BAD_FILES: list[tuple[Callable[[Path], None], list[str]]] = [
    (lambda data: (data / "events.csv").unlink(), ["no events file", "timestamp,visitorid"]),
    (rewrite(lambda text: ""), ["events.csv", "empty"]),
    (rewrite(lambda text: EVENTS_HEADER), ["events.csv", "no rows"]),
    (rewrite(lambda text: text.replace(",itemid", "", 1)), ["missing: itemid", "expected exactly"]),
    (rewrite(lambda text: text.replace("transactionid", "transactionid,more", 1)), ["unexpected: more"]),
    (cut_archive, ["events.csv.gz", "truncated", "bytes"]),
]


@pytest.mark.parametrize(("harm", "said"), BAD_FILES)
def test_a_bad_file_is_named_with_what_was_expected(
    home: Home, make_input: MakeInput, harm: Callable[[Path], None], said: list[str]
) -> None:
    data = make_input("data", shop())
    harm(data)
    message = refused(home, data)
    assert all(words in message for words in said), message


def test_a_feed_that_stopped_is_no_quiet_night(home: Home, make_input: MakeInput) -> None:
    data = make_input("data", shop())
    message = refused(home, data, as_of="2015-08-01T00:00:00Z", max_data_age_days=2)
    assert "did the feed stop?" in message
    (data / "demo.json").write_text("{}")
    assert prepare(home, data, as_of="2015-08-01T00:00:00Z", max_data_age_days=2).events == len(shop())


def test_an_instant_before_everything_is_a_setting_to_correct(home: Home, make_input: MakeInput) -> None:
    with pytest.raises(BadConfig, match="no event before it"):
        prepare(home, make_input("data", shop()), as_of="2015-05-01T00:00:00Z")


def test_too_few_events_cannot_be_cut(home: Home, make_input: MakeInput) -> None:
    assert "cannot be cut in three" in refused(home, make_input("data", [(START, 1, "view", 2, "")]))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real extracts, ../shared/data, are not on this machine")
def test_the_real_extract_that_went_through_a_spreadsheet_is_refused(home: Home) -> None:
    assert "spreadsheet" in refused(home, SHARED / "retailrocket-tiny")
