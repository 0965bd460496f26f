"""`wardrobe eval run|gate|harness`, and the group of all of them. Imports nothing heavy at its top."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, common_options, pass_session, user_name
from registry.errors import Conflict, NotFound, UsageError
from train.evaluation.cli_files import agreement, blind, list_, report
from train.evaluation.promptfoo.cli import import_

if TYPE_CHECKING:
    from train.evaluation.gating.trial import GateDocument
    from train.evaluation.journal import AnswerJournal
    from train.evaluation.models.roster import Roster
    from train.evaluation.results import EvaluationDocument, EvaluationResult
    from train.evaluation.runner import EvaluatedArm

_PATH = UserPath()
_OUT = click.option(
    "--out",
    type=_PATH,
    metavar="DIR",
    help="New folder for the results (default: evaluations/…). Give it again to continue an interrupted run.",
)
_CONCURRENCY = click.option(
    "--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Questions in flight."
)
_OFFLINE = click.option(
    "--offline", is_flag=True, help="Answer in this process with transformers; says nothing about serving."
)
_HTML = click.option(
    "--html", type=_PATH, metavar="FILE", help="Also write the page (in the folder anyway) to FILE."
)
_NO_ATTEST = click.option("--no-attest", is_flag=True, help="Do not store the result with the version.")


@click.group("eval")
def eval_() -> None:
    """Evaluate versions, check them against a goal, and report."""


for _command in (report, list_, blind, agreement, import_):
    eval_.add_command(_command)


@eval_.command()
@click.argument("suite")
@click.option("--model", required=True, metavar="NAME@N|base", help="The model to evaluate.")
@click.option(
    "--against", multiple=True, metavar="NAME@M|base", help="Model to compare with; may be repeated."
)
@click.option(
    "--shots",
    type=click.IntRange(1),
    metavar="K",
    help="Also evaluate the base with K examples in its prompt.",
)
@click.option("--replicate", is_flag=True, help="Evaluate the model twice, to show the noise.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N items.")
@_OUT
@_HTML
@_CONCURRENCY
@_OFFLINE
@_NO_ATTEST
@common_options
@pass_session
def run(
    session: Session,
    suite: str,
    model: str,
    against: tuple[str, ...],
    shots: int | None,
    replicate: bool,
    limit: int | None,
    out: Path | None,
    html: Path | None,
    concurrency: int,
    offline: bool,
    no_attest: bool,
) -> None:
    """Ask MODEL every question of SUITE and grade the answers.

    SUITE is a file or a name from `eval list`. Asks the server at --url, or a live one of the root. Writes
    run.json, items.jsonl and report.html, and stores the figures with the version. Exit 1 if a question
    was not answered.
    """
    from train.evaluation.formats.library import find_suite
    from train.evaluation.results import EvaluationResult
    from train.evaluation.runner import Effort, evaluate

    found = find_suite(suite).limited(limit)
    with closing(_roster(session, offline=offline, need_root=False)) as roster:
        arms = _arms(roster, model, against, shots, replicate)
        folder = _free(out or _folder(found.name), html)
        journal = _journal(folder)
        with output.progress(f"evaluate {found.name}", len(arms) * len(found.items)) as advance:
            results = evaluate(found, arms, roster.model, Effort(concurrency, advance, journal))
        evaluation = EvaluationResult.finished(found, results, roster.via)
        document = _keep(evaluation, folder, html)
        journal.finish()
        if not no_attest:
            _attest(roster, [model, *against], document)
    _show(session, document, folder)


@eval_.command()
@click.argument("goal", type=_PATH)
@click.option("--model", required=True, metavar="NAME@N", help="The candidate.")
@click.option(
    "--replaces", metavar="NAME@M", help="The version to be replaced (default: the adapter's stable)."
)
@_OUT
@_HTML
@_CONCURRENCY
@_OFFLINE
@_NO_ATTEST
@common_options
@pass_session
def gate(
    session: Session,
    goal: Path,
    model: str,
    replaces: str | None,
    out: Path | None,
    html: Path | None,
    concurrency: int,
    offline: bool,
    no_attest: bool,
) -> None:
    """Check MODEL against the acceptance criteria in GOAL.

    GOAL is a YAML file with a goal block, or a config that has one. MODEL must be better than the base and
    than the version it replaces, and no guard suite may get worse than its margin. Exit 0 for pass, 1 for
    fail or cannot tell. The result is stored with the version as `gate`.
    """
    from train.evaluation.gating import trial
    from train.evaluation.gating.goal import load_goal
    from train.evaluation.runner import Effort
    from train.evaluation.tables import print_gate

    aim = load_goal(goal)
    suites = trial.suites_of(aim, goal.resolve().parent)
    with closing(_roster(session, offline=offline, need_root=not no_attest)) as roster:
        case = trial.GateTrial(aim, model, replaces or _stable(roster, model))
        folder = _free(out or _folder(f"gate-{model.replace('@', '-')}"), html)
        journal = _journal(folder)
        with output.progress(f"gate {model}", trial.questions(case, suites)) as advance:
            result, evaluations = trial.run_trial(case, suites, roster, Effort(concurrency, advance, journal))
        kept = trial.keep(evaluations, folder)
        document = trial.describe(case, result, kept, roster.registry, roster.via)
        _keep_gate(document, evaluations, kept, folder, html)
        journal.finish()
        if not no_attest and roster.registry is not None:
            who = user_name()
            trial.attest_evaluations(roster.registry, model, list(kept.values()), "candidate", who)
            trial.attest_gate(roster.registry, document, who)
    output.print_json(document) if session.as_json else print_gate(document)
    output.print_notice(f"answers and reports: {folder}, to begin with gate.html")
    if document.verdict != "pass":
        click.get_current_context().exit(1)


@eval_.command(context_settings={"ignore_unknown_options": True})
@click.option("--model", required=True, metavar="NAME@N|base", help="The model to evaluate.")
@click.option("--tasks", required=True, metavar="TASK,…", help="lm-eval's own names.")
@click.option("--chat", is_flag=True, help="Use chat completions; without it log-likelihood tasks work too.")
@click.option("--dry-run", is_flag=True, help="Print the command only.")
@_CONCURRENCY
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
@common_options
@pass_session
def harness(
    session: Session,
    model: str,
    tasks: str,
    chat: bool,
    dry_run: bool,
    concurrency: int,
    extra: tuple[str, ...],
) -> None:
    """Run lm-evaluation-harness against the server.

    Arguments after `--` go to it unchanged.
    """
    import shlex

    from train.evaluation.harness import command
    from train.evaluation.harness import run as run_harness

    with closing(_roster(session, offline=None, need_root=False)) as roster:
        name, url = roster.model(model).name, roster.url or ""
        tokenizer = str(roster.registry.base.path) if roster.registry is not None else name
        if not chat and roster.adapts_head(model):
            output.print_warning(
                f"{model} adapts lm_head: log-likelihoods are those of prompts, from which a server on a GPU "
                "leaves it out (vllm#51594); use --chat tasks, or `wardrobe eval run --offline`"
            )
    line = command(name, url, tokenizer, tasks, chat=chat, concurrency=concurrency, extra=extra)
    if dry_run:
        output.print_line(shlex.join(line))
        return
    click.get_current_context().exit(run_harness(line, session.api_key))


def _roster(session: Session, *, offline: bool | None, need_root: bool) -> Roster:
    from train.evaluation.models.roster import Roster

    return Roster.find(session.root_path, session.url, session.api_key, offline=offline, need_root=need_root)


def _arms(
    roster: Roster, model: str, against: tuple[str, ...], shots: int | None, replicate: bool
) -> list[EvaluatedArm]:
    arms = [roster.arm(model), *(roster.arm(other) for other in against)]
    if shots is not None:
        arms.append(roster.arm("base", shots=shots))
    if replicate:
        arms.append(roster.arm(model, label=f"{model} again"))
    labels = [arm.label for arm in arms]
    if len(set(labels)) != len(labels):
        raise UsageError("--against", f"names {model} or another model twice", "name each model once")
    return arms


def _stable(roster: Roster, model: str) -> str | None:
    """Return the adapter's `stable`, unless there is none or it is the candidate itself."""
    from registry.names import STABLE, parse_version

    adapter, number = parse_version(model)
    if roster.registry is None:
        return None
    try:
        stable = roster.registry.aliases(adapter).get(STABLE)
    except NotFound:
        return None
    return None if stable in {None, number} else f"{adapter}@{stable}"


