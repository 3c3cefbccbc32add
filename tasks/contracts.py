"""The contract between the DAG and the containers: artifacts, configs and the table of tasks.

Both sides import this one definition (standard library and pydantic only).  Three gates stand on it: names and types
when the DAG is parsed, values before a task starts, values after it ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)


class Closed(BaseModel):
    """Frozen, and closed to fields it does not know."""

    # Built on first use: a DAG file imports every model at each parse and needs few.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


# --- artifacts: a URI plus the counts a person wants to see -----------------------------------------------------


class Artifact(Closed):
    """What one task wrote, once.  Never edited afterwards."""

    uri: str = Field(description="where MLflow keeps it: runs:/<run id>/<folder>")
    digest: str = Field(description="sha256 over the names and the bytes of its files: same digest, same artifact")
    size: int = Field(ge=0, description="bytes of all its files")
    night: str = Field(description="id of the MLflow run of the whole night, the parent of the tasks' runs")
    as_of: int = Field(description="only events strictly before this instant exist for the night; UTC ms")


class Dataset(Artifact):
    """Interactions before as_of with encoded ids, split by the cuts; item features as of each cut."""

    input_digest: str = Field(description="sha256 over all bytes of every input file")
    first_cut: int = Field(description="c1: the retriever that makes every choice is fitted before it; UTC ms")
    second_cut: int = Field(description="c2: the retriever that is evaluated is fitted before it; UTC ms")
    ranker_cuts: tuple[int, ...] = Field(description="cuts inside c1–c2 that the ranker learns from; UTC ms, ascending")
    events: int = Field(ge=0, description="interactions kept")
    users: int = Field(ge=0, description="visitors with an interaction")
    items: int = Field(ge=0, description="items with an interaction")
    history_cap: int = Field(ge=1, description="newest interactions of a user that anything reads")
    duplicates: int = Field(ge=0, description="exact duplicates removed")
    rejected: int = Field(ge=0, description="rows that are not in the format, left out")
    suspect: tuple[str, ...] = Field(description="what is odd about the input, in words; the gate then holds")
    shards: int = Field(ge=1, description="shards of users that candidates are generated in")


class Retriever(Artifact):
    """One recipe, three fits (c1, c2, as_of): checkpoints, item vectors, indexes, encoders."""

    dataset_digest: str = Field(description="digest of the Dataset it was fitted on")
    run_id: str = Field(description="MLflow run that trained it; evaluate_recall logs its metrics there")
    model_version: str = Field(description="version of the registered model")
    epochs: int = Field(ge=0, description="epochs of the first fit up to its best checkpoint; the later fits reuse it")


class Estimate(Closed):
    """A mean over users with its 95 % bootstrap interval.  n = 0 has no value, not a zero; n = 1 no interval."""

    value: float | None = Field(description="mean; absent when n is 0")
    low: float | None = Field(description="lower end of the 95 % interval")
    high: float | None = Field(description="upper end of the 95 % interval")
    n: int = Field(ge=0, description="users that it averages over")


class RecallReport(Artifact):
    """Recall of the c2 fit on what people did in c2–as_of, with the simple baselines of the same split."""

    dataset_digest: str = Field(description="digest of the Dataset it was measured on")
    two_tower: Estimate = Field(description="recall@50 of the two-tower alone, warm users, repeats allowed")
    blend: Estimate = Field(description="recall@50 of all sources blended")
    baseline: str = Field(description="name of the best simple baseline of this split")
    best_baseline: Estimate = Field(description="its recall@50")
    blend_minus_baseline: Estimate = Field(description="paired difference, user by user")


class Candidates(Artifact):
    """The candidates of one shard of users, with each source's rank and score."""

    dataset_digest: str = Field(description="digest of the Dataset")
    retriever_digest: str = Field(description="digest of the Retriever that searched")
    shard: int = Field(ge=0, description="number of the shard")
    users: int = Field(ge=0, description="users that are served from this shard")
    lists: int = Field(ge=0, description="distinct histories: users who share one share its list")
    pairs: int = Field(ge=0, description="(list, item) rows")


class Ranker(Artifact):
    """A LightGBM lambdarank model and its honest figures."""

    dataset_digest: str = Field(description="digest of the Dataset")
    model_version: str | None = Field(description="version of the registered model; absent when nothing was learned")
    trees: int = Field(ge=0, description="trees up to the best iteration; 0: too little to learn from, order kept")
    ndcg_before: Estimate = Field(description="NDCG@10 of the candidates' own order, misses counted as 0")
    ndcg_after: Estimate = Field(description="NDCG@10 of the ranker's order, misses counted as 0")
    baseline: str = Field(description="name of the better of the simple methods that are measured for the same users")
    ndcg_baseline: Estimate = Field(description="its NDCG@10")
    after_minus_before: Estimate = Field(description="paired difference, user by user")


