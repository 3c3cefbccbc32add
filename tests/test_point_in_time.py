"""No byte of what a cut knows depends on what came after it, and none on how the work was spread."""

import random
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import dataset_files, storage
from tasks.contracts import Dataset
from tasks.demo_data import make_demo_data
from tasks.recsys.interactions import DAY
from tasks.recsys.synthetic import DemoConfig
from tests.world import EVENTS_HEADER, PROPERTIES_HEADER, Home, MakeInput, Row, lines, ms

START, AS_OF = ms("2015-06-01"), ms("2015-07-01")
SHARED = Path(__file__).parents[2] / "shared" / "data"
RANDOM = random.Random(5)
EVENTS: list[Row] = [
    (RANDOM.randrange(START, AS_OF), RANDOM.randrange(40), "view", RANDOM.randrange(30), "") for _ in range(400)
]
PROPERTIES: list[Row] = [
    (RANDOM.randrange(START, AS_OF), RANDOM.randrange(30), RANDOM.choice(["available", "categoryid"]), number % 2)
    for number in range(100)
]

LATE = st.integers(AS_OF, AS_OF + 30 * DAY)
LATE_EVENTS = st.lists(
    st.tuples(LATE, st.integers(0, 60), st.sampled_from(["view", "addtocart", "transaction"]), st.integers(0, 60)),
    max_size=30,
)
LATE_PROPERTIES = st.lists(
    st.tuples(LATE, st.integers(0, 60), st.sampled_from(["available", "categoryid", "790"]), st.integers(0, 1)),
    max_size=10,
)


def prepare(home: Home, data: Path, **config: Any) -> Dataset:
    given_or_default = {"data": str(data), "as_of": "2015-07-01T00:00:00Z", **config}
    dataset: Dataset = home.run("prepare_data", given_or_default)
    return dataset


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=LATE_EVENTS, properties=LATE_PROPERTIES, seed=st.integers(0, 9))
def test_whatever_comes_at_or_after_as_of_changes_no_byte(
    home: Home, tmp_path_factory: pytest.TempPathFactory, events: list[Row], properties: list[Row], seed: int
) -> None:
    data = tmp_path_factory.mktemp("data")
    every = [*EVENTS, *((*row, "") for row in events)]
    random.Random(seed).shuffle(every)
    (data / "events.csv").write_text(EVENTS_HEADER + lines(every))
    (data / "item_properties.csv").write_text(PROPERTIES_HEADER + lines([*PROPERTIES, *properties]))
    dataset = prepare(home, data)
    (data / "events.csv").write_text(EVENTS_HEADER + lines(EVENTS))
    (data / "item_properties.csv").write_text(PROPERTIES_HEADER + lines(PROPERTIES))
    assert dataset.digest == prepare(home, data).digest


CUTS = {"first_cut": "2015-06-15T00:00:00Z", "second_cut": "2015-06-25T00:00:00Z", "ranker_windows": 3}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 4), seed=st.integers(0, 1_000), share=st.floats(0, 0.9), added=LATE_EVENTS)
def test_whatever_is_added_deleted_or_changed_at_or_after_a_cut_leaves_all_that_is_of_it(
    home: Home, tmp_path_factory: pytest.TempPathFactory, which: int, seed: int, share: float, added: list[Row]
) -> None:
    before = prepare(home, written(tmp_path_factory.mktemp("before"), EVENTS, PROPERTIES), **CUTS)
    cuts = sorted({before.first_cut, *before.ranker_cuts, before.second_cut, before.as_of})
    cut, rng = cuts[which], random.Random(seed)
    # One row of each window stays: cuts without an event after them are refused.
    keep = {max((r for r in EVENTS if int(str(r[0])) < end), key=str) for end in (before.second_cut, before.as_of)}
    events = [row for row in (changed(row, cut, share, rng, keep) for row in EVENTS) if row]
    moved: list[Row] = [(cut + int(str(row[0])) - AS_OF, *row[1:], "") for row in added]
    values = [row for row in PROPERTIES if int(str(row[0])) < cut or rng.random() > share]
    values += [(cut, rng.randrange(60), "888", "hashed"), (cut + DAY, 3, "available", rng.randrange(2))]
    after = prepare(home, written(tmp_path_factory.mktemp("after"), events + moved, values), **CUTS)
    touched = changed_files(home, before, after)
    ends = dict(zip(dataset_files.PARTS, (before.first_cut, before.second_cut, before.as_of), strict=True))
    ends |= {f"cuts/{one}/": one for one in cuts}
    assert not [name for name in touched for start, end in ends.items() if name.startswith(start) and end <= cut]
    for name in ("users", "items"):
        known = storage.read_table(
            home.stored(before) / "cuts" / str(cut) / (name if name == "users" else "items.parquet")
        )
        first, second = (storage.read_table(home.stored(one) / f"{name}.parquet") for one in (before, after))
        assert first[: known.height].equals(second[: known.height])


