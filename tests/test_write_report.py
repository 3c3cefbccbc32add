"""The morning page of a small night: artifacts made by hand, a real Dataset, a real MLflow store."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient

from tasks import candidate_files, dataset_files, report_page, storage, tracking
from tasks.contracts import Candidates, Dataset, Estimate, Publication, Ranker, RecallReport, Report, Retriever
from tasks.failures import BadData
from tasks.recsys import candidates as nouns
from tasks.recsys import groups, volume
from tasks.recsys.baselines import BASELINES
from tasks.recsys.candidates import SOURCES
from tasks.recsys.evaluation import DEPTHS, LOSSES
from tasks.recsys.interactions import DAY
from tasks.report_page import Folded, Section, Table
from tasks.tracking import RANKER_CURVE, TaskRun
from tests.test_prepare_data import START, prepare, shop
from tests.world import EVENTS_HEADER, Home, MakeInput, Row, lines

HOSTILE = "<script>alert('x')</script> & \"$x_1$\" {{ 7*7 }}"
SOME = {"value": 0.4321, "low": 0.4, "high": 0.46, "n": 20}
NOBODY = {"value": None, "low": None, "high": None, "n": 0}
BEST = "own_history_then_popular"
Inputs = dict[str, Any]


class Reader(HTMLParser):
    """What a browser would find on the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "p", "li", "summary"):
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def recall(estimate: Mapping[str, Any]) -> dict[str, Any]:
    """recall.json with the same number everywhere."""
    names = [*(f"recall_at_{k}" for k in DEPTHS), "ndcg_at_10", "views.recall_at_50", "carts.recall_at_50"]
    whole = {**dict.fromkeys(names, estimate), "coverage_at_50": 0.5, "popularity_bias_at_50": 1.25}
    whole["carts.recall_at_50"] = NOBODY
    losses = dict.fromkeys(LOSSES, 1 / len(LOSSES)) if estimate["n"] else {}
    methods = dict.fromkeys(("two_tower", "blend", *BASELINES), whole)
    return {**methods, "losses_of_blend": {**losses, "n": 20 if losses else 0}}


def stored(home: Home, task: str, inputs: list[Any], name: str, write: Callable[[Path, TaskRun], None]) -> Inputs:
    """What storing an artifact of a task gives."""
    with home.task(task, inputs) as run:
        folder = run.work / name
        folder.mkdir()
        write(folder, run)
        return dict(run.store(folder, inputs[0].as_of))


def write_candidates(dataset: Dataset, data: Path, folder: Path) -> None:
    """For each group its first relevant item, named by the first source alone."""
    _, truth = groups.judges(
        dataset_files.read_interactions(data), dataset.second_cut, dataset.as_of, dataset.history_cap
    )
    item = truth.item[truth.start[:-1]][:, None]
    rank = np.zeros((len(truth), 1, len(SOURCES)), dtype=np.int16)
    rank[:, :, 0] = 1
    block = nouns.Candidates(item, rank, np.zeros(rank.shape, dtype=np.float32))
    (folder / "groups").mkdir()
    candidate_files.write_blocks(folder / "groups" / f"{dataset.second_cut}.parquet", truth.user, [block])


