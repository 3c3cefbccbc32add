"""Writes the morning page: one HTML file of what the night did, whether it is better, and what it cost.

It holds durations and what the nights before have left, so its digest is not the same when a night is repeated.
"""

import logging
from pathlib import Path

from tasks import dataset_files, nights, report_facts, report_making, report_page, report_quality
from tasks.contracts import Candidates, Dataset, Publication, Ranker, RecallReport, Report, Retriever, WriteReportConfig
from tasks.recsys import volume
from tasks.report_facts import Facts
from tasks.report_page import Section
from tasks.tracking import RANKER_CURVE, TOWER_CURVES, TaskRun, run_of

log = logging.getLogger(__name__)

NIGHTS = 30
"""Nights, begun last, that the page looks back on."""
PAGE = "report.html"


def write_report(
    dataset: Dataset,
    retriever: Retriever,
    report: RecallReport,
    candidates: list[Candidates],
    ranker: Ranker,
    publication: Publication,
    config: WriteReportConfig,
    run: TaskRun,
) -> Report:
    """Writes the morning page: one HTML file of what the night did, whether it is better, and what it cost."""
    data = run.fetch(dataset)
    interactions = dataset_files.read_interactions(data)
    daily = volume.by_day(interactions, dataset.as_of)
    ceiling, brought = report_facts.read_brought(dataset, interactions, [run.fetch(shard) for shard in candidates])
    facts = Facts(
        dataset=dataset,
        report=report,
        ranker=ranker,
        publication=publication,
        recall=report_facts.read_recall(run.fetch(report)),
        ndcg=report_facts.read_ndcg(run.fetch(ranker)),
        features=report_facts.read_features(run.fetch(ranker)),
        ceiling=ceiling,
        brought=brought,
        curves=_curves(run, retriever, ranker),
        daily=daily,
        band=volume.band(daily, float(run.setting(dataset, "volume_tolerance"))),
        nights=_nights(run),
        visitors=report_facts.read_visitors(dataset, data, run.fetch(publication)),
    )
    sections = [make(facts) for make in (*report_quality.SECTIONS, *report_making.SECTIONS)]
    out = run.work / "report"
    out.mkdir()
    (out / PAGE).write_text(_page(facts, sections, retriever, candidates), encoding="utf-8")
    written = run.store(out, dataset.as_of)
    _lead_there(run, out, publication)
    left_out = tuple(section.title for section in sections if not section.parts)
    log.info("%d sections%s", len(sections) - len(left_out), f"; left out: {', '.join(left_out)}" * bool(left_out))
    run.finish_night()
    return Report(
        **written, page=PAGE, sections=len(sections) - len(left_out), left_out=left_out, nights=len(facts.nights) - 1
    )


def _nights(run: TaskRun) -> list[nights.Told]:
    """Tonight, then the others, that which was begun last first."""
    others = [night for night in nights.newest(run.client, NIGHTS) if night.run_id != run.night]
    return [nights.told(run.client, run.night), *others]


def _curves(run: TaskRun, retriever: Retriever, ranker: Ranker) -> dict[str, list[float]]:
    """Name of a learning curve → its values; none where nothing was logged."""
    tower = {
        f"{name}, fit of {fit}": run.read_curve(f"{fit}.{curve}", retriever.run_id)
        for name, curve in zip((report_making.LOSS, report_making.JUDGED), TOWER_CURVES, strict=True)
        for fit in ("c1", "c2", "as_of")
    }
    return {**tower, report_making.BOOSTED: run.read_curve(RANKER_CURVE, run_of(ranker))}


def _page(facts: Facts, sections: list[Section], retriever: Retriever, candidates: list[Candidates]) -> str:
    publication = facts.publication
    made_now = f"Generation {publication.generation}: {publication.users:,} visitors, {publication.rows:,} rows."
    in_force = f"In force: {publication.in_force or 'nothing'}, in {publication.store}."
    made = [facts.dataset, retriever, facts.report, *candidates, facts.ranker, publication]
    return report_page.page(
        f"Nightjar: the night as of {report_page.instant(facts.dataset.as_of)}",
        publication.verdict,
        [publication.reason, made_now, in_force],
        sections,
        [(type(one).__name__, one.uri, one.digest) for one in made],
    )


def _lead_there(run: TaskRun, out: Path, publication: Publication) -> None:
    """Puts the page on the night's own run, too, where it stays when old files go, and says so in both runs' notes.

    The tags are for the view Nights in Airflow.
    """
    run.attach(out, run_id=run.night)
    said = f"{publication.verdict}: {publication.reason}\n\nThe morning page: this run's artifact `{out.name}/{PAGE}`."
    for run_id in (run.run_id, run.night):
        run.tags({"mlflow.note.content": said}, run_id=run_id)
    run.tags({"as_of": str(publication.as_of), "report": f"{out.name}/{PAGE}"}, run_id=run.night)
