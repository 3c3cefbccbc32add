"""What the scripts of `bin/` share: the DAG's name, a refusal in one line, the run's parameters from a person's words.

Standard library only: the scripts run outside Airflow's environment.
"""

import json
from pathlib import Path
from typing import Any

DAG = "nightly_retraining"


class Refused(Exception):
    """What is asked for cannot be done, and the message says why in one line."""


def parameters(data: str, settings: str) -> dict[str, Any]:
    """The settings of the trigger form that DATA and SETTINGS name; a folder that is not there is told at once."""
    try:
        chosen = json.loads(settings or "{}")
    except ValueError:
        chosen = None
    if not isinstance(chosen, dict):
        raise Refused(f'SETTINGS={settings} is no JSON object; write it like {{"profile": "small"}}')
    if not data:
        return chosen
    if "://" in data:
        return {"data": data} | chosen
    folder = Path(data).absolute()
    if not folder.is_dir():
        raise Refused(f"DATA={data} is no folder; name one with events.csv in the Retailrocket format, or a URL")
    return {"data": str(folder)} | chosen
