"""`wardrobe train jobs|show|cancel|pause|resume`. Imports nothing heavy at its top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session, user_name
from registry.errors import CorruptStore, JobRefused

if TYPE_CHECKING:
    from train.jobs.listing import JobList
    from train.jobs.records import AskedDocument, JobDetail, JobDocument, Status
    from train.jobs.store import Job

_ROWS = 20


@click.command()
@click.option("--all", "everything", is_flag=True, help=f"Every run, not only the newest {_ROWS}.")
@local_options
@pass_session
def jobs(session: Session, everything: bool) -> None:
    """List training runs and the jobs asked for over the API, the newest first."""
    listed = _list(session, "train jobs")
    found = listed.all()
    documents = []
    for job in found if everything else found[:_ROWS]:
        try:
            documents.append(job.document())
        except CorruptStore as error:
            output.print_warning(f"job {job.id} cannot be read: {error}")
    for name, problem in listed.problems.items():
        output.print_warning(f"job {name} cannot be read: {problem}")
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
    """Show one training run, or a job asked for over the API.

    JOB is its id, or the beginning or end of it.

    The page of --html needs no network and no JavaScript; it shows the run as it is now.
    """
    root = session.require_local("train show").resolve()
    found = _list(session, "train show").find(job)
    document = found.detail()
    if html is not None:
        if found.run is None or document is None:
            raise JobRefused(f"job {found.id}", "has not begun to train", "wait for it, or leave --html out")
        _write_page(root, found.run, document, html)
    if session.as_json:
        output.print_json(document or found.document())
        return
    if document is None:
        output.print_facts(_asked_facts(found.document()))
        return
    output.print_facts(_facts(document))
    for one in document.samples[-len(_prompts(document)) :] if document.samples else ():
        output.print_line(f"> {one.get('prompt')}")
        output.print_line(f"  {one.get('answer')}")


def _mover(name: str, event: str, words: str) -> click.Command:
    """Return the command that does `event` to a job."""

    @click.command(name, help=words)
    @click.argument("job")
    @local_options
    @pass_session
    def move(session: Session, job: str) -> None:
        from registry.tuning.machine import JobEvent

        found = _list(session, f"train {name}").find(job)
        told = found.move(JobEvent(event), user_name())
        if session.as_json:
            output.print_json(found.document())
            return
        output.print_line(f"{found.id} {told}")

    return move


cancel = _mover("cancel", "cancelled", "End JOB; nothing of it is published.")
pause = _mover("pause", "paused", "Stop JOB behind its step, with a checkpoint.")
resume = _mover("resume", "resumed", "Have JOB, which was paused, go on from its checkpoint.")


def _list(session: Session, command: str) -> JobList:
    from registry.storage.root import Root
    from train.jobs.listing import JobList

    return JobList(Root.open(session.require_local(command)))


def _write_page(root: Path, job: Job, document: JobDetail, target: Path) -> None:
    from registry.report.writing import write_page
    from train.jobs.page import page
    from train.jobs.store import METRICS
    from train.jobs.verdicts import aftermath

    steps = [line for line in job.lines(METRICS) if line.get("kind") != "evaluation"]
    write_page(target, page(document, steps, aftermath(root, document)))
    output.print_notice(f"page: {target}")


def _row(job: JobDocument) -> tuple[str, ...]:
    begun = output.moment(job.created_at)
    return (job.id, job.adapter, job.method, _state(job), _steps(job.status), begun, _result(job))


def _state(job: JobDocument) -> str:
    """Return where a job is: its log has the word where there is one."""
    if job.asked is not None:
        return job.asked.state
    return "" if job.status is None else job.status.state.value


def _asked_facts(job: JobDocument) -> list[tuple[str, str]]:
    facts = [
        ("job", job.id),
        ("adapter", f"{job.adapter} ({job.method} on {job.base})"),
        ("begun", f"{output.moment(job.created_at)} by {job.who}"),
        ("folder", job.folder),
    ]
    return facts if job.asked is None else [*facts, *_log_facts(job.asked)]


def _log_facts(asked: AskedDocument) -> list[tuple[str, str]]:
    facts = [("asked", f"{asked.state} since {output.moment(asked.at)}: {asked.message}")]
    if asked.worker is not None:
        facts.append(("worker", asked.worker))
    if asked.error is not None:
        facts.append(("error", str(asked.error.get("code"))))
    return [
        *facts,
        ("model", asked.tuned_name if asked.version is not None else f"{asked.tuned_name} (not yet)"),
    ]


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
    if job.asked is not None:
        facts += _log_facts(job.asked)
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


def _steps(status: Status | None) -> str:
    if status is None:
        return "-"
    return f"{status.step}/{status.steps}" if status.steps else str(status.step)


def _result(job: JobDocument) -> str:
    status, asked = job.status, job.asked
    number = asked.version if asked is not None else None if status is None else status.version
    if number is not None:
        return f"{job.adapter}@{number}"
    return (status.artefact if status is not None else None) or "-"
