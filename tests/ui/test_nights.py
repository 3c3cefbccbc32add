"""What a person does with nights in Airflow's UI: log in, trigger, be refused, follow links, backfill."""

import pytest
from playwright.sync_api import Page, expect

from tasks import publication
from tasks.contracts import TASKS
from tests.ui import airflow_ui as ui
from tests.ui.conftest import World

pytestmark = [pytest.mark.ui, pytest.mark.timeout(1_800)]


def test_a_stranger_has_to_log_in(stranger: Page) -> None:
    assert stranger.request.get("/api/v2/dags").status == 401
    ui.log_in(stranger, "guessed")
    expect(stranger.get_by_label("Password")).to_be_visible()
    assert stranger.request.get("/api/v2/dags").status == 401


def test_a_number_out_of_range_cannot_be_entered(page: Page) -> None:
    form = ui.open_form(page)
    ui.open_section(form, "publish_recommendations")
    top = ui.setting(form, "top")
    top.fill("5000")
    top.press("Tab")
    expect(top).to_have_value("300")


def test_a_wrong_folder_is_refused_readably_by_the_first_task(page: Page) -> None:
    form = ui.open_form(page)
    ui.open_section(form, "This night")
    ui.setting(form, "data").fill("/nowhere")
    ui.submit(form)
    expect(ui.badge(page)).to_have_text("Failed", timeout=ui.NIGHT_MS)
    assert ui.states(page)["prepare_data"] == "Failed"
    page.get_by_role("link", name="prepare_data").last.click()
    expect(page.get_by_text("prepare_data | data folder /nowhere does not exist; expected a folder")).to_be_visible()


def test_a_night_from_the_form_is_green_and_links_to_what_it_made(world: World, page: Page) -> None:
    form = ui.open_form(page)
    ui.open_section(form, "This night")
    ui.pick_midnight(form, "as_of", "2015-09-01")
    ui.choose(form, "profile", "small")
    ui.shoot(page, world.screenshots, "trigger-form")
    ui.submit(form)
    expect(ui.badge(page)).to_have_text("Success", timeout=ui.NIGHT_MS)
    expect(page.get_by_test_id("state-badge").filter(has_text="Running")).to_have_count(0)  # the rows follow the run
    ui.shoot(page, world.screenshots, "night")
    states = ui.states(page)
    assert states.pop("backup_mysql") == "Skipped"  # there is no MySQL in the embedded world
    assert states == dict.fromkeys([*TASKS.keys() - {"backup_mysql"}, "shards", "announce", "end"], "Success")
    expect(page.get_by_text("shard 1 of 1: ")).to_be_visible()
    (run_id,) = ui.run_ids(page, "manual")[:1]
    assert ui.as_of(page, run_id) == "2015-09-01"

    for task, link, shown in (
        ("train_two_tower", "MLflow run", "train_two_tower"),
        ("train_two_tower", "Artifact", "retriever"),
        ("write_report", "Report", "report.html"),
    ):
        page.goto(f"{ui.DAG}/runs/{run_id}/tasks/{task}/details")
        with page.context.expect_page() as opened:
            page.get_by_role("link", name=link, exact=True).click()
        assert opened.value.url.startswith(world.mlflow)
        expect(opened.value.get_by_text(shown, exact=True).first).to_be_visible()
        opened.value.close()


def test_the_morning_page_of_a_night_opens_inside_airflow(world: World, page: Page) -> None:
    page.goto("/plugin/nights")
    view = page.frame_locator("iframe")
    expect(view.get_by_role("cell", name="2015-09-01 00:00")).to_be_visible()
    ui.shoot(page, world.screenshots, "nights")
    view.get_by_role("link", name="morning page").first.click()
    expect(view.get_by_role("heading", name="Nightjar: the night as of 2015-09-01 00:00 UTC")).to_be_visible()
    ui.shoot(page, world.screenshots, "morning-page")


def test_one_visitor_is_looked_up_inside_airflow(world: World, page: Page) -> None:
    published = publication.Store(world.home / "recommendations.db").read(None)
    visitor, first = published["visitorid"][0], published["itemid"][0]
    page.goto("/plugin/visitor")
    view = page.frame_locator("iframe")
    view.get_by_label("visitorid").fill(str(visitor))
    view.get_by_role("button", name="Show").click()
    expect(view.get_by_text("The same list as is published.")).to_be_visible()
    best = view.get_by_role("row").filter(has=view.get_by_role("cell", name=str(first), exact=True))
    expect(best.filter(has=view.get_by_role("cell", name="1", exact=True)).first).to_be_visible()
    ui.shoot(page, world.screenshots, "one-visitor")


def test_a_stranger_sees_no_night_and_no_visitor(stranger: Page) -> None:
    for view in ("nights", "visitor"):
        assert stranger.request.get(f"/nightjar/{view}/").status == 401


def test_a_backfill_of_three_days_from_the_form(world: World, page: Page) -> None:
    form = ui.open_form(page)
    ui.choose_backfill(form)
    ui.pick_midnight(form, "From", "2015-09-02")
    ui.pick_midnight(form, "To", "2015-09-04")
    ui.open_section(form, "This night")
    ui.choose(form, "profile", "small")
    expect(form.get_by_text("3 runs will be triggered")).to_be_visible()
    ui.shoot(page, world.screenshots, "backfill-form")
    ui.submit(form)
    green = ui.runs(page, "Backfill").filter(has_text="Success")
    expect(green).to_have_count(3, timeout=3 * ui.NIGHT_MS)
    ui.shoot(page, world.screenshots, "backfill")
    days = {ui.as_of(page, run_id) for run_id in ui.run_ids(page, "backfill")}
    assert days == {"2015-09-02", "2015-09-03", "2015-09-04"}