class Realised(Closed):
    """What the generation of the last earlier as_of was worth to the known visitors who came until this one."""

    generation: str = Field(description="name of the generation that was scored, in force or held")
    days: float = Field(gt=0, description="days between its as_of and this one")
    recall: Estimate = Field(description="recall@50 of the lists that it has for those who came")
    ndcg: Estimate = Field(description="NDCG@10 of the same lists")
    baseline: str = Field(description="name of the simple method, as of the same instant, that it is paired with")
    baseline_recall: Estimate = Field(description="its recall@50")
    recall_minus_baseline: Estimate = Field(description="paired difference, user by user")


class Publication(Artifact):
    """One generation of recommendations, in force or held."""

    generation: str = Field(description="name of the generation")
    verdict: Literal["promoted", "held", "first", "forced"] = Field(description="what the gate decided")
    reason: str = Field(description="why, with the numbers")
    in_force: str = Field(description="the generation that the shop reads now")
    store: str = Field(description="where the recommendations are")
    users: int = Field(ge=0, description="visitors with a list")
    rows: int = Field(ge=0, description="(visitor, rank) rows")
    realised: Realised | None = Field(description="what the last earlier generation was worth; absent: there is none")


class Report(Artifact):
    """The morning page: one HTML file, also on the night's own run.  No two are the same: it holds durations."""

    page: str = Field(description="name of its file")
    sections: int = Field(ge=0, description="sections that have something to tell")
    left_out: tuple[str, ...] = Field(description="titles of the sections whose facts do not exist")
    nights: int = Field(ge=0, description="other nights that it looks back on")


class Pruned(Artifact):
    """What was removed of old nights, told line by line; never metrics, nor what anything in force was made from."""

    nights: int = Field(ge=0, description="nights that lost their files")
    freed: int = Field(ge=0, description="bytes of these files")


class Backup(Artifact):
    """A checked dump of the database."""

    file: str = Field(description="name of the archive")


# --- configs: every field explained, ranged, with its production default ------------------------------------------


class Config(Closed):
    """Settings of one task.  Field names are unique across tasks: they are the fields of the trigger form."""


def _instant(value: object) -> object:
    """Reads the date picker's text; an empty field is no date."""
    if value == "":
        return None
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected an instant like 2015-08-30T00:00:00Z") from None
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return value


Instant = Annotated[AwareDatetime | None, BeforeValidator(_instant)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, description="seed of everything random")]


class PrepareDataConfig(Config):
    data: str = Field(
        min_length=1,
        description="folder, or URL of one (s3://bucket/folder), with events*.csv, item_properties*.csv, "
        "category_tree.csv; each plain, .gz, .zst or .parquet",
    )
    as_of: Instant = Field(
        None, description="only events strictly before this UTC instant count; empty: the run's date, or everything"
    )
    first_quantile: float = Field(0.70, gt=0, lt=1, description="share of the events before the first cut")
    second_quantile: float = Field(0.85, gt=0, lt=1, description="share of the events before the second cut")
    first_cut: Instant = Field(None, description="c1 as a UTC instant, with second_cut, instead of the quantiles")
    second_cut: Instant = Field(None, description="c2 as a UTC instant, with first_cut")
    validation_days: float | None = Field(
        None, gt=0, le=3650, description="days from c1 to c2, with test_days, instead of the quantiles"
    )
    test_days: float | None = Field(None, gt=0, le=3650, description="days from c2 to as_of, with validation_days")
    ranker_windows: int = Field(4, ge=2, le=12, description="label windows of the ranker between the two cuts")
    max_rejected_share: float = Field(
        0.0,
        ge=0,
        le=0.05,
        description="share of rows that may be bad before the night fails; 0.001 is lenient",
    )
    max_orphan_share: float = Field(
        0.01, ge=0, le=1, description="share of categories, and of items, whose category the tree may lack"
    )
    max_duplicate_share: float = Field(
        0.01, ge=0, le=1, description="share of exact duplicates above which the night is suspect, and holds"
    )
    max_gap_days: float = Field(
        30.0, gt=0, le=3650, description="days without an event before a last handful of rows fails: a wrong clock"
    )
    volume_tolerance: float = Field(
        2.0, ge=1, le=100, description="times the newest day may lie outside the last four weeks' volume unsuspected"
    )
    max_data_age_days: float = Field(
        2.0, gt=0, le=3650, description="days the newest event may lie before as_of; not applied to demo data"
    )
    frequent_properties: int = Field(
        10, ge=0, le=100, description="most frequent item properties before a cut that are kept, besides those known"
    )
    history_cap: int = Field(50, ge=1, le=1_000, description="newest interactions of a user that anything reads")
    users_per_shard: int = Field(
        1_000_000, ge=1_000, le=5_000_000, description="users whose candidates one shard generates"
    )

    @model_validator(mode="after")
    def _cuts_agree(self) -> Self:
        """Two cuts, chosen in one way."""
        names = ("first_cut", "second_cut"), ("validation_days", "test_days")
        given = [[name for name in pair if getattr(self, name) is not None] for pair in names]
        if sorted(map(len, given)) not in ([0, 0], [0, 2]):
            raise ValueError(
                f"{' and '.join(given[0] + given[1])} given: expected first_cut and second_cut, or validation_days and "
                "test_days, or none of them"
            )
        for low, high in (("first_quantile", "second_quantile"), ("first_cut", "second_cut")):
            first, second = getattr(self, low), getattr(self, high)
            if first is not None and first >= second:
                raise ValueError(f"{low} = {first} and {high} = {second}: expected the first before the second")
        return self


