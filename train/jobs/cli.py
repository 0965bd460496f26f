"""`wardrobe train jobs` and `wardrobe train show JOB`. Imports nothing heavy at its top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import CorruptStore

if TYPE_CHECKING:
    from train.jobs.records import JobDetail, JobDocument, Status
    from train.jobs.store import Job

_ROWS = 20


@click.command()
@click.option("--all", "everything", is_flag=True, help=f"Every run, not only the newest {_ROWS}.")
@local_options
@pass_session
def jobs(session: Session, everything: bool) -> None:
    """List training runs, the newest first."""
    from train.jobs.store import Jobs

    found = Jobs(session.require_local("train jobs").resolve()).all()
    documents = []
    for job in found if everything else found[:_ROWS]:
        try:
            documents.append(job.document())
        except CorruptStore as error:
            output.print_warning(f"job {job.id} cannot be read: {error}")
    if session.as_json:
        output.print_json(documents)
        return
    if not documents:
        output.print_notice("no training has run on this root")
        return
    columns = ("job", "adapter", "method", "state", "step#", "begun", "result")
    output.print_table(columns, [_row(one) for one in documents])
    if len(documents) < len(found):
        output.print_notice(f"{len(found) - len(documents)} older runs: --all")


@click.command()
@click.argument("job")
@click.option(
    "--html",
    type=UserPath(),
    metavar="FILE",
    help="Also write a page to FILE: curves, evaluations, answers, data, verdicts, config.",
)
@local_options
@pass_session
def show(session: Session, job: str, html: Path | None) -> None:
    """Show one training run.

    JOB is its id, or the beginning or end of it.

    The page of --html needs no network and no JavaScript; it shows the run as it is now.
    """
    from train.jobs.store import Jobs

    root = session.require_local("train show").resolve()
    found = Jobs(root).find(job)
    document = found.detail()
    if html is not None:
        _write_page(root, found, document, html)
    if session.as_json:
        output.print_json(document)
        return
    output.print_facts(_facts(document))
    for one in document.samples[-len(_prompts(document)) :] if document.samples else ():
        output.print_line(f"> {one.get('prompt')}")
        output.print_line(f"  {one.get('answer')}")


def _write_page(root: Path, job: Job, document: JobDetail, target: Path) -> None:
    from registry.report.writing import write_page
    from train.jobs.page import page
    from train.jobs.store import METRICS
    from train.jobs.verdicts import aftermath

    steps = [line for line in job.lines(METRICS) if line.get("kind") != "evaluation"]
    write_page(target, page(document, steps, aftermath(root, document)))
    output.print_notice(f"page: {target}")


def _row(job: JobDocument) -> tuple[str, ...]:
    status = job.status
    begun = output.moment(job.created_at)
    return (job.id, job.adapter, job.method, status.state.value, _steps(status), begun, _result(job))


def _facts(job: JobDetail) -> list[tuple[str, str]]:
    status, summary = job.status, job.status.summary
    facts = [
        ("job", job.id),
        ("adapter", f"{job.adapter} ({job.method} on {job.base})"),
        ("state", status.state.value + (f": {status.error}" if status.error else "")),
        ("step", _steps(status)),
        ("begun", f"{output.moment(job.created_at)} by {job.who}"),
        ("result", _result(job)),
        ("plan", output.short(job.plan_sha256)),
        ("folder", job.folder),
    ]
    if status.resumed:
        facts.append(("went on from", ", ".join(f"step {step}" for step in status.resumed)))
    if job.checkpoints:
        facts.append(("checkpoints", ", ".join(str(step) for step in job.checkpoints)))
    if job.last_step is not None:
        loss = job.last_step.get("loss")
        shown = f"{loss:.4g}" if isinstance(loss, float) else loss
        facts.append(("loss", f"{shown} at step {job.last_step.get('step')}"))
    facts += [(f"step {one.get('step')}", _figures(one)) for one in job.evaluations]
    if summary:
        facts.append(("taken", f"step {summary.get('taken')}, {summary.get('why')}"))
        facts.append(("speed", f"{summary.get('tokens_per_second')} tokens/s on {summary.get('device')}"))
        facts.append(("memory", output.amount(float(str(summary.get("peak_memory_bytes", 0))))))
        estimate = summary.get("estimate")
        if isinstance(estimate, dict):
            facts.append(("seconds", f"{summary.get('seconds')}, estimated {estimate.get('seconds')}"))
    return facts


def _figures(evaluation: Mapping[str, object]) -> str:
    scores = evaluation.get("scores")
    loss = evaluation.get("eval_loss")
    told = [] if loss is None else [f"held-out loss {loss:.4f}" if isinstance(loss, float) else str(loss)]
    if isinstance(scores, dict):
        told += [f"{name} {value:.4f}" for name, value in scores.items()]
    return ", ".join(told)


def _prompts(job: JobDetail) -> list[object]:
    evaluation = job.config.get("evaluation")
    samples = evaluation.get("samples") if isinstance(evaluation, dict) else None
    return list(samples) if isinstance(samples, list) else []


def _steps(status: Status) -> str:
    return f"{status.step}/{status.steps}" if status.steps else str(status.step)


def _result(job: JobDocument) -> str:
    if job.status.version is not None:
        return f"{job.adapter}@{job.status.version}"
    return job.status.artefact or "-"
