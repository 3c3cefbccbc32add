"""The demo data maker: same bytes, the shape of the real data, structure at noise 0 and none at noise 1."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.planted import liked, planted_affinity, planted_tastes
from tasks.demo_data import EVENTS, MARKER, PARTS, TREE, VERSION, main, make_demo_data
from tasks.recsys.synthetic import DAY, SNAPSHOTS, SPAN, START, WEEK, DemoConfig, Shop, life_ms, make_shop
from tasks.recsys.synthetic_events import drifting_odds, event_blocks
from tasks.recsys.synthetic_properties import property_blocks
from tasks.recsys.synthetic_visits import view_counts

ROOT = Path(__file__).parents[1]
SCALE = 0.02
SMALL = DemoConfig(scale=0.002)
FILES = (EVENTS, *PARTS, TREE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "demo"
    make_demo_data(out, DemoConfig(scale=SCALE))
    return out


@pytest.fixture(scope="module")
def events(demo: Path) -> pl.DataFrame:
    return pl.read_csv(demo / EVENTS, infer_schema_length=None)


@pytest.fixture(scope="module")
def properties(demo: Path) -> pl.DataFrame:
    return pl.concat([pl.read_csv(demo / part, schema_overrides={"property": pl.String}) for part in PARTS])


@pytest.fixture(scope="module")
def tree(demo: Path) -> dict[int, int | None]:
    return dict(pl.read_csv(demo / TREE).iter_rows())


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop(DemoConfig(scale=SCALE))


@pytest.fixture(scope="module")
def chance_events() -> pl.DataFrame:
    return pl.concat(event_blocks(make_shop(DemoConfig(scale=SCALE, noise=1.0))))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def share(rows: pl.Series) -> float:
    """Share of the rows that are true."""
    return float(rows.to_numpy().mean())


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.demo_data", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# --- the same settings, the same bytes --------------------------------------------------------------------


def test_same_settings_give_the_same_bytes_whatever_the_threads(tmp_path: Path) -> None:
    make_demo_data(tmp_path / "here", SMALL)
    assert run(str(tmp_path / "one"), "--scale", "0.002", POLARS_MAX_THREADS="1").returncode == 0
    assert run(str(tmp_path / "four"), "--scale", "0.002", POLARS_MAX_THREADS="4").returncode == 0
    here = bytes_of(tmp_path / "here")
    assert set(here) == {*FILES, MARKER}
    assert here == bytes_of(tmp_path / "one") == bytes_of(tmp_path / "four")


def test_another_seed_gives_other_files(tmp_path: Path) -> None:
    make_demo_data(tmp_path / "seven", SMALL)
    make_demo_data(tmp_path / "eight", DemoConfig(scale=0.002, seed=8))
    seven, eight = bytes_of(tmp_path / "seven"), bytes_of(tmp_path / "eight")
    assert [name for name in seven if seven[name] == eight[name]] == []


def test_noise_changes_nothing_but_the_items_of_events() -> None:
    clean = pl.concat(event_blocks(make_shop(SMALL)))
    noisy = pl.concat(event_blocks(make_shop(DemoConfig(scale=0.002, noise=0.5))))
    assert clean.drop("itemid").equals(noisy.drop("itemid"))
    assert share(clean["itemid"] == noisy["itemid"]) == pytest.approx(0.5, abs=0.03)


# --- the shape of the real data ---------------------------------------------------------------------------


def test_the_marker_says_what_was_made(demo: Path, events: pl.DataFrame, properties: pl.DataFrame) -> None:
    marker = json.loads((demo / MARKER).read_text())
    assert {name: marker[name] for name in ("version", "scale", "noise", "seed")} == {
        "version": VERSION,
        "scale": SCALE,
        "noise": 0.0,
        "seed": 7,
    }
    assert marker["rows"][EVENTS] == len(events)
    assert sum(marker["rows"][part] for part in PARTS) == len(properties)
    assert events["timestamp"].is_between(marker["first_ms"], marker["end_ms"], closed="left").all()


def test_the_files_have_the_columns_of_the_format(demo: Path) -> None:
    header = {name: (demo / name).read_text(encoding="ascii").split("\n", 1)[0] for name in FILES}
    assert header[EVENTS] == "timestamp,visitorid,event,itemid,transactionid"
    assert header[PARTS[0]] == header[PARTS[1]] == "timestamp,itemid,property,value"
    assert header[TREE] == "categoryid,parentid"


def test_sizes_are_those_of_the_real_data_times_the_scale(
    events: pl.DataFrame, properties: pl.DataFrame, tree: dict[int, int | None]
) -> None:
    assert len(events) / SCALE == pytest.approx(2_756_101, rel=0.03)
    assert events["visitorid"].n_unique() / SCALE == pytest.approx(1_407_580, rel=0.01)
    assert events["itemid"].n_unique() / SCALE == pytest.approx(235_061, rel=0.05)
    assert len(properties) / SCALE == pytest.approx(20_275_902, rel=0.03)
    assert properties["itemid"].n_unique() / SCALE == pytest.approx(417_053, rel=0.02)
    assert len(tree) == 50


@pytest.mark.parametrize(("scale", "rel"), [(0.001, 0.07), (0.005, 0.04)])
def test_small_scales_are_small_in_proportion(scale: float, rel: float) -> None:
    shop = make_shop(DemoConfig(scale=scale))
    assert sum(map(len, event_blocks(shop))) == pytest.approx(2_756_101 * scale, rel=rel)
    assert sum(map(len, property_blocks(shop))) == pytest.approx(20_275_902 * scale, rel=rel)


def test_most_visitors_come_once_and_a_few_very_often(events: pl.DataFrame) -> None:
    counts = events.group_by("visitorid").len()["len"].to_numpy()
    assert np.median(counts) == 1
    assert 0.69 <= np.mean(counts == 1) <= 0.73
    assert 300 <= counts.max() <= 1_000
    days = events.group_by("visitorid").agg((pl.col("timestamp") // DAY).n_unique())["timestamp"]
    assert 0.08 <= share(days > 1) <= 0.15


def test_the_largest_visitor_grows_with_the_scale_up_to_thousands() -> None:
    assert 3_000 <= view_counts(DemoConfig(scale=1)).max() <= 8_000


def test_kinds_of_event_have_their_real_shares(events: pl.DataFrame) -> None:
    kinds = dict(events["event"].value_counts(normalize=True).iter_rows())
    assert set(kinds) == {"view", "addtocart", "transaction"}
    assert 0.022 <= kinds["addtocart"] <= 0.028
    assert 0.006 <= kinds["transaction"] <= 0.010


def test_events_fill_the_span_in_a_daily_rhythm(events: pl.DataFrame) -> None:
    at = events["timestamp"].to_numpy()
    assert START <= at.min() < START + DAY
    assert START + SPAN - DAY < at.max() < START + SPAN
    weeks = np.bincount((at - START) // WEEK)[:-1]
    assert weeks.min() > 0.7 * weeks.max()
    hours = np.bincount(at // 3_600_000 % 24, minlength=24)
    assert hours.argmax() in range(19, 24)
    assert hours.max() > 2.5 * hours.min()


def test_popularity_of_items_falls_like_zipf(events: pl.DataFrame) -> None:
    counts = np.sort(events["itemid"].value_counts()["count"].to_numpy())[::-1]
    assert 0.08 <= counts[: len(counts) // 100].sum() / counts.sum() <= 0.20
    ranks = np.arange(10, 1_000)
    slope = np.polyfit(np.log(ranks), np.log(counts[ranks - 1]), 1)[0]
    assert -0.9 <= slope <= -0.4


def test_visits_are_bursts(events: pl.DataFrame) -> None:
    views = events.filter(pl.col("event") == "view").sort("visitorid", "timestamp")
    gap = views.select(pl.col("timestamp").diff().over("visitorid")).drop_nulls()["timestamp"]
    inside = gap.filter(gap < 30 * 60_000)
    assert share(inside.is_between(10_000, 300_000)) > 0.98
    assert 0.15 <= share(gap >= 30 * 60_000) <= 0.35


# --- the funnel -------------------------------------------------------------------------------------------


def test_transactions_and_nothing_else_have_a_transaction_id(events: pl.DataFrame) -> None:
    assert (events["transactionid"].is_not_null() == (events["event"] == "transaction")).all()


def test_a_basket_is_of_one_visitor_at_one_instant_in_whatever_block() -> None:
    blocks = list(event_blocks(make_shop(DemoConfig(scale=0.1))))
    assert len(blocks) == 2
    lines = pl.concat(blocks).drop_nulls("transactionid")
    baskets = lines.group_by("transactionid").agg(pl.col("visitorid", "timestamp").n_unique())
    assert (baskets["visitorid"] == 1).all()
    assert (baskets["timestamp"] == 1).all()
    assert len(baskets) < len(lines)
    assert lines.select("transactionid", "itemid").is_unique().all()


def test_a_cart_follows_a_view_and_a_transaction_a_cart(events: pl.DataFrame) -> None:
    first = events.pivot("event", index=["visitorid", "itemid"], values="timestamp", aggregate_function="min")
    both = events.join(first, on=["visitorid", "itemid"])
    carts = both.filter(pl.col("event") == "addtocart")
    sales = both.filter(pl.col("event") == "transaction")
    assert (carts["timestamp"] >= carts["view"]).fill_null(False).all()
    assert (sales["timestamp"] >= sales["addtocart"]).fill_null(False).all()


# --- items ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["events", "chance_events"])
def test_items_live_for_a_while(source: str, shop: Shop, request: pytest.FixtureRequest) -> None:
    born, dies = life_ms(shop)
    life = pl.DataFrame({"itemid": shop.item_id, "born": born, "dies": dies})
    lived = request.getfixturevalue(source).join(life, on="itemid", how="left")
    assert lived.filter(~pl.col("timestamp").is_between("born", "dies").fill_null(False)).is_empty()
    # The bound binds: items arrive and go all the time.
    late = lived.filter(pl.col("timestamp") > START + SPAN // 2)["itemid"].unique()
    early = lived.filter(pl.col("timestamp") <= START + SPAN // 2)["itemid"].unique()
    assert 0.2 <= share(~late.is_in(early.implode())) <= 0.7
    assert 0.2 <= share(~early.is_in(late.implode())) <= 0.7


def test_clusters_hold_20_to_60_items_alive(shop: Shop) -> None:
    for week in (0, 10, 19):
        alive = ((shop.item_born <= week) & (week < shop.item_dies))[: shop.sold]
        size = np.bincount(shop.item_cluster[: shop.sold][alive])
        assert np.mean((size >= 20) & (size <= 60)) >= 0.9


def test_more_items_have_properties_than_events_and_some_sold_ones_have_none(
    events: pl.DataFrame, properties: pl.DataFrame
) -> None:
    sold, known = events["itemid"].unique(), properties["itemid"].unique()
    assert len(known) > 1.5 * len(sold)
    assert 0.15 <= share(~sold.is_in(known.implode())) <= 0.25


def test_the_tree_is_a_forest(tree: dict[int, int | None]) -> None:
    def climb(category: int) -> Iterator[int]:
        above: int | None = category
        while above is not None:
            yield above
            above = tree[above]

    roots = [category for category, parent in tree.items() if parent is None]
    assert 2 <= len(roots) < len(tree) / 3
    for category in tree:
        # A cycle would climb for ever: a path longer than the tree is one.
        path = [step for step, _ in zip(climb(category), range(len(tree) + 1), strict=False)]
        assert len(path) <= len(tree)
        assert path[-1] in roots


def test_categories_of_items_are_in_the_tree(properties: pl.DataFrame, tree: dict[int, int | None]) -> None:
    values = properties.filter(pl.col("property") == "categoryid")["value"].cast(pl.Int64)
    assert set(values) <= set(tree)
    assert len(set(values)) > len(tree) / 3


# --- properties -------------------------------------------------------------------------------------------


def test_snapshots_are_weekly_sundays(properties: pl.DataFrame) -> None:
    at = properties["timestamp"].unique().sort()
    assert at.to_list() == [START + week * WEEK for week in range(1, SNAPSHOTS + 1)]
    assert (at.cast(pl.Datetime("ms")).dt.weekday() == 7).all()


def test_a_property_row_is_a_change(properties: pl.DataFrame) -> None:
    key = ["itemid", "property"]
    assert properties.select(*key, "timestamp").is_unique().all()
    before = properties.sort(*key, "timestamp").with_columns(before=pl.col("value").shift().over(key))
    assert before.filter(pl.col("value") == pl.col("before")).is_empty()
    assert share(before["before"].is_not_null()) > 0.2


def test_values_are_hashed_words_numbers_and_the_two_named_properties(properties: pl.DataFrame) -> None:
    value = dict(properties.group_by("property").agg("value").iter_rows())
    assert set(value["available"]) == {"0", "1"}
    assert pl.Series(value["790"]).str.contains(r"^n\d+\.000$").all()
    assert pl.Series(value["888"]).str.contains(r"^(n\d+\.000|\d+)( (n\d+\.000|\d+))+$").all()
    assert properties["value"].str.contains(r"^(n\d+\.000|\d+)( (n\d+\.000|\d+))*$").all()
    special = properties["property"].is_in(["categoryid", "available", "790", "888", "6", "283", "776"])
    assert 0.35 <= share(special) <= 0.5
    assert len(value) > 500


def test_property_blocks_leave_out_no_item() -> None:
    shop = make_shop(DemoConfig(scale=0.04))
    blocks = list(property_blocks(shop))
    assert len(blocks) > 1
    rows = pl.concat(blocks)
    assert set(rows["itemid"]) == set(shop.item_id[shop.item_has_properties])


# --- what there is to learn -------------------------------------------------------------------------------


def repeats(events: pl.DataFrame) -> int:
    """Views of an item that the same visitor has viewed before."""
    views = events.filter(pl.col("event") == "view")
    return len(views) - views.select("visitorid", "itemid").n_unique()


def shuffled_repeats(events: pl.DataFrame) -> float:
    """The same if items were dealt out anew among the views of each week: what chance alone repeats."""
    views = events.filter(pl.col("event") == "view").with_columns(week=(pl.col("timestamp") - START) // WEEK)
    dealt = [views.with_columns(pl.col("itemid").shuffle(seed=seed).over("week")) for seed in range(5)]
    return sum(map(repeats, dealt)) / len(dealt)


def test_at_noise_0_visitors_come_back_to_their_items(events: pl.DataFrame) -> None:
    views = events.filter(pl.col("event") == "view")
    # Of the views that could be repeats; tastes alone, without coming back, would give a fifth.
    assert 0.40 <= repeats(events) / (len(views) - views["visitorid"].n_unique()) <= 0.55
    assert repeats(events) > 8 * shuffled_repeats(events)


def test_at_noise_1_visitors_repeat_by_chance_alone(chance_events: pl.DataFrame) -> None:
    expected = shuffled_repeats(chance_events)
    # Five standard deviations of a count: a leak of structure fails, and so does a shortage of repeats.
    assert repeats(chance_events) == pytest.approx(expected, abs=5 * expected**0.5)
    assert expected > 100


def drift(events: pl.DataFrame, shop: Shop) -> float:
    """Chi-square a degree of freedom of the halves of the span, for items alive all along: 1 by chance."""
    ever = shop.item_id[: shop.sold][((shop.item_born == 0) & (shop.item_dies == 20))[: shop.sold]]
    seen = events.filter(pl.col("itemid").is_in(ever.tolist())).group_by("itemid")
    late = seen.agg((pl.col("timestamp") > START + SPAN // 2).sum(), pl.len()).filter(pl.col("len") >= 20)
    count, second = late["len"].to_numpy(), late["timestamp"].to_numpy()
    usual = second.sum() / count.sum()
    return float(np.mean((second - count * usual) ** 2 / (count * usual * (1 - usual))))


def test_popularity_drifts_at_noise_0_and_is_fixed_at_noise_1(
    events: pl.DataFrame, chance_events: pl.DataFrame, shop: Shop
) -> None:
    assert drift(events, shop) > 1.6
    assert 0.75 <= drift(chance_events, shop) <= 1.25


class Window:
    """What warm visitors do in the last 15 % of events, and what they did before."""

    def __init__(self, events: pl.DataFrame) -> None:
        self.cut = int(np.sort(events["timestamp"].to_numpy())[int(0.85 * len(events))])
        pairs = events.group_by("visitorid", "itemid").agg(
            seen=pl.col("timestamp").min() < self.cut, wanted=pl.col("timestamp").max() >= self.cut
        )
        warm = pairs.group_by("visitorid").agg(pl.col("seen", "wanted").any())
        self.visitors = np.sort(warm.filter(pl.col("seen") & pl.col("wanted"))["visitorid"].to_numpy())
        self.truth = pairs.filter(pl.col("wanted") & pl.col("visitorid").is_in(self.visitors.tolist()))
        recent = events.filter(pl.col("timestamp").is_between(self.cut - 14 * DAY, self.cut, closed="left"))
        self.popular = recent["itemid"].value_counts(sort=True)["itemid"].head(50).to_numpy()

    def recall(self, lists: np.ndarray[tuple[int, ...], np.dtype[np.int64]], seen: bool = True) -> float:
        """lists: [visitors, 50] items.  Wanted ones among them over all wanted, averaged over visitors."""
        found = pl.DataFrame(
            {"visitorid": np.repeat(self.visitors, lists.shape[1]), "itemid": lists.ravel(), "hit": True}
        )
        wanted = self.truth if seen else self.truth.filter(~pl.col("seen"))
        hits = wanted.join(found, on=["visitorid", "itemid"], how="left", maintain_order="left")
        return share(hits.group_by("visitorid").agg(pl.col("hit").is_not_null().mean())["hit"])

    def popular_recall(self, seen: bool = True) -> float:
        return self.recall(np.tile(self.popular, (len(self.visitors), 1)), seen)

    def planted_recall(self, shop: Shop, seen: bool = True) -> float:
        tastes = liked(shop, planted_tastes(shop)[self.visitors])
        week = (self.cut - START) // WEEK
        best = np.argsort(-planted_affinity(shop, drifting_odds(shop), tastes, week), axis=1)[:, :50]
        return self.recall(shop.item_id[best], seen)


def test_there_are_warm_visitors_with_new_items_to_find(events: pl.DataFrame) -> None:
    window = Window(events)
    assert len(window.visitors) >= 300
    assert 0.4 <= share(~window.truth["seen"]) <= 0.9


def test_at_noise_0_tastes_are_far_better_than_popularity(events: pl.DataFrame, shop: Shop) -> None:
    window = Window(events)
    assert 0.6 <= window.planted_recall(shop) <= 0.9
    assert window.planted_recall(shop, seen=False) > 4 * window.popular_recall(seen=False)
    assert window.popular_recall() > 0.05


def test_at_noise_1_tastes_are_worth_nothing(chance_events: pl.DataFrame, shop: Shop) -> None:
    window = Window(chance_events)
    alive = np.count_nonzero(shop.available[16, : shop.sold])
    assert 0.2 * 50 / alive < window.planted_recall(shop) < 4 * 50 / alive
    assert window.popular_recall() > 2 * window.planted_recall(shop)


def test_planted_affinity_is_a_distribution_over_the_living(shop: Shop) -> None:
    affinity = planted_affinity(shop, drifting_odds(shop), liked(shop, planted_tastes(shop)[:100]), week=10)
    assert affinity.sum(axis=1) == pytest.approx(np.ones(100))
    dead = ((shop.item_born > 10) | (shop.item_dies <= 10))[: shop.sold]
    assert affinity[:, dead].max() == 0


# --- the folder -------------------------------------------------------------------------------------------


def test_a_folder_with_something_else_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    assert main([str(tmp_path), "--scale", "0.001"]) == 64
    assert bytes_of(tmp_path) == {"precious.txt": b"mine"}
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    assert str(tmp_path) in message
    assert "precious.txt" in message


def test_the_same_demo_data_is_left_alone_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "demo"
    assert main([str(out), "--scale", "0.001"]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    caplog.clear()
    with caplog.at_level("INFO"):
        assert main([str(out), "--scale", "0.001"]) == 0
    assert "nothing to do" in caplog.text
    for other in (["--scale", "0.002"], ["--seed", "8"], ["--noise", "1"]):
        assert main([str(out), "--scale", "0.001", *other]) == 64
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    (out / EVENTS).unlink()
    assert main([str(out), "--scale", "0.001"]) == 64, "a folder that lacks a file is not the same demo data"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    assert main([str(out), "--scale", "0.001"]) == 0
    assert set(bytes_of(out)) == {*FILES, MARKER}
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_killed_maker_leaves_nothing_under_the_name(tmp_path: Path, signum: int, code: int) -> None:
    out = tmp_path / "demo"
    maker = subprocess.Popen(
        [sys.executable, "-m", "tasks.demo_data", str(out), "--scale", "1"], cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(f".*/{EVENTS}")):
            assert maker.poll() is None, "the maker ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        maker.send_signal(signum)
        assert maker.wait(timeout=60) == code
    finally:
        maker.kill()
        maker.wait()
        assert maker.stderr is not None
        maker.stderr.close()
    assert not out.exists()
    if signum == signal.SIGTERM:
        assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file"), "--scale", "0.001"]) == 64
    assert main([str(tmp_path / "file" / "below"), "--scale", "0.001"]) in (64, 74)
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scale", "0"], "expected 0.001 to 10"),
        (["--scale", "11"], "expected 0.001 to 10"),
        (["--scale", "nan"], "expected 0.001 to 10"),
        (["--scale", "big"], "invalid float value: 'big'"),
        (["--noise", "1.5"], "expected 0 to 1"),
        (["--noise", "-0.1"], "expected 0 to 1"),
        (["--seed", "-1"], "expected 0 or more"),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_a_bad_setting_is_one_clear_line(tmp_path: Path, arguments: list[str], expected: str) -> None:
    ended = run(str(tmp_path / "demo"), *arguments)
    assert ended.returncode == 64
    assert ended.stdout == ""
    assert expected in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
