"""python -m tasks.summary WORK OUT: what a night did, for a person, and summary.json with the same facts.

WORK is the folder where the process runner kept each task's record; OUT is where summary.json goes, and a copy of the
morning page.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.contracts import TASKS

Record = Mapping[str, Any]

TWO_TOWER = "recall@50, two-tower alone"
BLEND = "recall@50, all sources blended"
BEFORE, AFTER = "NDCG@10, before ranking", "NDCG@10, after ranking"


def main(argv: list[str]) -> int:
    """Prints the summary; its last line is the path of summary.json."""
    work, out = (Path(argument) for argument in argv)
    records = list(_records(work))
    facts = summarize(records)
    out.mkdir(parents=True, exist_ok=True)
    if facts["report"]:
        facts["report"]["file"] = _copied(facts["report"], out)
    path = out / "summary.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(facts, indent=1))
    partial.rename(path)
    print("\n".join(lines(facts)))
    print(path)
    return 0


def summarize(records: list[Record]) -> dict[str, Any]:
    """The facts of a night from the records of its tasks' last tries."""
    answers = {record["task"]: record["answer"] for record in records if record["answer"]}
    names = ("prepare_data", "publish_recommendations", "write_report")
    dataset, publication, report = (answers.get(name) for name in names)
    return {
        "as_of": _iso(dataset["as_of"]) if dataset else None,
        "data": {key: dataset[key] for key in ("events", "users", "items", "duplicates", "rejected")}
        if dataset
        else {},
        "tasks": [_task(record) for record in records],
        "headline": _headline(answers.get("evaluate_recall"), answers.get("train_lambdarank")),
        "realised": publication and publication.get("realised"),
        "publication": publication and {key: publication[key] for key in PUBLICATION},
        "report": report and {key: report[key] for key in REPORT},
        "mlflow": os.environ.get("MLFLOW_TRACKING_URI", ""),
    }


PUBLICATION = ("generation", "verdict", "reason", "in_force", "store", "users", "rows", "digest")
REPORT = ("uri", "page", "sections", "left_out")
TASK = ("task", "map_index", "state", "seconds", "cpu_seconds", "peak_memory_bytes", "exit_code", "last_line")


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The summary for a person."""
    yield ""
    if facts["as_of"]:
        counts = ", ".join(f"{number:,} {name}" for name, number in facts["data"].items())
        yield f"The night as of {facts['as_of']}: {counts}"
        yield ""
    yield f"{'task':<26}{'state':<9}{'seconds':>8}{'peak GB':>9}  artifact"
    for task in facts["tasks"]:
        name = task["task"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else "")
        shown = task["uri"] or task["last_line"] or ""
        yield f"{name:<26}{task['state']:<9}{task['seconds']:>8.1f}{task['peak_memory_bytes'] / 1e9:>9.2f}  {shown}"
    if facts["headline"]:
        yield ""
        yield f"{'measured on c2–as_of, warm users':<62}{'value':>8}  {'95 % interval':<18}{'n':>7}"
        for row in facts["headline"]:
            yield _measured(row)
    if facts["realised"]:
        yield from _realised(facts["realised"])
    if facts["publication"]:
        yield from _published(facts["publication"])
    if facts["report"]:
        yield f"the morning page, for a browser: {facts['report']['file']}"
    yield "MLflow and Airflow UIs: make up (prints the addresses and how to log in; make down stops them)"


def _records(work: Path) -> Iterator[Record]:
    """The record of the last try of each task and shard, in the order of the table of tasks."""
    last: dict[tuple[int, int], tuple[int, Record]] = {}
    for folder in work.glob("*/try-*"):
        record = _record(folder)
        key = list(TASKS).index(record["task"]), record["map_index"]
        last[key] = max(last.get(key, (0, record)), (record["try"], record), key=lambda pair: pair[0])
    for _, (_, record) in sorted(last.items(), key=lambda item: item[0]):
        yield record


def _record(folder: Path) -> Record:
    """The record of a try, or what is known of one that had no time to leave any: TASK[.INDEX]/try-N."""
    path = folder / "record.json"
    if path.is_file():
        record: Record = json.loads(path.read_text())
        return record
    task, _, index = folder.parent.name.partition(".")
    lost = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_memory_bytes": 0, "exit_code": None, "answer": None}
    why = "ended without a record: it was killed together with what ran it"
    number = int(folder.name.removeprefix("try-"))
    return {"task": task, "map_index": int(index or -1), "try": number, "state": "killed", "last_line": why, **lost}


def _copied(report: Record, out: Path) -> str:
    """Copies the morning page out of MLflow; returns its path."""
    from tasks import tracking  # slow to import: only where there is a page

    return str(tracking.copy(f"{report['uri']}/{report['page']}", out))


def _task(record: Record) -> dict[str, Any]:
    answer = record["answer"] or {}
    return {key: record[key] for key in TASK} | {"uri": answer.get("uri"), "digest": answer.get("digest")}


def _headline(recall: Record | None, ranker: Record | None) -> list[dict[str, Any]]:
    """Each number with its baseline below it."""
    rows: list[dict[str, Any]] = []

    def row(name: str, estimate: Record) -> None:
        rows.append({"name": name, **estimate})

    if recall:
        row(TWO_TOWER, recall["two_tower"])
        row(BLEND, recall["blend"])
        row(f"  best baseline: {recall['baseline']}", recall["best_baseline"])
        row("  blend minus best baseline, paired", recall["blend_minus_baseline"])
    if ranker:
        row(BEFORE, ranker["ndcg_before"])
        row(AFTER, ranker["ndcg_after"])
        row(f"  best baseline: {ranker['baseline']}", ranker["ndcg_baseline"])
        row("  after minus before, paired", ranker["after_minus_before"])
    return rows


def _measured(row: Mapping[str, Any]) -> str:
    value = "none" if row["value"] is None else f"{row['value']:.4f}"
    interval = "none" if row["low"] is None else f"[{row['low']:.4f}, {row['high']:.4f}]"
    return f"{row['name']:<62}{value:>8}  {interval:<18}{row['n']:>7,}"


def _realised(realised: Mapping[str, Any]) -> Iterator[str]:
    """What the earlier lists were worth, each number with its baseline below it."""
    window = f"realised in the {realised['days']:.1f} days since {realised['generation']}"
    yield ""
    yield f"{window:<62}{'value':>8}  {'95 % interval':<18}{'n':>7}"
    yield _measured({"name": "recall@50, its lists", **realised["recall"]})
    yield _measured({"name": f"  as of then: {realised['baseline']}", **realised["baseline_recall"]})
    yield _measured({"name": "  its lists minus that, paired", **realised["recall_minus_baseline"]})
    yield _measured({"name": "NDCG@10, its lists", **realised["ndcg"]})


def _published(publication: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"verdict: {publication['verdict']} ({publication['reason']})"
    yield f"generation {publication['generation']}: {publication['users']:,} visitors, {publication['rows']:,} rows"
    yield f"in force: {publication['in_force']}, in {publication['store']}"
    yield "read it: make recommendations OUT=recs.parquet"


def _iso(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
