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
REALISED = "realised.recall_at_50"
CURVES = {REALISED: "#3f7fc4", "realised.own_history_then_popular.recall_at_50": "#3f9c6c"}
"""Metric of a night's run → its colour: what the list before was worth, and a simple method as of that same instant."""
WIDTH, HEIGHT = 640, 90


def listed(nights: list[dict[str, Any]]) -> str:
    """The page of all nights; nights: MLflow's runs, the newest first."""
    rows = "".join(_row(night) for night in nights)
    names = ("begun, UTC", "as of", "state", "verdict", "the list before realised", "why", "")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = f"{_curves(nights)}<table><tr>{head}</tr>{rows}</table>" if nights else "<p>There is no night yet.</p>"
    return pages.page("Nights", body)


def _curves(nights: list[dict[str, Any]]) -> str:
    """Realised recall@50 by as_of, beside the simple method's; empty where fewer than two nights know it."""
    told = [night for night in nights if REALISED in _metrics(night) and "as_of" in _tags(night)]
    known = sorted(((int(_tags(night)["as_of"]), _metrics(night)) for night in told), key=lambda one: one[0])
    if len(known) < 2:
        return ""
    first, last = known[0][0], max(known[-1][0], known[0][0] + 1)
    most = max(found.get(name, 0.0) for _, found in known for name in CURVES) or 1.0
    lines = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
        + " ".join(
            f"{WIDTH * (at - first) / (last - first):.1f},{HEIGHT * (1 - found[name] / most):.1f}"
            for at, found in known
            if name in found
        )
        + '"/>'
        for name, colour in CURVES.items()
    )
    said = "realised recall@50 by as of; blue: the lists, green: own history filled up with popular, as of then"
    box = f'viewBox="-4 -4 {WIDTH + 8} {HEIGHT + 8}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg role="img" aria-label="{said}" {box}>{lines}</svg><p><small>{said}; top: {most:.4f}</small></p>'


def _tags(night: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in night["data"].get("tags", [])}


def _metrics(night: dict[str, Any]) -> dict[str, float]:
    return {metric["key"]: float(metric["value"]) for metric in night["data"].get("metrics", [])}


def _row(night: dict[str, Any]) -> str:
    info = night["info"]
    tags, realised = _tags(night), _metrics(night).get(REALISED)
    as_of = tags.get("as_of", "")
    cells = [
        _minute(int(info["start_time"])),
        _minute(int(as_of)) if as_of else "",
        info["status"].lower(),
        tags.get("verdict", ""),
        "" if realised is None else f"{realised:.4f}",
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
