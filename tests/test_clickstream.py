"""The shop's files in every form that is read, and in the forms that must not be."""

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tasks.contracts import Dataset
from tasks.failures import BadData
from tasks.recsys.interactions import DAY
from tests.world import EVENTS_HEADER, PROPERTIES_HEADER, TREE_HEADER, Home, Row, lines, ms

START, HOUR = ms("2015-06-01"), 3_600_000
ROWS: list[Row] = [(START + hour * HOUR, hour % 7, "view", hour % 11, "") for hour in range(100)]
TEXT = EVENTS_HEADER + lines(ROWS)
BYTES = TEXT.encode()
CAFE = "caf\u00e9".encode("latin-1")


def prepare(home: Home, folder: Path, files: dict[str, bytes], **config: Any) -> Dataset:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    dataset: Dataset = home.run("prepare_data", {"data": str(folder), **config})
    return dataset


def refusal(home: Home, folder: Path, files: dict[str, bytes], **config: Any) -> str:
    """The message of a refusal: one line, and nothing was stored."""
    with pytest.raises(BadData) as failure:
        prepare(home, folder, files, **config)
    message = str(failure.value)
    assert message.isprintable(), message
    assert home.artifacts == set()
    return message


def with_row(row: str, at: int = 3) -> bytes:
    """The good rows, one of them replaced: row 3 is on line 5."""
    rows = TEXT.splitlines()
    rows[at + 1] = row
    return ("\n".join(rows) + "\n").encode()


def quoted(text: str) -> bytes:
    return "".join('"' + line.replace(",", '","') + '"\n' for line in text.splitlines()).encode()


def parquet(folder: Path, itemid: Callable[[int], object] = lambda item: item) -> bytes:
    rows = [(*row[:3], itemid(int(str(row[3]))), None) for row in ROWS]
    pl.DataFrame(rows, schema=EVENTS_HEADER.strip().split(","), orient="row").write_parquet(folder / "made")
    return (folder / "made").read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("events.csv", b"\xef\xbb\xbf" + BYTES),
        ("events.csv", BYTES.replace(b"\n", b"\r\n")),
        ("events.csv", BYTES.rstrip(b"\n")),
        ("events.csv", BYTES + b"\n\n"),
        ("events.csv", quoted(TEXT)),
        ("events.csv", EVENTS_HEADER.encode() + quoted(lines(ROWS))),
        ("events.csv.gz", gzip.compress(BYTES)),
        ("events.csv.gz", gzip.compress(EVENTS_HEADER.encode()) + gzip.compress(lines(ROWS).encode())),
        ("events.csv.zst", pa.compress(BYTES, "zstd", asbytes=True)),
    ],
    ids=["BOM", "CRLF", "no last newline", "blank end", "quoted", "quoted values", "gzip", "gzip of two", "zstd"],
)
def test_every_form_of_the_same_rows_gives_the_same_dataset(
    home: Home, tmp_path: Path, name: str, content: bytes
) -> None:
    plain = prepare(home, tmp_path / "plain", {"events.csv": BYTES})
    assert prepare(home, tmp_path / "other", {name: content}).digest == plain.digest
    assert plain.events == 100


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


PACKED = gzip.compress(BYTES)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("events.csv.gz", PACKED[:-50], "truncated, damaged or no gzip archive"),
        ("events.csv.gz", PACKED[:5], "(5 bytes) is truncated"),
        ("events.csv.gz", flipped(PACKED, len(PACKED) - 6), "CRC check failed"),
        ("events.csv.gz", BYTES, "Not a gzipped file"),
        ("events.csv.gz", gzip.compress(b""), "missing: timestamp,visitorid,event,itemid,transactionid"),
        ("events.csv.zst", pa.compress(BYTES, "zstd", asbytes=True)[:-50], "truncated, damaged or no zstd archive"),
        ("events.parquet", BYTES, "is no Parquet file"),
        ("events.csv", BYTES.replace(b",", b";"), "unexpected: timestamp;visitorid;event;itemid;transactionid"),
        ("events.csv", TEXT.encode("utf-16"), r"columns are \xff\xfet\x00i"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    home: Home, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    message = refusal(home, tmp_path / "data", {name: content})
    assert f"/{name}" in message
    assert said in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1433116800000,1,view,007,", "itemid = '007', expected a whole number"),
        ("1433116800000,1,view,99999999999999999999,", "itemid = '99999999999999999999', expected a whole number"),
        ("1433116800000,1,view,1.5,", "itemid = '1.5', expected a whole number"),
        ("1433116800000,,view,2,", "visitorid = '', expected a whole number"),
        ("1433116800000,1,View,2,", "event = 'View', expected one of view, addtocart, transaction"),
        ("1433116800000000,1,view,2,", "looks like microseconds"),
        ("5680281600000,1,view,2,", "this one is of the year 2150, still to come"),
        ("2015-06-01,1,view,2,", "timestamp = '2015-06-01', expected UTC milliseconds"),
        ("1433116800000,1,view", "row = '1433116800000,1,view', expected 5 fields, it has 3"),
    ],
)
def test_a_bad_row_in_the_middle_is_named(home: Home, tmp_path: Path, row: str, said: str) -> None:
    message = refusal(home, tmp_path / "data", {"events.csv": with_row(row)})
    assert message.startswith("events.csv:5: ")
    assert said in message
    assert "(1 of 100 event rows are bad, 1.00%, allowed 0.00%; correct them, or raise max_rejected_share)" in message


