"""What MLflow tells of the nights before."""

from tasks import nights, tracking
from tasks.failures import BadData, Skipped
from tests.world import Home


def test_the_newest_nights_come_first_with_what_the_last_good_try_left(home: Home) -> None:
    for number in range(3):
        run_id = f"manual__{number}"
        for value in (0.25, 0.5):
            with home.task("prepare_data", run_id=run_id) as run:
                run.metrics({"events": value})
                run.tags({"as_of": str(1_000 + number)})
        run.tags({"verdict": "held"}, run_id=run.night)
    told = nights.newest(tracking.connect(), 2)
    assert [(night.as_of, night.verdict, night.metrics["events"]) for night in told] == [
        (1_002, "held", 0.5),
        (1_001, "held", 0.5),
    ]
    assert told[0] == nights.told(tracking.connect(), told[0].run_id)
    spent = told[0].spent["prepare_data"]
    assert spent.seconds >= 0 and (spent.peak_memory or 0) > 1e6


def test_a_try_that_failed_or_was_skipped_spent_nothing_that_counts(home: Home) -> None:
    for error in (BadData("no"), Skipped("none here")):
        try:
            with home.task("backup_mysql"):
                raise error
        except (BadData, Skipped):
            pass
    with home.task("generate_candidates", map_index=1):
        pass
    (night,) = nights.newest(tracking.connect(), 9)
    assert list(night.spent) == ["generate_candidates[1]"]
    assert (night.as_of, night.verdict) == (None, "")
