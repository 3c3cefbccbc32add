"""Who hears of a night that is red or held: any notifier of Airflow's providers, by one setting.

NIGHTJAR_NOTIFIER is a JSON object: `class`, the notifier's dotted name, and its arguments, in which {{ message }}
stands for what there is to say:

    {"class": "airflow.providers.smtp.notifications.smtp.SmtpNotifier", "smtp_conn_id": "mail",
     "to": "ops@shop.example", "subject": "{{ message }}", "html_content": "{{ message }}"}

Without it the message goes to the log: of the task, or for a failed run of the DAG processor.
"""

import json
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from airflow.sdk import BaseNotifier, Context

SETTING = "NIGHTJAR_NOTIFIER"


class LogNotifier(BaseNotifier):
    """Writes the message to the log."""

    template_fields: Sequence[str] = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Context) -> None:
        """Logs it as a warning."""
        self.log.warning("%s", self.text)


def notifier() -> BaseNotifier:
    """The one that the installation has chosen; ValueError when the setting names none."""
    chosen = os.environ.get(SETTING) or json.dumps({"class": f"{__name__}.LogNotifier", "text": "{{ message }}"})
    try:
        arguments = json.loads(chosen)
        module, _, name = arguments.pop("class").rpartition(".")
        made: BaseNotifier = getattr(import_module(module), name)(**arguments)
    except (ValueError, KeyError, AttributeError, ImportError, TypeError) as error:
        raise ValueError(
            f'{SETTING} = {chosen}: {error!r}; expected a JSON object like {{"class": "package.module.Notifier", '
            '"argument": "{{ message }}"}'
        ) from None
    return made


def tell(context: Context, message: str) -> None:
    """Says it to whoever is to hear it."""
    said: dict[str, Any] = {**context, "message": message}
    notifier()(said)


def tell_failed(context: Context) -> None:
    """The DAG's on_failure_callback; the context of a run that took too long has no task."""
    task = f": {context['ti'].task_id}, its log says why" if "ti" in context else f" ({context.get('reason')})"
    tell(context, f"the night {context['run_id']} is red{task}")
