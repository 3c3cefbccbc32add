"""The view *Nights* of Airflow's UI: what became of each night, and its morning page, as MLflow's server has them."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from airflow.plugins_manager import AirflowPlugin

from nightjar import pages

PREFIX = "/nightjar/nights"
EXPERIMENT = "nightjar"
PAGE = "report/report.html"
SHOWN = 100
PATIENCE = 20.0
"""Seconds that MLflow may take to answer."""
RUN_ID = re.compile("[0-9a-f]{32}")


def listed(nights: list[dict[str, Any]]) -> str:
    """The page of all nights; nights: MLflow's runs, the newest first."""
    rows = "".join(_row(night) for night in nights)
    head = "".join(f"<th>{name}</th>" for name in ("begun, UTC", "as of", "state", "verdict", "why", ""))
    body = f"<table><tr>{head}</tr>{rows}</table>" if nights else "<p>There is no night yet.</p>"
    return pages.page("Nights", body)


def _row(night: dict[str, Any]) -> str:
    info = night["info"]
    tags = {tag["key"]: tag["value"] for tag in night["data"].get("tags", [])}
    as_of = tags.get("as_of", "")
    cells = [
        _minute(int(info["start_time"])),
        _minute(int(as_of)) if as_of else "",
        info["status"].lower(),
        tags.get("verdict", ""),
        tags.get("reason", ""),
    ]
    link = f'<a href="{PREFIX}/{quote(info["run_id"], safe="")}">morning page</a>' if "report" in tags else ""
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}<td>{link}</td></tr>"


def _minute(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _mlflow(path: str, body: dict[str, Any] | None = None) -> bytes:
    """MLflow's answer, from where the tasks reach it, or else from where a person does: both may be one machine."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    base = tracking if tracking.startswith("http") else os.environ.get("NIGHTJAR_MLFLOW_UI", "")
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{base.rstrip('/')}/{path}", data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=PATIENCE) as answer:
        content: bytes = answer.read()
    return content


def _nights() -> list[dict[str, Any]]:
    """MLflow's runs of the newest nights."""
    asked = urlencode({"experiment_name": EXPERIMENT})
    experiment = json.loads(_mlflow(f"api/2.0/mlflow/experiments/get-by-name?{asked}"))["experiment"]["experiment_id"]
    wanted = {
        "experiment_ids": [experiment],
        "filter": "tags.`nightjar.night` = 'true'",
        "order_by": ["attributes.start_time DESC"],
        "max_results": SHOWN,
    }
    runs: list[dict[str, Any]] = json.loads(_mlflow("api/2.0/mlflow/runs/search", wanted)).get("runs", [])
    return runs


def _add_routes(application: Any) -> None:
    from fastapi import HTTPException
    from fastapi.responses import HTMLResponse

    def answered(make: Callable[[], str]) -> HTMLResponse:
        try:
            return HTMLResponse(make(), headers=pages.HEADERS)
        except OSError as error:
            raise HTTPException(502, f"MLflow: {error}") from None

    def every_night() -> HTMLResponse:
        return answered(lambda: listed(_nights()))

    def morning_page(run_id: str) -> HTMLResponse:
        if not RUN_ID.fullmatch(run_id):
            raise HTTPException(404, "no such night")
        asked = urlencode({"path": PAGE, "run_uuid": run_id})
        return answered(lambda: _mlflow(f"get-artifact?{asked}").decode())

    application.get("/")(every_night)
    application.get("/{run_id}")(morning_page)


APPS: list[Any] = [{"app": pages.application(_add_routes), "url_prefix": PREFIX, "name": "nights"}]
VIEWS: list[Any] = [{"name": "Nights", "href": f"{PREFIX}/", "destination": "nav", "url_route": "nights"}]


class NightsPlugin(AirflowPlugin):
    """An entry of the navigation."""

    name = "nightjar_nights"
    fastapi_apps = APPS
    external_views = VIEWS