def test_an_instant_of_tomorrow_is_refused_and_one_of_this_hour_is_not(home: Home, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    prepare(home, tmp_path / "now", {"events.csv": with_row(f"{now},1,view,2,")}, as_of="2015-06-05T00:00:00Z")
    with pytest.raises(BadData, match="still to come: is a clock wrong"):
        prepare(home, tmp_path / "later", {"events.csv": with_row(f"{now + 2 * DAY},1,view,2,")})


def test_lines_are_counted_past_blank_ones_and_line_breaks_in_quotes(home: Home, tmp_path: Path) -> None:
    content = EVENTS_HEADER.encode() + b'\n1433116800000,1,view,2,"a\nb"\nx,1,view,2,\n'
    assert refusal(home, tmp_path / "data", {"events.csv": content}).startswith("events.csv:5: timestamp = 'x'")


def test_bytes_that_are_no_utf8_are_shown_as_escapes(home: Home, tmp_path: Path) -> None:
    content = BYTES.replace(b",\n", b"," + CAFE + b"\n", 1)
    message = refusal(home, tmp_path / "data", {"events.csv": content})
    assert r"events.csv:2: transactionid = 'caf\xe9', expected text in UTF-8" in message


def test_a_row_of_a_parquet_file_is_named_by_its_number(home: Home, tmp_path: Path) -> None:
    prepare(home, tmp_path / "good", {"events.parquet": parquet(tmp_path)})
    with pytest.raises(BadData, match=r"events.parquet:3: itemid = '-1'"):
        prepare(home, tmp_path / "bad", {"events.parquet": parquet(tmp_path, lambda item: -1 if item == 2 else item)})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('1433116800000,1,"view,2,', "a quote is opened or closed in the wrong place"),
        ("1433116800000,1,view,2," + "x" * 3_000_000, "a line of more than 2 MB"),
    ],
)
@pytest.mark.parametrize("allowed", [0, 0.05])
def test_what_swallows_other_rows_is_refused_however_tolerant(
    home: Home, tmp_path: Path, row: str, said: str, allowed: float
) -> None:
    message = refusal(home, tmp_path / "data", {"events.csv": with_row(row)}, max_rejected_share=allowed)
    assert "events.csv:5: " in message
    assert said in message


def test_tolerated_rows_are_counted_and_examples_kept_beside_the_dataset(home: Home, tmp_path: Path) -> None:
    rows = TEXT.encode() + b"x,1,view,2,\n1433116800000,1,view\n" + CAFE + b",1,view,2,\n"
    dataset = prepare(home, tmp_path / "data", {"events.csv": rows}, max_rejected_share=0.03)
    assert (dataset.events, dataset.rejected) == (100, 3)
    (kept,) = (home.path / "mlflow" / "artifacts").glob("*/artifacts/intake/rejected.parquet")
    assert pl.read_parquet(kept).select("line", "field", "value").rows() == [
        (102, "timestamp", "x"),
        (103, "row", "1433116800000,1,view"),
        (104, "timestamp", r"caf\xe9"),
    ]
    assert dataset.digest == prepare(home, tmp_path / "clean", {"events.csv": BYTES}).digest
    with pytest.raises(BadData, match=r"3 of 103 event rows are bad, 2.91%, allowed 2.90%"):
        prepare(home, tmp_path / "over", {"events.csv": rows}, max_rejected_share=0.029)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("item_properties.csv", PROPERTIES_HEADER + "1.44E+12,1,888,x\n", "item_properties.csv:2: timestamp = '1.44E"),
        ("item_properties.csv", PROPERTIES_HEADER + f"{START},-1,790,x\n", "item_properties.csv:2: itemid = '-1'"),
        ("item_properties.csv", PROPERTIES_HEADER + f"{START},1,790\n", "4 fields, it has 3 (1 of 1 property rows"),
        ("item_properties.csv", "timestamp,itemid,value\n", "missing: property"),
        ("category_tree.csv", TREE_HEADER + "1,\ntwo,1\n", "category_tree.csv:3: categoryid = 'two'"),
        ("category_tree.csv", TREE_HEADER + "1,root\n", "category_tree.csv:2: parentid = 'root'"),
        ("category_tree.csv", TREE_HEADER + "1\n", "2 fields, it has 1"),
    ],
)
def test_properties_and_tree_are_held_to_the_format_too(
    home: Home, tmp_path: Path, name: str, content: str, said: str
) -> None:
    assert said in refusal(home, tmp_path / "data", {"events.csv": BYTES, name: content.encode()})
