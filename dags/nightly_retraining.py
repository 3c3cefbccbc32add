"""
### Retrains the recommender and publishes what it recommends

```
prepare_data ─► train_two_tower ─┬─► evaluate_recall ──────────────────────────────┬─► publish_recommendations ─► done
                                 └─► generate_candidates (a shard each) ─► train_lambdarank ─┘
backup_mysql: always runs at the end; its failure fails the night
```

Every night at 00:00 UTC it reads the events before its `as_of`, fits the retriever three times, measures it against
simple baselines on events that it has not seen, generates candidates, trains the ranker on them, and publishes the
top of the list. Publication is gated: a night that is not better than the baselines leaves yesterday's list in force
and says why. A backfill of past days never takes the shop back in time.

**Parameters.** The trigger form has them all, a section for each task. Most nights need none. `data` is the folder of
the events; `as_of` reruns a day: only events strictly before that instant count. Left empty, a scheduled or backfilled
night takes its own date, and a night that a person starts takes everything there is.

**When it is red.** Open the red task's log: its last line says what went wrong, the value, what was expected and what
to do. A task that failed for a passing reason has been tried three times already. Bad data and bad settings are not
tried again: correct them and clear the task, or trigger anew. Nothing is published by a night that is red before
`publish_recommendations`; yesterday's list stays in force. If only `backup_mysql` is red, the list is published and
the database has no new dump: clear that task once its reason is gone.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, task

from nightjar.operators import run_task
from nightjar.params import trigger_form


@task
def shards(dataset: dict[str, Any]) -> list[dict[str, int]]:
    """One mapped task for each shard of users."""
    return [{"shard": number} for number in range(dataset["shards"])]


with DAG(
    "nightly_retraining",
    doc_md=__doc__,
    description="Retrains the recommender and publishes what it recommends",
    schedule=CronTriggerTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2015, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=trigger_form(),
    tags=["recommender"],
    default_args={
        "owner": "nightjar",
        "pool": "nightjar",  # one slot: the guard that backfills obey, too
        "retries": 2,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 3.0,
        "max_retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=6),  # a task that hangs must not hold the slot for ever
    },
) as dag:
    dataset = run_task("prepare_data")
    retriever = run_task("train_two_tower", dataset=dataset)
    report = run_task("evaluate_recall", dataset=dataset, retriever=retriever)
    candidates = run_task("generate_candidates", each=shards(dataset.output), dataset=dataset, retriever=retriever)
    ranker = run_task("train_lambdarank", dataset=dataset, candidates=candidates)
    publication = run_task(
        "publish_recommendations",
        dataset=dataset,
        retriever=retriever,
        report=report,
        candidates=candidates,
        ranker=ranker,
    )
    # A plain leaf beside the teardown: without it a backup that succeeds would turn a failed night green.
    done = EmptyOperator(task_id="done")
    backup = run_task("backup_mysql").operator.as_teardown(on_failure_fail_dagrun=True)
    publication.operator >> [done, backup]
