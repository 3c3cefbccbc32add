"""The summary of a night, from the records that the process runner leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks import summary
from tests.world import Home

ESTIMATE = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 390}
NOBODY = {"value": None, "low": None, "high": None, "n": 0}
RECALL = {
    "uri": "runs:/1/recall",
    "digest": "sha256:1",
    "two_tower": ESTIMATE,
    "blend": ESTIMATE,
    "baseline": "rp3beta",
    "best_baseline": NOBODY,
    "blend_minus_baseline": NOBODY,
}


def leave(work: Path, task: str, number: int, **facts: Any) -> None:
    folder = work / task / f"try-{number}"
    folder.mkdir(parents=True)
    name, _, index = task.partition(".")
    known = {"task": name, "map_index": int(index or -1), "try": number, "state": "success", "seconds": 1.5}
    used = {"cpu_seconds": 1.0, "peak_memory_bytes": 2_000_000_000, "exit_code": 0, "last_line": "", "answer": None}
    (folder / "record.json").write_text(json.dumps(known | used | facts))


def shown(work: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], dict[str, Any]]:
    assert summary.main([str(work), str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines, json.loads(Path(lines[-1]).read_text())


def test_a_line_a_task_in_the_order_of_the_night_with_its_last_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    for shard in (10, 2):
        leave(work, f"generate_candidates.{shard}", 1)
    leave(work, "prepare_data", 1, state="failed", exit_code=75, last_line="MLflow does not answer")
    leave(work, "prepare_data", 2)
    lines, facts = shown(work, tmp_path / "night", capsys)
    assert [(one["task"], one["map_index"], one["state"]) for one in facts["tasks"]] == [
        ("prepare_data", -1, "success"),
        ("generate_candidates", 2, "success"),
        ("generate_candidates", 10, "success"),
    ]
    assert any(line.split()[:4] == ["generate_candidates[10]", "success", "1.5", "2.00"] for line in lines)
    assert lines[-1] == str(tmp_path / "night" / "summary.json")


def test_each_number_has_its_baseline_and_interval_beside_it_and_none_is_no_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(tmp_path / "work", "evaluate_recall", 1, answer=RECALL)
    lines, facts = shown(tmp_path / "work", tmp_path / "night", capsys)
    text = "\n".join(lines)
    assert "recall@50, all sources blended" in text and "0.2500  [0.2000, 0.3000]" in text
    (baseline,) = [line for line in lines if "best baseline: rp3beta" in line]
    assert baseline.split()[-3:] == ["none", "none", "0"]
    assert [row["value"] for row in facts["headline"]] == [0.25, 0.25, None, None]


def test_the_morning_page_lies_beside_the_summary(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with home.task("write_report") as run:
        page = run.work / "report"
        page.mkdir()
        (page / "report.html").write_text("good morning")
        written = run.store(page, 1)
    answer = {**written, "page": "report.html", "sections": 12, "left_out": ["Realised recall"], "nights": 0}
    leave(tmp_path / "work", "write_report", 1, answer=answer)
    lines, facts = shown(tmp_path / "work", tmp_path / "night", capsys)
    path = tmp_path / "night" / "report.html"
    assert path.read_text() == "good morning"
    assert f"the morning page, for a browser: {path}" in lines
    assert (facts["report"]["file"], facts["report"]["uri"]) == (str(path), written["uri"])


def test_a_try_that_left_no_record_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "work" / "train_two_tower" / "try-1").mkdir(parents=True)
    _, facts = shown(tmp_path / "work", tmp_path / "night", capsys)
    (task,) = facts["tasks"]
    assert (task["state"], task["exit_code"]) == ("killed", None)


def test_what_the_earlier_lists_were_worth_has_its_baseline_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    realised = {
        "generation": "yesterday's",
        "days": 1.0,
        "recall": ESTIMATE,
        "ndcg": NOBODY,
        "baseline": "own_history_then_popular",
        "baseline_recall": ESTIMATE,
        "recall_minus_baseline": NOBODY,
    }
    published = dict.fromkeys(summary.PUBLICATION, "") | {"users": 1, "rows": 50, "uri": "", "digest": ""}
    answer = {**published, "realised": realised}
    leave(tmp_path / "work", "publish_recommendations", 1, answer=answer)
    lines, facts = shown(tmp_path / "work", tmp_path / "night", capsys)
    first = next(number for number, line in enumerate(lines) if "in the 1.0 days since yesterday's" in line)
    assert "0.2500  [0.2000, 0.3000]" in lines[first + 1]
    assert "own_history_then_popular" in lines[first + 2]
    assert facts["realised"] == realised