def changed(row: Row, cut: int, share: float, rng: random.Random, keep: set[Row]) -> Row | None:
    """The row, or another one of its instant, or none; rows before the cut stay."""
    if int(str(row[0])) < cut or row in keep or rng.random() > share:
        return row
    other = (row[0], rng.randrange(70), rng.choice(["view", "addtocart", "transaction"]), rng.randrange(70), "")
    return rng.choice([other, None])


def written(data: Path, events: list[Row], properties: list[Row]) -> Path:
    (data / "events.csv").write_text(EVENTS_HEADER + lines(events))
    (data / "item_properties.csv").write_text(PROPERTIES_HEADER + lines(properties))
    return data


def changed_files(home: Home, before: Dataset, after: Dataset) -> set[str]:
    folders = [home.stored(one) for one in (before, after)]
    digests = [
        {path.relative_to(folder).as_posix(): storage.file_digest(path) for path in folder.rglob("*.parquet")}
        for folder in folders
    ]
    names = digests[0].keys() | digests[1].keys()
    return {name for name in names if digests[0].get(name) != digests[1].get(name)}


def test_what_changes_after_a_cut_leaves_the_files_of_the_cut_alone(home: Home, make_input: MakeInput) -> None:
    """Other items and visitors at the same instants: the cuts stay where they are, and so must all before them."""
    before = prepare(home, make_input("before", EVENTS, PROPERTIES))
    cut = before.second_cut
    events = [row if int(str(row[0])) < cut else (row[0], 900, "transaction", 800, 1) for row in EVENTS]
    properties = [row if int(str(row[0])) < cut else (*row[:3], 1 - int(str(row[3]))) for row in PROPERTIES]
    after = prepare(home, make_input("after", events, properties))
    at_end = {
        f"cuts/{before.as_of}/{name}" for name in ("histories/00000.parquet", "users/00000.parquet", "items.parquet")
    }
    assert changed_files(home, before, after) == {"test/00000.parquet", "users.parquet", "items.parquet", *at_end}
    for name in ("users", "items"):
        first, second = (storage.read_table(home.stored(one) / f"{name}.parquet") for one in (before, after))
        known = dataset_files.read_interactions(home.stored(before)).before(cut)
        same = known.users if name == "users" else known.items
        assert first[:same].equals(second[:same])


def test_the_number_of_threads_changes_no_byte(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_demo_data(tmp_path / "demo", DemoConfig(scale=0.06))  # more rows than a thread takes at a time
    digests = set()
    connect = duckdb.connect
    for threads in (1, 5):

        def connected(file: str, config: dict[str, Any], threads: int) -> duckdb.DuckDBPyConnection:
            return connect(file, config={**config, "threads": threads})

        monkeypatch.setattr(duckdb, "connect", partial(connected, threads=threads))
        digests.add(prepare(home, tmp_path / "demo", as_of="2015-09-10T00:00:00Z").digest)
    assert len(digests) == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real extracts, ../shared/data, are not on this machine")
def test_a_real_extract_without_properties(home: Home) -> None:
    dataset = prepare(home, SHARED / "retailrocket-subset", as_of=None)
    assert (dataset.events, dataset.items, dataset.rejected) == (97_381, 29_905, 0)
    assert dataset.users == 2_174
    folder = home.stored(dataset)
    assert storage.read_table(folder / "category_tree.parquet").height == 1_669
    assert dataset_files.read_items(folder, dataset.as_of)["price"].is_null().all()