class TrainTwoTowerConfig(Config):
    heads: int = Field(
        4, ge=1, le=32, description="vectors of an item that learn alone and whose scores are averaged: an ensemble"
    )
    dim: int = Field(32, ge=4, le=512, description="learned dimensions of a head")
    window: int = Field(24, ge=2, le=200, description="newest interactions of a user that the query tower reads")
    max_epochs: int = Field(
        3, ge=1, le=100, description="passes over the windows at most; up to four times as many where there are few"
    )
    patience: int = Field(2, ge=1, le=20, description="epochs without a better validation recall before it stops")
    batch_size: int = Field(1_024, ge=16, le=65_536, description="targets (next items) in a batch, on average")
    negatives: int = Field(1_024, ge=64, le=65_536, description="shared negatives a batch")
    loss: Literal["softmax", "bpr"] = Field(
        "softmax", description="what a step of the fit lowers: sampled softmax, or Bayesian personalized ranking"
    )
    learning_rate: float = Field(
        0.02, gt=0, le=1, description="peak of the one-cycle schedule, of the item vectors; half of it for the rest"
    )
    index: Literal["flat", "hnsw", "ivf"] = Field(
        "flat", description="how items are searched: exactly, by a graph, or by cells; the last two lose some"
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the interactions in the histories that a step of the fit leaves out"
    )
    seed: Seed = 7


class EvaluateRecallConfig(Config):
    resamples: int = Field(1_000, ge=100, le=100_000, description="bootstrap resamples of an interval")
    seed: Seed = 7


class GenerateCandidatesConfig(Config):
    candidates: int = Field(300, ge=50, le=1_000, description="candidates a user")
    shard: int = Field(0, ge=0, description="number of the shard; set by the DAG, one mapped task a shard")


class TrainLambdarankConfig(Config):
    negative_share: float = Field(0.25, gt=0, le=1, description="share of the negatives kept for training")
    max_trees: int = Field(100, ge=1, le=5_000, description="trees at most; early stopping may end before")
    leaves: int = Field(7, ge=2, le=64, description="leaves of a tree")
    shrinkage: float = Field(0.1, gt=0, le=1, description="learning rate of the boosting")
    min_groups: int = Field(20, ge=1, description="groups with a positive below which nothing is learned")
    resamples: int = Field(1_000, ge=100, le=100_000, description="bootstrap resamples of an interval")
    seed: Seed = 7


_KEEP_GENERATIONS: int = Field(7, ge=2, le=365, description="newest generations that stay in the store")


class PublishRecommendationsConfig(Config):
    top: int = Field(50, ge=1, le=300, description="recommendations a visitor")
    min_coverage: float = Field(0.99, ge=0, le=1, description="share of known visitors that must have a full list")
    max_drop: float = Field(
        0.05, ge=0, lt=1, description="share of the best recent champion's recall@50 or NDCG@10 that may be lost"
    )
    publish: Literal["as_usual", "always", "never"] = Field(
        "as_usual", description="as usual, a backfill does not publish and every other night does, if the gate agrees"
    )
    force_reason: str = Field(
        "", max_length=500, description="why to publish whatever the gate says, though never an earlier as_of; kept"
    )
    keep_generations: int = _KEEP_GENERATIONS


class WriteReportConfig(Config):
    pass


class PruneNightsConfig(Config):
    keep_nights: int = Field(
        14, ge=0, le=3_650, description="nights that ran last and keep their files in MLflow; 0: all of them do"
    )
    keep_generations: int = _KEEP_GENERATIONS


