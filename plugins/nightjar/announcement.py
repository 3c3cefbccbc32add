"""What a night tells the world: an asset event when its list is live, a word to a person when it was held."""

from typing import Any

from airflow.sdk import Asset, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from nightjar.notifier import tell

PUBLICATION = Asset(name="nightjar_publication", uri="nightjar://publication", group="nightjar")
"""Another DAG waits for it: `schedule=[Asset(name="nightjar_publication", uri="nightjar://publication")]`."""


@task(outlets=[PUBLICATION])
def announce(publication: dict[str, Any]) -> None:
    """Succeeds, with an event, when this night's generation is the one that the shop reads; is skipped otherwise."""
    context = get_current_context()
    verdict, reason = publication["verdict"], publication["reason"]
    if publication["in_force"] != publication["generation"]:
        message = (
            f"the night {context['run_id']} is {verdict}: {reason}; in force: {publication['in_force'] or 'nothing'}"
        )
        if str(context["dag_run"].run_type) != "backfill":  # nobody expects a backfill to go live
            tell(context, message)
        raise AirflowSkipException(message)
    context["outlet_events"][PUBLICATION].extra = {
        "run_id": context["run_id"],
        **{key: publication[key] for key in ("verdict", "reason", "generation", "as_of", "uri", "store", "users")},
    }
