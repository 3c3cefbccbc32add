"""
### Retrains the recommender and publishes what it recommends

```
prepare_data ─► train_two_tower ─┬─► evaluate_recall ──────────────────────────────────┐
                                 └─► generate_candidates, sharded ─► train_lambdarank ─┴─► publish_recommendations
publish_recommendations ─► write_report, the morning page ─┬─► announce
                                                           └─► prune_nights: files of old nights that nothing needs
backup_mysql: always runs at the end; its failure fails the night
end: always runs, too; a night that is set to failed as a whole is red
```

Every night at 00:00 UTC it reads the events before its `as_of`, fits the retriever three times, measures it against
simple baselines on events that it has not seen, generates candidates, trains the ranker on them, and publishes the
top of the list. Publication is gated: a night that is not better than the baselines leaves yesterday's list in force
and says why. A backfill of past days never takes the shop back in time.

**Parameters.** The trigger form has them all. Most nights need none. The section *This night*:

- `as_of`: only events strictly before this UTC instant count. Empty: a scheduled or backfilled night takes its date, a
  night that a person starts takes everything there is. It is the only date that counts then; the form's *logical date*
  is not read.
- `data`: the folder, or the URL of one, with the events.
- `profile`: `full` is what the shop gets; `small` tries the whole way in a fraction of the time. It replaces what you
  leave at its default.
- `publish`: `as_usual` means that a backfill does not publish, and every other night does if the gate agrees; `always`
  lets a backfill publish, too; `never` keeps tonight's generation out of force.
- `force_reason`: why tonight's generation goes into force whatever the gate says; kept, verdict `forced`. An earlier
  `as_of` than the one in force is not forced either.

One section a task follows. A wrong setting is refused by the form, or by `prepare_data` within seconds, with its name.

**Backfill** is the form's second choice, for past days; each day is a run whose `as_of` is its midnight. It publishes
nothing unless `publish` is `always`. Runs wait for one another in the pool `nightjar`, which has one slot.

**When it is red.** Open the red task's log: its last line says what went wrong, the value, what was expected and what
to do; the task's own documentation says the rest. A task that failed for a passing reason has been tried three times
already. Bad data and bad settings are not tried again: correct them and clear the task, or trigger anew. Nothing is
published by a night that is red before `publish_recommendations`; yesterday's list stays in force. If `write_report` is
red, the gate has spoken and what it let through is published, but nobody has been told: clear that task once its reason
is gone, and `announce` follows. If only `backup_mysql` is red, the list is published and the database has no new dump:
clear that task once its reason is gone. If `end` is red, somebody has ended the night by hand. If `announce` is
skipped, the night is held or a backfill: its log has the reason, and yesterday's list is in force.

**Links.** Each task's page links its MLflow run and its artifact, that of `write_report` the morning page. A list that
goes live is an event of the asset `nightjar_publication`, with run, verdict, generation and `as_of`.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from nightjar.announcement import announce
from nightjar.notifier import tell_failed
from nightjar.operators import run_task
from nightjar.params import trigger_form

SHARD = (
    "shard {{ task.settings['shard'] + 1 }} of {{ task.inputs['dataset']['shards'] }}"
    "{% if task.artifact %}: {{ '{:,}'.format(task.artifact['users']) }} users{% endif %}"
)


@task
def shards(dataset: dict[str, Any]) -> list[dict[str, int]]:
    """One mapped task for each shard of users."""
    return [{"shard": number} for number in range(dataset["shards"])]


@task
def end() -> None:
    """Fails a run that somebody set to failed: Airflow skips what had not begun, and skipped leaves count as green."""
    this = get_current_context()["ti"]
    if this.get_ti_count(dag_id=this.dag_id, run_ids=[this.run_id], task_ids=["write_report"], states=["skipped"]):
        raise AirflowFailException("the night was ended by hand before its report: it is red, whatever was skipped")


with DAG(
    "nightly_retraining",
    doc_md=__doc__,
    description="Retrains the recommender and publishes what it recommends",
    # No start_date: with one, the night of the last midnight begins as soon as the DAG is switched on.
    schedule=CronTriggerTimetable("0 0 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    params=trigger_form(),
    on_failure_callback=tell_failed,
    tags=["recommender"],
    default_args={
        "owner": "nightjar",
        "pool": "nightjar",  # one slot: the guard that backfills obey, too
        "retries": 2,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 3.0,
        "max_retry_delay": timedelta(minutes=5),
    },
) as dag:
    dataset = run_task("prepare_data")
    retriever = run_task("train_two_tower", dataset=dataset)
    report = run_task("evaluate_recall", dataset=dataset, retriever=retriever)
    candidates = run_task(
        "generate_candidates", each=shards(dataset.output), called=SHARD, dataset=dataset, retriever=retriever
    )
    ranker = run_task("train_lambdarank", dataset=dataset, candidates=candidates)
    publication = run_task(
        "publish_recommendations",
        dataset=dataset,
        retriever=retriever,
        report=report,
        candidates=candidates,
        ranker=ranker,
    )
    page = run_task(
        "write_report",
        dataset=dataset,
        retriever=retriever,
        report=report,
        candidates=candidates,
        ranker=ranker,
        publication=publication,
    )
    # A plain leaf beside the teardown: without it a backup that succeeds would turn a failed night green.
    page.operator >> announce(publication.output)
    page.operator >> run_task("prune_nights", publication=publication).operator
    page.operator >> run_task("backup_mysql").operator.as_teardown(on_failure_fail_dagrun=True)
    page.operator >> end().as_teardown(on_failure_fail_dagrun=True)
