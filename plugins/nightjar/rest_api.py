"""Airflow's REST API as a script of this repository uses it: to backfill, to wait, to end what was stopped.

Standard library only: the scripts of `bin/` run outside Airflow's environment.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nightjar.command_line import DAG, Refused

POLL_SECONDS = 2.0
END_SECONDS = 120.0
"""After which what was stopped must have ended."""
BUSY_SECONDS = 60.0
"""How long Airflow may find its database locked (503), as SQLite is while the scheduler writes."""
DATED = ("backfill", "scheduled")


class Busy(Refused):
    """Airflow has done nothing, and may if it is asked again."""


class Airflow:
    """Airflow's REST API, as admin of this home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.address = (home / "airflow" / "up.airflow").read_text().strip()
        password = json.loads((home / "secrets" / "passwords.json").read_text())["admin"]
        login = {"username": "admin", "password": password}
        self.token = self._ask("POST", f"{self.address}/auth/token", login, {})["access_token"]

    def rest(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer, parsed; Refused with Airflow's own words when it declines or its database stays locked."""
        headers = {"Authorization": f"Bearer {self.token}"}
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._ask(method, f"{self.address}/api/v2{path}", body, headers)
            except Busy:
                if time.monotonic() > end:
                    raise
            time.sleep(POLL_SECONDS / 2)

    def _ask(self, method: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            with suppress(ValueError, KeyError, TypeError):
                said = str(json.loads(said)["detail"])
            refusal = Busy if error.code == 503 else Refused
            raise refusal(f"Airflow at {self.address} answers {error.code}: {said}") from None
        except OSError as error:
            raise Refused(f"Airflow at {self.address} does not answer: {error}; look into its logs") from None

    def dated_runs(self, first: datetime, last: datetime) -> list[dict[str, Any]]:
        """The dated runs of these days, in their order."""
        asked = {
            "dag_ids": [DAG],
            "logical_date_gte": first.isoformat(),
            "logical_date_lte": last.isoformat(),
            "order_by": "logical_date",
        }
        found: list[dict[str, Any]] = []
        while True:
            page = self.rest("POST", "/dags/~/dagRuns/list", asked | {"page_offset": len(found)})
            found += page["dag_runs"]
            if len(found) >= page["total_entries"] or not page["dag_runs"]:
                return [run for run in found if run["run_type"] in DATED]

    def end_backfills(self) -> None:
        """Ends the backfills that are under way: what has not begun will not, and what runs is red, to be repeated."""
        for backfill in self.rest("GET", f"/backfills?dag_id={DAG}")["backfills"]:
            if not backfill["completed_at"]:
                self.rest("PUT", f"/backfills/{backfill['id']}/cancel")
        end = time.monotonic() + END_SECONDS
        while running := self.rest("GET", f"/dags/{DAG}/dagRuns?state=running&run_type=backfill")["dag_runs"]:
            if time.monotonic() > end:
                raise Refused(f"{running[0]['dag_run_id']} does not end; the logs in {self.home}/airflow/logs say why")
            for run in running:
                self.rest("PATCH", f"/dags/{DAG}/dagRuns/{quote(run['dag_run_id'])}", {"state": "failed"})
            time.sleep(POLL_SECONDS)

    def running(self, run: Mapping[str, Any]) -> list[str]:
        """Names of the tasks of a run that are at work."""
        path = f"/dags/{DAG}/dagRuns/{quote(run['dag_run_id'])}/taskInstances?state=running"
        return sorted({task["task_id"] for task in self.rest("GET", path)["task_instances"]})
