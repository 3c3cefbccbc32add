"""The trigger form: one field for each setting of each task, made from the contracts."""

import os
from typing import Any

from airflow.sdk import Param

from tasks.contracts import TASKS

SET_BY_THE_DAG = {"shard"}


def trigger_form() -> dict[str, Param]:
    """The DAG's params: type, range, default and description of every config field, a section for each task."""
    fields: dict[str, Param] = {}
    for task in TASKS.values():
        schemas = task.config.model_json_schema()["properties"] if task.config.model_fields else {}
        for name, schema in schemas.items():
            # A field that two tasks share is one field of the form.
            if name not in SET_BY_THE_DAG and name not in fields:
                fields[name] = _field(name, schema, section=task.name)
    return fields


def _field(name: str, schema: dict[str, Any], section: str) -> Param:
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "default", "description", "title")}
    if "anyOf" in schema:  # pydantic's "something or nothing"; the form knows it as a list of types
        something = next(one for one in schema["anyOf"] if one["type"] != "null")
        kept |= {**something, "type": ["null", something["type"]]}
    default = default_data() if name == "data" else schema.get("default")
    return Param(default, description=schema.get("description"), title=name, section=section, **kept)


def default_data() -> str:
    """The folder that a night reads when nobody names one."""
    return os.environ.get("NIGHTJAR_DATA") or f"{os.environ.get('NIGHTJAR_HOME', '')}/demo/default"