def make_night(
    home: Home,
    data: Path,
    estimate: Mapping[str, Any] = SOME,
    as_of: str = "2015-07-11T00:00:00Z",
    realised: float | None = None,
    learned_nothing: bool = False,
) -> Inputs:
    """The artifacts that the page is made from; realised: what the generation before was worth."""
    dataset = prepare(home, data, as_of=as_of, context={"run_id": f"manual__{as_of}"})
    folder, mean = home.stored(dataset), Estimate(**estimate)
    digest: Inputs = {"dataset_digest": dataset.digest}

    def fit(out: Path, run: TaskRun) -> None:
        (out / "weights").write_text("1")
        for cut in ("c1", "c2", "as_of"):
            run.curve(f"{cut}.loss", [3.0, 2.0, 1.5])

    def learn(out: Path, run: TaskRun) -> None:
        features = [{"name": "price", "meaning": HOSTILE, "unit": "", "reads": "", "gain": 9.0, "contribution": 0.5}]
        names = ("before", "after", "ceiling", BEST, "after_minus_before")
        (out / "ndcg.json").write_text(json.dumps(dict.fromkeys(names, estimate)))
        if not learned_nothing:
            (out / "features.json").write_text(json.dumps(features))
            run.curve(RANKER_CURVE, [0.5, 0.6])

    def publish(out: Path, run: TaskRun) -> None:
        ids = dataset_files.read_user_ids(folder)
        lists = {"list": [0], "items": [[50, 51, 52]], "scores": [[3.0, 2.0, 1.0]]}
        storage.write_table(out / "lists.parquet", pl.DataFrame(lists).with_columns(pl.col("list").cast(pl.Int32)))
        readers = {"visitorid": np.sort(ids), "list": np.zeros(len(ids), dtype=np.int32)}
        storage.write_table(out / "visitors.parquet", readers)
        run.tags({"verdict": "held"}, run_id=run.night)
        names = ("realised", "realised.own_history_then_popular", "realised.popular_14_days")
        run.metrics({f"{name}.recall_at_50": realised for name in names})

    def measure(out: Path, run: TaskRun) -> None:
        (out / "recall.json").write_text(json.dumps(recall(estimate)))
        run.metrics({"blend.recall_at_50": estimate["value"]})

    fitted = stored(home, "train_two_tower", [dataset], "retriever", fit)
    run_id = fitted["uri"].removeprefix("runs:/").partition("/")[0]
    retriever = Retriever(**fitted, **digest, run_id=run_id, model_version="1", epochs=3)
    measured = stored(home, "evaluate_recall", [dataset], "recall", measure)
    same: Inputs = dict.fromkeys(("two_tower", "blend", "best_baseline", "blend_minus_baseline"), mean)
    report = RecallReport(**measured, **digest, **same, baseline=BEST)
    listed = stored(
        home, "generate_candidates", [dataset], "candidates", lambda out, _: write_candidates(dataset, folder, out)
    )
    counts: Inputs = {"shard": 0, "users": 20, "lists": 20, "pairs": 20}
    shard = Candidates(**listed, **digest, retriever_digest=retriever.digest, **counts)
    learned = stored(home, "train_lambdarank", [dataset], "ranker", learn)
    orders: Inputs = dict.fromkeys(("ndcg_before", "ndcg_after", "ndcg_baseline", "after_minus_before"), mean)
    ranker = Ranker(**learned, **digest, **orders, model_version="1", trees=2, baseline=BEST)
    published = stored(home, "publish_recommendations", [dataset], "recommendations", publish)
    about: Inputs = {
        "generation": "2015-07-11-g",
        "verdict": "held",
        "reason": HOSTILE,
        "in_force": "",
        "store": HOSTILE,
    }
    done = Publication(**published, **about, users=20, rows=60, realised=None)
    made = {"dataset": dataset, "retriever": retriever, "report": report, "candidates": [shard], "ranker": ranker}
    return {**made, "publication": done}


def write(home: Home, inputs: Inputs) -> tuple[Report, str]:
    """The artifact, and the page."""
    report: Report = home.run("write_report", {}, inputs)
    return report, (home.stored(report) / report.page).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Night:
    """A home with one night and its page in it."""

    home: Home
    inputs: Inputs
    report: Report
    page: str

    @property
    def text(self) -> str:
        return Reader(self.page).text

    def run(self, run_id: str) -> Any:
        return MlflowClient(self.home.environment["MLFLOW_TRACKING_URI"]).get_run(run_id)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "events.csv").write_text(EVENTS_HEADER + lines(shop()))
    return folder


@pytest.fixture(scope="module")
def night(new_home: Callable[[], Home], data: Path) -> Night:
    home = new_home()
    inputs = make_night(home, data)
    return Night(home, inputs, *write(home, inputs))


def test_the_page_needs_nothing_but_itself(night: Night) -> None:
    found = Reader(night.page)
    assert not found.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    leads = [
        attrs[name] or "" for _, attrs in found.elements for name in ("href", "xlink:href", "src") if name in attrs
    ]
    assert leads and all(lead.startswith("#") for lead in leads)
    assert all(match.startswith("#") for match in re.findall(r"url\(([^)]*)\)", night.page))
    assert "@import" not in night.page
    outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", night.page)
    assert "http:" not in outside and "https:" not in outside


def test_it_says_the_verdict_and_why_and_every_number_beside_its_baselines(night: Night) -> None:
    text, page = night.text, night.page
    assert "the night as of 2015-07-11 00:00 UTC held" in text
    assert "recall@50, all sources blended 0.4321 [0.4000, 0.4600]" in text
    assert f"of the best simple method, {BEST} 0.4321" in text
    assert all(f"recall@{k}" in text for k in DEPTHS)
    assert all(name in page.replace("<wbr>", "") for name in ("blend", "two_tower", *BASELINES))
    assert page.count("<figure>") == page.count("How to read this:") > 8
    assert "between " in text and "events are usual" in text
    assert night.report.sections == len(re.findall("<section", page))


def test_the_ceiling_is_the_recall_of_the_candidates(night: Night) -> None:
    """Of each user one relevant item is among them, and the first source alone names it."""
    _, truth = groups.judges(
        dataset_files.read_interactions(night.home.stored(night.inputs["dataset"])),
        *(night.inputs["dataset"].second_cut, night.inputs["dataset"].as_of, night.inputs["dataset"].history_cap),
    )
    ceiling = f"{(1 / np.diff(truth.start)).mean():.4f}"
    text = night.text
    assert f"together {ceiling}" in text
    assert re.search(rf"own_history {ceiling} \[[^]]*\] {ceiling}", text)
    assert "two_tower 0.0000" in text