class BackupMysqlConfig(Config):
    pass


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "small": {
        "heads": 1,
        "max_epochs": 1,
        "candidates": 100,
        "max_trees": 50,
        "resamples": 200,
    },
}
"""What a profile puts in the place of a default; a setting that somebody changed stays.  small tries the whole way."""


# --- the table of tasks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One row: a task's name is its task id, module, function, container argument and MLflow run name."""

    name: str
    about: str
    """What it does, in a sentence: its verb's docstring."""
    inputs: Mapping[str, Any]
    config: type[Config]
    output: type[Artifact]
    hours: float
    """Longest that a try may take: a task that hangs must not hold the night's slot for ever."""
    image: Literal["cpu", "gpu", "mysql-backup"] = "cpu"
    needs_gpu: bool = False


_DATASET = {"dataset": Dataset}
_RETRIEVER = {"dataset": Dataset, "retriever": Retriever}
_RANKED = {**_RETRIEVER, "report": RecallReport, "candidates": list[Candidates], "ranker": Ranker}

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "prepare_data",
            "Reads the shop's files, checks every row, and writes the Dataset: what was known as of the night's "
            "instant.",
            {},
            PrepareDataConfig,
            Dataset,
            hours=2,
        ),
        Task(
            "train_two_tower",
            "Fits the retriever three times by one recipe: before c1 (which makes every choice), before c2, "
            "before as_of.",
            _DATASET,
            TrainTwoTowerConfig,
            Retriever,
            hours=6,
            image="gpu",
            needs_gpu=True,
        ),
        Task(
            "evaluate_recall",
            "Measures the c2 fit on what people did in c2–as_of, beside the simple methods on the same users.",
            _RETRIEVER,
            EvaluateRecallConfig,
            RecallReport,
            hours=2,
        ),
        Task(
            "generate_candidates",
            "Generates one shard's candidates: what is served as of the night, and the groups that the ranker "
            "learns from.",
            _RETRIEVER,
            GenerateCandidatesConfig,
            Candidates,
            hours=2,
        ),
        Task(
            "train_lambdarank",
            "Learns the final order from label windows inside c1–c2, and measures it on c2–as_of.",
            {**_DATASET, "candidates": list[Candidates]},
            TrainLambdarankConfig,
            Ranker,
            hours=2,
        ),
        Task(
            "publish_recommendations",
            "Ranks every list, writes the generation, and puts it in force if the gate agrees.",
            _RANKED,
            PublishRecommendationsConfig,
            Publication,
            hours=2,
        ),
        Task(
            "write_report",
            "Writes the morning page: one HTML file of what the night did, whether it is better, and what it cost.",
            {**_RANKED, "publication": Publication},
            WriteReportConfig,
            Report,
            hours=1,
        ),
        Task(
            "prune_nights",
            "Removes the files of old nights that nothing needs any more; their metrics stay.",
            {"publication": Publication},
            PruneNightsConfig,
            Pruned,
            hours=1,
        ),
        Task(
            "backup_mysql",
            "Backs the MySQL database up; a night that publishes to SQLite has none.",
            {},
            BackupMysqlConfig,
            Backup,
            hours=2,
            image="mysql-backup",
        ),
    )
}


class RunContext(Closed):
    """Which try of which task of which Airflow run this is."""

    dag_id: str
    run_id: str
    run_type: Literal["manual", "scheduled", "backfill", "asset_triggered"] = "manual"
    logical_date: AwareDatetime | None = Field(None, description="the run's date; a person's choice only if scheduled")
    try_number: int = Field(1, ge=0)
    map_index: int = Field(-1, ge=-1, description="number of the mapped task; -1: not mapped")


class Request(Closed):
    """What a task is started with, as one JSON document.  Its answer is one artifact, as one JSON document."""

    inputs: dict[str, Any]
    config: dict[str, Any]
    run: RunContext


@cache
def inputs_model(name: str) -> type[BaseModel]:
    """The closed model of a task's input artifacts."""
    fields: dict[str, Any] = {key: (kind, ...) for key, kind in TASKS[name].inputs.items()}
    return create_model(f"{name}_inputs", __base__=Closed, **fields)


def first_problem(error: ValidationError) -> str:
    """What is wrong with a document, in a line for a person: the field, its value, what was expected, what to do."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{field} is missing; add this field and start the run again"
    if problem["type"] == "json_invalid":
        return f"it is no JSON document ({problem['msg']}); write it again"
    said = problem["msg"].removeprefix("Value error, ")
    if not field:
        return f"{said}; correct these fields and start the run again"
    return f"{field} = {problem['input']!r}: {said}; correct this field and start the run again"