def _folder(name: str) -> Path:
    return Path("evaluations") / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"


def _free(folder: Path, html: Path | None) -> Path:
    """Return `folder`; what is wrong with it or with `html` is said before hours of questions, not after."""
    if html is not None:
        from registry.report.writing import check_target

        check_target(html)
    if folder.exists():
        raise Conflict(str(folder), "exists already", "choose a folder that does not exist")
    return folder


def _journal(folder: Path) -> AnswerJournal:
    from train.evaluation.journal import AnswerJournal

    journal = AnswerJournal(folder)
    if len(journal):
        output.print_notice(f"going on with {len(journal)} answers of an interrupted run")
    return journal


def _keep(evaluation: EvaluationResult, folder: Path, html: Path | None) -> EvaluationDocument:
    from train.evaluation.reports.evaluation import page
    from train.evaluation.results import save

    document = save(evaluation, folder)
    _write(page(evaluation, document), folder / "report.html", html)
    return document


def _keep_gate(
    document: GateDocument,
    evaluations: dict[str, EvaluationResult],
    kept: dict[str, EvaluationDocument],
    folder: Path,
    html: Path | None,
) -> None:
    from train.evaluation.gating.trial import GATE_FILE
    from train.evaluation.reports.evaluation import page
    from train.evaluation.reports.gate import gate_page

    (folder / GATE_FILE).write_text(document.model_dump_json(indent=2), encoding="utf-8")
    for name, found in evaluations.items():
        _write(page(found, kept[name], document), folder / found.suite.name / "report.html", None)
    _write(gate_page(document, evaluations), folder / "gate.html", html)


def _write(text: str, *targets: Path | None) -> None:
    from registry.report.writing import write_page

    for target in targets:
        if target is not None:
            write_page(target, text)


def _attest(roster: Roster, references: list[str], document: EvaluationDocument) -> None:
    from train.evaluation.gating.trial import attest_evaluations

    versions = [reference for reference in references if reference != "base"]
    if roster.registry is None:
        output.print_notice("no root here: the figures are not stored with the version")
        return
    for reference in versions:
        attest_evaluations(roster.registry, reference, [document], reference, user_name())


def _show(session: Session, document: EvaluationDocument, folder: Path) -> None:
    from train.evaluation.tables import print_evaluation

    output.print_json(document) if session.as_json else print_evaluation(document)
    output.print_notice(f"answers and report: {folder}")
    if any(arm.errors for arm in document.arms):
        click.get_current_context().exit(1)
