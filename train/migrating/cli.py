"""`wardrobe migrate openai`. Imports nothing heavy at its top."""

from __future__ import annotations

import os
import time
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry import foreign
from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session, user_name
from registry.errors import Denied, UsageError, WardrobeError

if TYPE_CHECKING:
    from train.migrating.account import OpenAIAccount
    from train.migrating.documents import MigrationReport
    from train.migrating.folder import MigratedJob, MigrationFolder
    from train.migrating.run import MigrationOptions

KEY = "OPENAI_API_KEY"
_PATH = UserPath()
_LOOK_SECONDS = 0.1
_GO_ON = "interrupted; what is done is kept, and the same command goes on"


@click.group()
def migrate() -> None:
    """Take over fine-tuned models from elsewhere."""


@migrate.command()
@click.option(
    "--from", "exported", type=_PATH, metavar="DIR", help="Read an exported folder instead of an account."
)
@click.option(
    "--base-url",
    default="https://api.openai.com/v1",
    show_default=True,
    metavar="URL",
    help="The account's API.",
)
@click.option(
    "--out", type=_PATH, default=Path("migration"), show_default=True, metavar="DIR",
    help="Folder for all that is fetched and made. Give it again to go on.",
)  # fmt: skip
@click.option(
    "--list", "listed", is_flag=True, help="Only list the account's fine-tuning jobs; keep nothing."
)
@click.option("--job", "only", multiple=True, metavar="ID", help="Only this job; may be repeated.")
@click.option(
    "--held-out", type=click.FloatRange(0, 0.9, min_open=True), default=0.2, show_default=True,
    metavar="SHARE", help="Rows to hold out of a job that has no validation file.",
)  # fmt: skip
@click.option(
    "--prompts", type=click.IntRange(0, 1000), default=100, show_default=True, metavar="N",
    help="Held-out rows to ask each old model.",
)  # fmt: skip
@click.option(
    "--budget", type=click.IntRange(0), default=500_000, show_default=True, metavar="TOKENS",
    help="Tokens of prompts and answers to spend in all; up to four answers may end beyond it.",
)  # fmt: skip
@click.option(
    "--answer-tokens", type=click.IntRange(1, 32_768), default=256, show_default=True, metavar="N",
    help="Longest answer, of the old model and the new one.",
)  # fmt: skip
@click.option("--train", "training", is_flag=True, help="Also train, judge and serve what is prepared.")
@click.option(
    "--margin", type=click.FloatRange(0, 1, min_open=True), default=0.1, show_default=True, metavar="M",
    help="How much worse than the recorded answers a version may be.",
)  # fmt: skip
@click.option(
    "--serve-anyway",
    is_flag=True,
    help="Give the old name also to a version that did not pass. It keeps it for good.",
)
@local_options
@pass_session
def openai(
    session: Session,
    exported: Path | None,
    base_url: str,
    out: Path,
    listed: bool,
    only: tuple[str, ...],
    held_out: float,
    prompts: int,
    budget: int,
    answer_tokens: int,
    training: bool,
    margin: float,
    serve_anyway: bool,
) -> None:
    """Take over the fine-tuned models of an OpenAI account.

    Reads the account whose key is in OPENAI_API_KEY: fetches the rows, hyperparameters and result files of
    its fine-tuning jobs, records what the old models answer to held-out rows while they still do, and writes
    a training config for each. With --train it trains on the root's base, checks that the result is not worse
    than the recorded answers, registers it, and serves what passed under the old name. Killed at any moment,
    the same command goes on. Sends nothing but GETs and those prompts. Exit 1 if a job failed or did not
    pass.
    """
    from train.migrating.exported import ExportedFolder
    from train.migrating.folder import MigrationFolder
    from train.migrating.interface import AccountAway
    from train.migrating.run import Migration, MigrationOptions

    if serve_anyway and not training:
        raise UsageError("--serve-anyway", "is for --train", "give --train too", param="serve_anyway")
    root = session.require_local("migrate openai --train") if training else None
    registry = session.registry() if training else None
    folder = MigrationFolder(out.resolve())
    account = None if exported is not None else _account(base_url, folder)
    options = MigrationOptions(only, held_out, prompts, budget, answer_tokens, margin, serve_anyway)
    with closing(account) if account is not None else nullcontext():
        source = ExportedFolder(exported) if exported is not None else account
        found = Migration(folder, source, account, options, output.print_notice)
        if listed:
            _show(session, found.survey())
            return
        try:
            with folder.locked():
                report = found.prepare()
                if root is not None and registry is not None:
                    trainer = partial(_train, root.resolve(), options)
                    report = found.train(trainer, registry, user_name())
        except KeyboardInterrupt:
            output.print_notice(_GO_ON)
            raise
        except (AccountAway, Denied):
            if folder.jobs():
                output.print_notice(f"without {KEY} the same command goes on with what is in {folder.path}")
            raise
    _show(session, report)


