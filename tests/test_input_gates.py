"""Each gate of the input: one bad input each, built here; what is odd but no error is marked, and held later."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import pytest
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from tasks import dataset_files
from tasks.contracts import Dataset
from tasks.failures import BadConfig, BadData, Unavailable
from tasks.recsys.interactions import DAY
from tests.world import EVENTS_HEADER, Home, MakeInput, Row, ms

START, DAYS = ms("2015-06-01"), 40
USUAL: list[Row] = [
    (START + day * DAY + number * 60_000, number % 9, event, number % 11, number if event == "transaction" else "")
    for day in range(DAYS)
    for number, event in enumerate(["view"] * 24 + ["addtocart"] * 8 + ["transaction"] * 8)
]
AS_OF = {"as_of": "2015-07-11T00:00:00Z"}
PROPERTIES: list[Row] = [(START, item, "categoryid", 10 + item % 2) for item in range(11)]
TREE: list[Row] = [(1, ""), (10, 1), (11, 1)]


def prepare(home: Home, data: Path | str, **config: Any) -> Dataset:
    dataset: Dataset = home.run("prepare_data", {"data": str(data), **AS_OF, **config})
    return dataset


def refusal(home: Home, data: Path, **config: Any) -> str:
    with pytest.raises(BadData) as failure:
        prepare(home, data, **config)
    assert home.artifacts == set()
    return str(failure.value)


def test_a_usual_input_is_not_suspect(home: Home, make_input: MakeInput) -> None:
    dataset = prepare(home, make_input("data", USUAL, PROPERTIES, TREE))
    assert (dataset.suspect, dataset.events, dataset.rejected, dataset.duplicates) == ((), len(USUAL), 0, 0)


def test_a_transaction_without_an_id_where_others_have_one(home: Home, make_input: MakeInput) -> None:
    rows = [*USUAL, (START + 5 * DAY, 3, "transaction", 4, "")]
    message = refusal(home, make_input("data", rows))
    assert f"events.csv:{len(rows) + 1}: transactionid = ''" in message
    assert "as other transactions have one" in message
    dataset = prepare(home, make_input("lenient", rows), max_rejected_share=0.001)
    assert (dataset.rejected, dataset.events) == (1, len(USUAL))


def test_no_transaction_needs_an_id_where_none_has_one_or_where_it_comes_later(
    home: Home, make_input: MakeInput
) -> None:
    without = [(*row[:4], "") for row in USUAL]
    assert prepare(home, make_input("none", without)).rejected == 0
    later = [*USUAL, (START + 45 * DAY, 3, "transaction", 4, "")]
    assert prepare(home, make_input("later", later)).rejected == 0


def test_a_handful_of_rows_long_after_all_others_is_a_wrong_clock(home: Home, make_input: MakeInput) -> None:
    stray = START + 200 * DAY
    data = make_input("data", [*USUAL, (stray, 1, "view", 2, "")])
    message = refusal(home, data, as_of=None)
    assert f"events.csv:{len(USUAL) + 2}: timestamp = '{stray}' (2015-12-18" in message
    assert "2015-07-10" in message
    assert "max_gap_days" in message
    assert prepare(home, data, as_of=None, max_gap_days=365).as_of == stray + 1
    assert prepare(home, data).events == len(USUAL), "as of an earlier day the row does not exist"


def last_day(change: Callable[[int, Row], bool]) -> list[Row]:
    """The usual rows, of the last day only those that are to stay."""
    edge = START + (DAYS - 1) * DAY
    return [row for number, row in enumerate(USUAL) if int(str(row[0])) < edge or change(number, row)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (last_day(lambda number, row: number % 10 == 0), "4 events in the last 24 hours, expected 20 to 80"),
        (last_day(lambda number, row: row[2] != "addtocart"), "no addtocart in the last 24 hours, at least 8"),
        ([*USUAL, *USUAL[:200]], "200 exact duplicates of 1,800 events (11.1%)"),
        ([*USUAL, *USUAL], "1,600 exact duplicates of 3,200 events (50.0%): it looks like a second full copy"),
    ],
)
def test_what_is_odd_completes_and_is_marked(home: Home, make_input: MakeInput, rows: list[Row], said: str) -> None:
    assert [one for one in prepare(home, make_input("data", rows)).suspect if one.startswith(said)]


def test_a_file_that_is_there_twice_is_named(home: Home, make_input: MakeInput) -> None:
    data = make_input("data", USUAL)
    shutil.copy(data / "events.csv", data / "events (1).csv")
    (found,) = prepare(home, data).suspect
    assert "events (1).csv and events.csv have the same bytes" in found
    assert prepare(home, data, max_duplicate_share=0.5).suspect == ()


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ([(1, 10), (10, 11), (11, 1)], "category_tree.csv:2: categoryid = '1' is its own ancestor (1 → 10 → 11 → 1)"),
        ([*TREE, (10, 11)], "category_tree.csv:5: categoryid = '10' has the parents 1 and 11, expected one"),
        ([*TREE, (12, 99)], "category_tree.csv:5: parentid = '99', expected a category of the tree (1 of 4"),
        (TREE[:2], "item_properties.csv:3: value = '11' of the property categoryid, expected a category of the tree"),
    ],
)
def test_a_tree_that_is_none_or_does_not_fit_the_items(
    home: Home, make_input: MakeInput, tree: list[Row], said: str
) -> None:
    assert said in refusal(home, make_input("data", USUAL, PROPERTIES, tree))


def test_a_few_orphans_are_allowed(home: Home, make_input: MakeInput) -> None:
    data = make_input("data", USUAL, PROPERTIES, [*TREE[:2], (12, 99)])
    dataset = prepare(home, data, max_orphan_share=0.5)
    items = dataset_files.read_items(home.stored(dataset), dataset.as_of)
    assert sorted(set(items["category"])) == [10, 11]
    paths = {row["category"]: row["path"] for row in items.select("category", "path").to_dicts()}
    assert paths == {10: [1, 10], 11: None}, "from the root down; 11 is not in the tree"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((START, 1, "available", "yes"), "value = 'yes', expected 0 or 1"),
        ((START, 1, "categoryid", "n5"), "value = 'n5', expected a whole number"),
    ],
)
def test_a_property_whose_meaning_is_known_is_held_to_it(
    home: Home, make_input: MakeInput, row: Row, said: str
) -> None:
    message = refusal(home, make_input("data", USUAL, [*PROPERTIES, row]))
    assert f"item_properties.csv:{len(PROPERTIES) + 2}: " in message
    assert said in message


def test_every_row_is_accounted_for_by_file_and_event_type(home: Home, make_input: MakeInput) -> None:
    data = make_input("data", USUAL, PROPERTIES)
    more = [*USUAL[:30], (START + 50 * DAY, 1, "view", 1, ""), ("x", 1, "view", 1, ""), (START, 1, "click", 1, "")]
    (data / "events_2.csv").write_text(EVENTS_HEADER + "".join(",".join(map(str, row)) + "\n" for row in [*more, (1,)]))
    prepare(home, data, max_rejected_share=0.01)
    (file,) = (home.path / "mlflow" / "artifacts").glob("*/artifacts/intake/reconciliation.json")
    table = json.loads(file.read_text())
    for row in table:
        assert row["read"] == row["kept"] + row["duplicates"] + row["rejected"] + row["later"], row
    read = Counter({(row["file"], row["event"]): row["read"] for row in table})
    for name in ("events.csv", "events_2.csv"):
        with (data / name).open() as opened:
            rows = list(csv.reader(opened))[1:]
        types = Counter(row[2] if len(row) == 5 and row[2] != "click" else "" for row in rows)
        assert {event: read[name, event] for event in types} == types
    second = {row["event"]: row for row in table if row["file"] == "events_2.csv"}
    assert (second["view"]["duplicates"], second["view"]["later"], second["view"]["rejected"]) == (24, 1, 1)
    assert second[""]["rejected"] == 2
    assert read["item_properties.csv", ""] == len(PROPERTIES)


def test_the_cuts_are_instants_or_days_where_a_person_chooses(home: Home, make_input: MakeInput) -> None:
    data = make_input("data", USUAL)
    instants = {"first_cut": "2015-06-20T00:00:00Z", "second_cut": "2015-07-01T12:00:00Z"}
    chosen = prepare(home, data, **instants)
    assert (chosen.first_cut, chosen.second_cut) == (ms("2015-06-20"), ms("2015-07-01T12:00"))
    by_days = prepare(home, data, validation_days=7, test_days=3.5)
    assert (by_days.second_cut, by_days.first_cut) == (by_days.as_of - 7 * DAY // 2, by_days.as_of - 21 * DAY // 2)


def test_cuts_without_events_between_them_are_refused(home: Home, make_input: MakeInput) -> None:
    cuts = {"first_cut": "2015-06-20T02:00:00Z", "second_cut": "2015-06-20T03:00:00Z"}
    assert "cannot be cut in three" in refusal(home, make_input("data", USUAL), **cuts)


def test_the_frequent_properties_are_those_before_the_cut(home: Home, make_input: MakeInput) -> None:
    early = [(START, item, "888", f"w{item}") for item in range(3)]
    late = [(START + 35 * DAY, item, "364", f"v{item}") for item in range(9)]
    data = make_input("data", USUAL, [*PROPERTIES, *early, *late])
    dataset = prepare(home, data, frequent_properties=1)
    folder = home.stored(dataset)
    at_first, at_end = (dataset_files.read_items(folder, cut) for cut in (dataset.first_cut, dataset.as_of))
    assert [[c for c in table.columns if c.startswith("property_")] for table in (at_first, at_end)] == [
        ["property_888"],
        ["property_364"],
    ]
    assert at_first["property_888"].drop_nulls().sort().to_list() == ["w0", "w1", "w2"]


def test_other_bytes_for_the_same_instant_are_told(home: Home, make_input: MakeInput) -> None:
    first = prepare(home, make_input("first", USUAL))
    later = prepare(home, make_input("later", [*USUAL, (START + 50 * DAY, 1, "view", 1, "")]))
    assert later.digest == first.digest
    client = MlflowClient(home.environment["MLFLOW_TRACKING_URI"])
    runs = [one.uri.removeprefix("runs:/").split("/")[0] for one in (first, later)]
    told = [client.get_run(run).data.tags.get("input_restated") for run in runs]
    assert told == [None, f"{runs[0]}: only rows that do not exist before as_of differ"]


def test_an_input_behind_a_url_gives_the_same_dataset(home: Home, make_input: MakeInput) -> None:
    data = make_input("data", USUAL, PROPERTIES, TREE)
    handler = partial(SimpleHTTPRequestHandler, directory=str(data.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        behind = prepare(home, f"http://127.0.0.1:{server.server_port}/data/")
        server.shutdown()
    local, by_file = prepare(home, data), prepare(home, f"file://{data}")
    assert behind.digest == by_file.digest == local.digest
    assert behind.input_digest == by_file.input_digest == local.input_digest


@pytest.mark.parametrize(
    ("url", "failure", "said"),
    [
        ("nowhere://bucket/folder", BadConfig, "Protocol not known"),
        ("file:///no/such/folder", BadData, "there is no such folder"),
        ("http://127.0.0.1:9/data", Unavailable, "does it answer"),
    ],
)
def test_a_url_that_cannot_be_read_says_why(home: Home, url: str, failure: type[Exception], said: str) -> None:
    with pytest.raises(failure, match=said):
        prepare(home, url)


def test_an_input_in_object_storage_gives_the_same_dataset(
    home: Home, make_input: MakeInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, server = make_input("data", USUAL, PROPERTIES, TREE), ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "ENDPOINT_URL": f"http://{host}:{port}",
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    try:
        files = fsspec.filesystem("s3")
        files.mkdir("shop")
        files.put(f"{data}/", "shop/daily/", recursive=True)
        assert prepare(home, "s3://shop/daily").digest == prepare(home, data).digest
        with pytest.raises(BadData, match="s3://shop/other: there is no such folder"):
            prepare(home, "s3://shop/other")
    finally:
        server.stop()
