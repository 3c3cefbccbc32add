"""The trigger form, made from the contracts, and what a task reads of it."""

import difflib
import os
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param
from pydantic import ValidationError

from tasks.contracts import PROFILES, TASKS, Task, first_problem

SET_BY_THE_DAG = {"shard"}
THIS_NIGHT = ("as_of", "data", "profile", "publish", "force_reason")
"""What a person who starts a night may want to choose; the rest is tuning, a section a task."""


def trigger_form() -> dict[str, Param]:
    """The DAG's params: type, range, default and help of every setting; first those of THIS_NIGHT."""
    fields = {"profile": _profile()}
    for task in TASKS.values():
        schemas = task.config.model_json_schema()["properties"] if task.config.model_fields else {}
        for name, schema in schemas.items():
            # A field that two tasks share is one field of the form.
            if name not in SET_BY_THE_DAG and name not in fields:
                fields[name] = _field(name, schema, section="This night" if name in THIS_NIGHT else task.name)
    first = {name: fields.pop(name) for name in THIS_NIGHT if name in fields}
    return first | fields


def settings_of(task: Task, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the form says to one task.  An empty field is no choice; a profile replaces what was left at its default."""
    profile = PROFILES[params.get("profile") or "full"]
    found: dict[str, Any] = {}
    for name, field in task.config.model_fields.items():
        value = params.get(name)
        if value is None or value == field.default:
            value = profile.get(name, value)
        if value is not None:
            found[name] = value
    return found


def problem_of(params: Mapping[str, Any]) -> str | None:
    """What is wrong with the form, of whichever task, in a line; the night's first task asks before it starts."""
    known = {"profile"} | {name for task in TASKS.values() for name in task.config.model_fields}
    for name in params:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            return f"{name} is no setting{f' (is {close[0]} meant?)' if close else ''}; take it out and trigger anew"
    if params.get("profile") not in (None, *PROFILES):
        return f"profile = {params['profile']!r}: expected one of {', '.join(PROFILES)}"
    for task in TASKS.values():
        try:
            task.config.model_validate(settings_of(task, params))
        except ValidationError as error:
            return f"{task.name}: {first_problem(error)}"
    return None


def _profile() -> Param:
    small = ", ".join(f"{name} {value}" for name, value in PROFILES["small"].items())
    return Param(
        "full",
        description=f"full: what the shop gets. small: tries the whole way quickly ({small}, where you change nothing)",
        title="profile",
        section="This night",
        type="string",
        enum=list(PROFILES),
    )


def _field(name: str, schema: dict[str, Any], section: str) -> Param:
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "default", "description", "title")}
    if "anyOf" in schema:  # pydantic's "something or nothing"; the form knows it as a list of types
        something = next(one for one in schema["anyOf"] if one["type"] != "null")
        kept |= {**something, "type": ["null", something["type"]]}
    default = default_data() if name == "data" else schema.get("default")
    if default == "":
        kept["type"] = ["null", "string"]  # else the form takes an empty field for a forgotten one
    description = f"{schema['description']}{_range(kept)}"
    return Param(default, description=description, title=name, section=section, **kept)


def _range(schema: Mapping[str, Any]) -> str:
    """The limits in words: the form shows them nowhere else."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    least = f"{low:,}" if low is not None else f"above {above:,}" if above is not None else ""
    most = f"to {high:,}" if high is not None else f"to below {below:,}" if below is not None else "or more"
    return f" ({least} {most})" if least else ""


def default_data() -> str:
    """The folder that a night reads when nobody names one."""
    return os.environ.get("NIGHTJAR_DATA") or f"{os.environ.get('NIGHTJAR_HOME', '')}/demo/default"
