"""Airflow's UI as a person uses it: log in, fill the form, look at runs, tasks, logs and links."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Locator, Page, expect

DAG = "/dags/nightly_retraining"
NIGHT_MS = 400_000.0
"""Longest that a night on the tests' data may take, and what waits before it."""


def log_in(page: Page, password: str) -> None:
    """Through the login page, to which whoever is not logged in is sent."""
    page.goto("/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def open_form(page: Page) -> Locator:
    """The trigger form of the DAG."""
    page.goto(DAG)
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    expect(form.get_by_test_id("config-form")).to_be_visible()
    return form


def choose_backfill(form: Locator) -> None:
    """The form's second choice."""
    form.get_by_text("Run this Dag for a range of dates").click()
    expect(field(form, "From")).to_be_visible()


def open_section(form: Locator, name: str) -> None:
    """Unfolds a section of settings."""
    form.get_by_role("button", name=name, exact=True).click()


def field(form: Locator, label: str) -> Locator:
    """A label with its input and its help."""
    labelled = form.page.locator("label", has_text=re.compile(rf"^\s*{label}[\s*]*$"))
    return form.get_by_role("group").filter(has=labelled).last


def setting(form: Locator, name: str) -> Locator:
    """The input of a text or a number."""
    return form.locator(f"[name=element_{name}]")


def choose(form: Locator, name: str, option: str) -> None:
    """Picks from a drop-down."""
    form.locator(f"#element_{name}").click()
    form.page.get_by_role("option", name=option, exact=True).click()


def pick_midnight(form: Locator, label: str, day: str) -> None:
    """Enters a date, 2015-08-30, at 00:00."""
    field(form, label).get_by_test_id("datetime-input").click()
    popover = form.page.locator("[data-scope=popover][data-state=open]").last
    for placeholder, text in (("YYYY/MM/DD", day.replace("-", "/")), ("HH:mm", "00:00")):
        popover.get_by_placeholder(placeholder).fill(text)
        popover.get_by_placeholder(placeholder).press("Enter")
    form.page.keyboard.press("Escape")
    expect(popover).to_be_hidden()


def submit(form: Locator) -> None:
    """Sends the form, which then closes."""
    form.locator("footer").get_by_role("button").last.click()
    expect(form).to_be_hidden()


def runs(page: Page, run_type: str) -> Locator:
    """The rows of the list of runs that are of a type: Manual, Scheduled, Backfill."""
    page.goto(f"{DAG}/runs")
    return page.get_by_role("row").filter(has=page.get_by_text(run_type, exact=True))


def run_ids(page: Page, run_type: str) -> list[str]:
    """Ids of the DAG's runs of a type, newest first; empty while there are none."""
    found = ask(page, f"{DAG}/dagRuns?order_by=-id&run_type={run_type}")
    return [run["dag_run_id"] for run in found["dag_runs"]]


def badge(page: Page) -> Locator:
    """The state in the head of a run's or a task's page."""
    return page.get_by_test_id("state-badge").first


def as_of(page: Page, run_id: str) -> str:
    """The day whose midnight the night's Dataset ends before."""
    found = ask(page, f"{DAG}/dagRuns/{quote(run_id)}/taskInstances/prepare_data/xcomEntries/return_value")
    value = found["value"]
    dataset = json.loads(value) if isinstance(value, str) else value
    instant = datetime.fromtimestamp(dataset["as_of"] / 1000, UTC)
    assert instant == instant.replace(hour=0, minute=0, second=0, microsecond=0)
    return instant.date().isoformat()


def ask(page: Page, path: str) -> Any:
    """What Airflow's REST API answers to the person who is logged in."""
    answer = page.request.get(f"/api/v2{path}")
    assert answer.ok, answer.text()
    return answer.json()


def states(page: Page) -> dict[str, str]:
    """Task id and state of each row of a run's page."""
    rows = page.get_by_role("row").filter(has=page.locator("a[href*='/tasks/']"))
    links = "a[href*='/tasks/']"
    return {
        row.locator(links).first.inner_text().replace("\n", ""): row.get_by_test_id("state-badge").inner_text().strip()
        for row in rows.all()
    }


def shoot(page: Page, folder: Path, name: str) -> None:
    """Keeps a picture of what is seen."""
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")