def test_the_days_are_counted_as_the_gate_counted_them(home: Home, make_input: MakeInput) -> None:
    burst: list[Row] = [(START + 40 * DAY - 1 - number, 7, "view", 50, "") for number in range(500)]
    dataset = prepare(home, make_input("burst", shop() + burst), as_of="2015-07-11T00:00:00Z")
    daily = volume.by_day(dataset_files.read_interactions(home.stored(dataset)), dataset.as_of)
    assert len(dataset.suspect) == 1
    assert tuple(volume.suspicions(daily, 2.0)) == dataset.suspect


def test_visitors_stand_with_what_they_did_and_what_they_get(night: Night) -> None:
    assert len(re.findall("<summary>Visitor 10", night.page)) == 10
    assert re.search(r"50 unknown (new|in the history) 51 unknown (new|in the history) 52 unknown", night.text)


def test_words_from_data_are_words_and_no_markup(night: Night) -> None:
    assert "script" not in Reader(night.page).tags
    assert night.text.count(HOSTILE) == 3, "the reason, the store and a feature's meaning"


def test_every_kind_of_part_is_escaped() -> None:
    table = Table([HOSTILE], [[HOSTILE, HOSTILE]], note=HOSTILE)
    sections = [Section(HOSTILE, [HOSTILE, table, Folded(HOSTILE, [table])]), Section(HOSTILE, missing=HOSTILE)]
    found = Reader(report_page.page(HOSTILE, HOSTILE, [HOSTILE], sections, [[HOSTILE]]))
    assert "script" not in found.tags
    assert found.text.count(HOSTILE) == 2 + 1 + 1 + (1 + 1) + (1 + 4 + 5) + 2 + 1


def test_where_facts_are_missing_a_word_says_why(home: Home, data: Path) -> None:
    report, page = write(home, make_night(home, data, learned_nothing=True))
    assert report.left_out == ("Realised recall", "The nights before", "What the ranker looks at")
    text = Reader(page).text
    left_out = text[text.index("Not on this page") :]
    assert "Realised recall: no earlier generation has met" in left_out
    assert "What the ranker looks at: there was too little to learn from" in left_out
    assert not re.search("<h2>(Realised|The nights|What the ranker)", page)


def test_nobody_to_average_over_gives_no_number(home: Home, data: Path) -> None:
    report, page = write(home, make_night(home, data, NOBODY))
    text = Reader(page).text
    assert "recall@50, two-tower alone none, n = 0" in text
    assert {"Recall, beside every simple method", "Before and after ranking", "Where recall is lost"} < {
        *report.left_out
    }
    assert "nan" not in re.findall(r"[a-z]+", text)


def test_it_is_on_the_night_s_own_run_too_which_is_then_finished(night: Night) -> None:
    for run_id in (night.report.night, tracking.run_of(night.report)):
        (path,) = night.home.path.glob(f"mlflow/artifacts/{run_id}/artifacts/report/report.html")
        assert path.read_text(encoding="utf-8") == night.page
        run = night.run(run_id)
        assert run.info.status == "FINISHED"
        assert "report/report.html" in run.data.tags["mlflow.note.content"]
    tags = night.run(night.report.night).data.tags
    assert (tags["as_of"], tags["report"]) == (str(night.report.as_of), "report/report.html")


def test_the_nights_before_stand_beside_it(home: Home, data: Path) -> None:
    earlier = make_night(home, data, as_of="2015-07-09T00:00:00Z", realised=0.1234)
    make_night(home, data, as_of="2015-07-12T00:00:00Z", realised=0.9)  # what came after this as_of is not its business
    tonight = make_night(home, data, as_of="2015-07-11T00:00:00Z", realised=0.2345)
    report, page = write(home, tonight)
    assert report.nights == 2 and report.left_out == ()
    text = Reader(page).text
    realised = text[text.index("until the earlier lists") :]
    assert realised.index("2015-07-11 00:00 UTC 0.2345") < realised.index("2015-07-09 00:00 UTC 0.1234")
    assert "0.9000" not in text
    assert earlier["dataset"].night != tonight["dataset"].night


def test_a_report_that_fails_fails_the_night_and_a_later_try_mends_it(night: Night) -> None:
    path = night.home.stored(night.inputs["report"]) / "recall.json"
    whole = path.read_bytes()
    path.write_bytes(b"{}")
    with pytest.raises(BadData, match="its producer recorded"):
        write(night.home, night.inputs)
    assert night.run(night.report.night).info.status == "FAILED"
    path.write_bytes(whole)
    write(night.home, night.inputs)
    assert night.run(night.report.night).info.status == "FINISHED"