def _account(base_url: str, folder: MigrationFolder) -> OpenAIAccount | None:
    """Return the account; without a key None, where there is something to go on with.

    Raises: UsageError: there is neither.
    """
    from train.migrating.account import OpenAIAccount

    key = os.environ.get(KEY, "")
    if key:
        return OpenAIAccount(key, base_url, notice=output.print_notice)
    if folder.jobs():
        output.print_notice(
            f"{KEY} is not set: nothing is fetched or asked, what is in {folder.path} is used"
        )
        return None
    raise UsageError(KEY, "is not set", "export the account's key, or give --from DIR", param="key")


def _train(root: Path, options: MigrationOptions, job: MigratedJob, old: str) -> None:
    """Train and judge a job in a process of its own.

    Raises: WardrobeError: it could not; KeyboardInterrupt: it stopped with a checkpoint.
    """
    from train.migrating.task import PROBLEM, STOPPED
    from train.process.interruption import Interruption
    from train.worker.process import TaskProcess

    job.forget(PROBLEM)
    command = foreign.python(
        "-m",
        "train.migrating.task",
        str(root),
        str(job.folder.parent),
        job.id,
        old,
        str(options.margin),
        user_name(),
    )
    told = job.log.stat().st_size if job.log.exists() else 0
    process = TaskProcess(command, job.log, environment={})
    with Interruption() as interruption:
        interruption.defer(process.stop)
        while (code := process.ended()) is None:
            time.sleep(_LOOK_SECONDS)
            told = _tell_on(job.log, told)
    _tell_on(job.log, told)
    if code == STOPPED or interruption.requested:
        raise KeyboardInterrupt
    if code != 0:
        problem = (job.record(PROBLEM) or {}).get("sentence")
        raise WardrobeError(
            f"training of {job.id}", str(problem or f"ended with {code} and left no word"), f"see {job.log}"
        )


def _tell_on(log: Path, told: int) -> int:
    """Print the whole lines of `log` behind its first `told` bytes; return how many bytes are told then."""
    with log.open("rb") as file:
        file.seek(told)
        whole = file.read().rpartition(b"\n")[0]
    for line in whole.decode("utf-8", "replace").splitlines():
        output.print_notice(line)
    return told + len(whole) + 1 if whole else told


def _show(session: Session, report: MigrationReport) -> None:
    if session.as_json:
        output.print_json(report)
    else:
        _print(report)
    if any(one.state == "failed" or one.verdict not in {None, "pass"} for one in report.jobs):
        click.get_current_context().exit(1)


def _print(report: MigrationReport) -> None:
    rows = [
        (
            one.id, one.fine_tuned_model or "-", one.method, one.status, one.state.replace("_", " "),
            "-" if one.rows is None else str(one.rows), f"{one.recorded} of {one.questions}",
            one.version or "-", (one.verdict or "-").replace("_", " "),
        )
        for one in report.jobs
    ]  # fmt: skip
    output.print_table(
        ("job", "old model", "method", "ended", "state", "rows#", "recorded#", "version", "verdict"), rows
    )
    for one in report.jobs:
        for text in (*((one.sentence,) if one.sentence else ()), *one.notes):
            output.print_notice(f"{one.id}: {text}")
    if report.tokens:
        output.print_notice(f"recorded answers cost {report.tokens:,} of {report.budget:,} tokens")
    if report.next:
        output.print_notice(f"next: {report.next}")
