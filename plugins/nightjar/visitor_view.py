"""The view *One visitor* of Airflow's UI: what a visitor did, gets, and why, as `python -m tasks.visitor` tells it.

It runs where the tasks' environment is on the machine that serves the pages; elsewhere the page names the command.
"""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from threading import Lock
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from nightjar import pages

PREFIX = "/nightjar/visitor"
VISITOR = re.compile("[0-9]{1,18}")
PATIENCE = 120.0
"""Seconds that a look-up may take."""
SHOWN = 10
"""Interactions of a visitor."""
ONE_AT_A_TIME = Lock()
"""Each reads a shard of candidates into memory."""

Found = dict[str, Any]


def shown(visitor: str, told: str = "") -> str:
    """The page: the field, and below what is told, as HTML."""
    field = f'<input name="visitor" value="{escape(visitor)}" inputmode="numeric" required aria-label="visitorid">'
    return pages.page("One visitor", f"<form>visitorid {field} <button>Show</button></form>{told}")


def asked(visitor: str) -> str:
    """What there is of a visitor, a whole number, as HTML."""
    python = os.environ.get("NIGHTJAR_TASKS_PYTHON", "")
    if not python:
        shows = f"docker compose run --rm tasks python -m tasks.visitor {visitor}"
        return f"<p>The tasks' environment is not where this page is made. This shows it:</p><pre>{escape(shows)}</pre>"
    try:
        with ONE_AT_A_TIME:
            command = [python, "-m", "tasks.visitor", visitor, "--json"]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"<p>No answer within {PATIENCE:.0f} s.</p>"
    if ran.stdout:
        return told(json.loads(ran.stdout))
    return f"<p>{escape((ran.stderr.splitlines() or ['no answer'])[-1])}</p>"


def told(found: Found) -> str:
    """What `tasks.visitor` has found, as HTML."""
    state = "in force" if found["in_force"] else "not in force"
    about = f"Generation {found['generation']} ({state}), as of {_minute(found['as_of'])} UTC."
    if not found["known"]:
        items = ", ".join(map(str, found["default"]))
        return f"<p>{escape(about)}</p><p>Not known: no interaction before that instant. Gets {escape(items)}, …</p>"
    did = [_cells([_minute(one["time"]), one["event"], one["item"]]) for one in found["history"][:SHOWN]]
    after = found["length"]
    same = f"NOT THE PUBLISHED LIST: {found['differs']}" if found["differs"] else "The same list as is published."
    return "".join(
        [
            f"<p>{escape(about)} <strong>{escape(same)}</strong></p>",
            f"<h2>Did, the newest first, {len(found['history'])} in all</h2>{_table(['UTC', 'event', 'item'], did)}",
            f"<h2>Gets {after} items; the first {len(found['listed'])}</h2>{_ranked(found['listed'], 1)}",
            f"<h2>Just missed the list</h2>{_ranked(found['missed'], after + 1)}" if found["missed"] else "",
        ]
    )


def _ranked(candidates: Sequence[Found], first: int) -> str:
    rows = [
        _cells(
            [
                rank,
                one["item"],
                f"{one['score']:.4f}",
                one["place"],
                ", ".join(f"{k} {v}" for k, v in one["sources"].items()),
            ]
        )
        + f"<td>{''.join(_reason(reason) for reason in one['reasons'])}</td>"
        for rank, one in enumerate(candidates, first)
    ]
    head = ["rank", "item", "score", "place in the blend", "sources and ranks there", "what moved the score most"]
    return _table(head, rows)


def _reason(reason: Found) -> str:
    value = "missing" if reason["value"] is None else f"{reason['value']:.6g} ({reason['unit']})"
    return f"<small>{reason['moved']:+.4f} {escape(reason['meaning'])}: {escape(value)}</small>"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    """rows: cells as HTML."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><tr>{names}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _cells(values: Sequence[object]) -> str:
    return "".join(f"<td>{escape(str(value))}</td>" for value in values)


def _minute(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _add_routes(application: Any) -> None:
    from fastapi.responses import HTMLResponse

    def one_visitor(visitor: str = "") -> HTMLResponse:
        if visitor and not VISITOR.fullmatch(visitor):
            wrong = shown(visitor[:100], "<p>A visitorid is a whole number, like 257597.</p>")
            return HTMLResponse(wrong, 400, headers=pages.HEADERS)
        return HTMLResponse(shown(visitor, asked(visitor) if visitor else ""), headers=pages.HEADERS)

    application.get("/")(one_visitor)


APPS: list[Any] = [{"app": pages.application(_add_routes), "url_prefix": PREFIX, "name": "visitor"}]
VIEWS: list[Any] = [{"name": "One visitor", "href": f"{PREFIX}/", "destination": "nav", "url_route": "visitor"}]


class VisitorPlugin(AirflowPlugin):
    """An entry of the navigation."""

    name = "nightjar_visitor"
    fastapi_apps = APPS
    external_views = VIEWS
