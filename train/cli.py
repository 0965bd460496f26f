"""`wardrobe train run|check`, the group of all training commands, and `wardrobe base demo`.

Owns what a person sees of a run, and that stopping it leaves nothing registered. Imports nothing heavy
at its top.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry import foreign
from registry.cli import output
from registry.cli.session import Session, UserPath, common_options, local_options, pass_session, user_name
from registry.errors import UsageError
from train.averaging.cli import average
from train.importing.cli import import_
from train.jobs.cli import cancel, jobs, pause, resume, show
from train.merging.cli import merge
from train.model.base_demo import NAME, make_demo_base
from train.process import environment
from train.process.interruption import Interruption
from train.process.silence import hush
from train.proving.cli import prove
from train.sweep.cli import sweep
from train.worker.cli import worker

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.documents import CheckReport
    from train.model.shape import ServerLimits
    from train.model.start_choice import Candidate, NearestVersion
    from train.prepared import PreparedRun
    from train.runs.run import Finished
    from train.settings.data import DataSettings

_FILE = UserPath()


@click.group()
def train() -> None:
    """Train adapters on the root's base and register versions."""
    hush()


for _early in (merge, average, import_):
    train.add_command(_early)


@train.command()
@click.argument("config", type=_FILE)
@click.option("--out", type=_FILE, metavar="DIR", help="Write the adapter to DIR instead of registering it.")
@click.option("--resume", is_flag=True, help="Continue the newest interrupted run of the same config.")
@click.argument("launcher", nargs=-1, type=click.UNPROCESSED, metavar="[-- LAUNCHER…]")
@local_options
@pass_session
def run(session: Session, config: Path, out: Path | None, resume: bool, launcher: tuple[str, ...]) -> None:
    """Train by CONFIG and register the result as the next version.

    CONFIG is YAML, TOML or JSON. Ctrl-C or SIGTERM finishes the current step, writes a checkpoint and
    exits without registering; continue with --resume. A second one exits at once. Every run is a job: see
    `wardrobe train jobs` and `wardrobe train show`. Options after `--` go to `accelerate launch`, which
    starts several processes: `-- --multi_gpu --num_processes 4`.
    """
    from train.config import load_config

    root = session.require_local("train run")
    started = time.monotonic()
    settings = load_config(config)
    if launcher:
        click.get_current_context().exit(_launch(session, settings, config, out, resume, launcher))
    environment.use_one_gpu()
    if _is_this_command():
        environment.replace_process()
    from registry.store import Registry
    from train.process.launching import follows
    from train.runs.progress import RunProgress
    from train.runs.run import prepare, train_and_publish, train_to_folder
    from train.runs.session import RunOptions

    registry = Registry.open(root)
    quiet = follows()
    if not quiet:
        for text in foreign.warnings(Path.cwd()):
            output.print_warning(text)
    with (
        Interruption() as interruption,
        RunProgress(settings.name, interruption.hold, quiet=quiet) as progress,
    ):
        options = RunOptions(
            user_name(), progress, resume, lambda: interruption.requested, output.print_notice
        )
        try:
            prepared = prepare(settings, registry, resume=resume)
            if not quiet:
                _say_nearest(prepared)
                _warn_before(prepared)
                output.print_notice(f"{settings.name}: loading {prepared.base.name}")
            interruption.defer((lambda: None) if quiet else _say_stopping)
            if out is None:
                finished = train_and_publish(prepared, registry, options)
            else:
                finished = train_to_folder(prepared, out, options)
        except KeyboardInterrupt:
            if not quiet:
                way_on = _way_on(root, settings.name, config)
                output.print_notice(f"stopped {progress.position}: nothing was registered{way_on}")
            raise
    if not quiet:
        _print_run(session, finished, out, time.monotonic() - started)


@train.command()
@click.argument("config", type=_FILE)
@click.argument("launcher", nargs=-1, type=click.UNPROCESSED, metavar="[-- LAUNCHER…]")
@common_options
@pass_session
def check(session: Session, config: Path, launcher: tuple[str, ...]) -> None:
    """Check CONFIG, its data and the base without training.

    Renders every row with the base's chat template, so an answer that would be cut off is found here. With
    --url, what the running server can serve is checked as well; root and data are those of this machine.
    Options after `--` are checked as in `train run`.
    """
    from registry.store import Registry
    from train.config import load_config
    from train.documents import CheckReport
    from train.model.shape import check_server
    from train.runs.run import prepare

    registry = Registry.open(session.root_path)
    settings = load_config(config)
    processes = _launched(settings, launcher) if launcher else None
    prepared = prepare(settings, registry, processes=processes)
    if session.url is not None:
        check_server(prepared.config, prepared.base, _limits_of(session, session.url))
    document = CheckReport.of(prepared)
    for text in (*prepared.warnings, *document.length.warnings()):
        output.print_warning(text)
    if session.as_json:
        output.print_json(document)
        return
    _print_check(document, prepared.config.data)


def _print_check(document: CheckReport, data: DataSettings) -> None:
    """Print what a person wants to know of a run before it starts."""
    from train.dataset.checks.first import first_row

    modules = ", ".join(f"{count} {name}" for name, count in document.modules.items())
    facts = [
        ("adapter", document.adapter),
        ("base", document.base),
        ("trains", f"rank {document.rank} on {sum(document.modules.values())} modules ({modules})"),
    ]
    output.print_facts([*facts, ("goes on with", document.parent)] if document.parent else facts)
    if document.nearest is not None:
        print_nearest(document.nearest)
    output.print_table(
        ("data", "rows#", "tokens#", "trained#", "longest#", "cut off#"),
        [
            (name, str(f.rows), str(f.tokens), str(f.learnt_tokens), str(f.longest), str(len(f.truncated)))
            for name, f in document.data.items()
        ],
    )
    for label, path in data.files.items():
        first = first_row(path, data.readings[label])
        for line in first.lines() if first else ():
            output.print_line(line if line.startswith(" ") else f"{label} {line}")
    if (held := document.held_out) is not None:
        told = ", ".join(f"{rows} of {name}" for name, rows in held.sources.items())
        fact = f"{held.rows} of {held.of} rows (share {held.share:g}, {held.clusters} sets of like rows)"
        output.print_line(f"held out: {fact}: {told}")
    for name, counts in document.data.items():
        for line in counts.remarks(name):
            output.print_warning(line)
    if len(document.mixture) > 1:
        output.print_table(
            ("mixture", "rows#", "of#", "passes#", "tokens#", "trained#"),
            [
                (name, str(s.rows), str(s.available), f"{s.passes:.2f}", str(s.tokens), str(s.learnt_tokens))
                for name, s in document.mixture.items()
            ],
        )
    output.print_facts(document.length.facts())


@train.command()
@click.argument("config", type=_FILE)
@click.option(
    "--price-per-hour",
    type=click.FloatRange(0),
    metavar="AMOUNT",
    help="Price of the machine per hour, to estimate the cost.",
)
@local_options
@pass_session
def estimate(session: Session, config: Path, price_per_hour: float | None) -> None:
    """Estimate time, memory and cost of CONFIG from three real steps.

    Keeps nothing. The first step takes the longest rows, so it finds out whether the memory suffices.
    Loading, evaluations and checkpoints are not counted. A run records its own figures next to these.
    """
    from train.config import load_config

    root = session.require_local("train estimate")
    settings = load_config(config)
    environment.use_one_gpu()
    if _is_this_command():
        environment.replace_process()
    from registry.store import Registry
    from train.runs.estimate import estimate as measure
    from train.runs.run import prepare

    registry = Registry.open(root)
    with Interruption(), output.progress("measuring three steps", None):
        found = measure(prepare(settings, registry), registry, price_per_hour)
    if session.as_json:
        output.print_json(found)
        return
    facts = [
        ("steps", f"{found.steps} ({found.rows} rows, {found.tokens} tokens in all)"),
        ("time", f"{found.seconds:.0f} s ({found.tokens_per_second:.0f} tokens/s on {found.device})"),
        ("memory", f"{output.amount(found.peak_memory_bytes)} at the longest rows"),
    ]
    if found.cost is not None:
        facts.append(("cost", f"{found.cost:.2f}"))
    output.print_facts(facts)


for _command in (prove, sweep, jobs, show, cancel, pause, resume, worker):
    train.add_command(_command)


@click.group()
def base() -> None:
    """Base models."""


@base.command()
@click.argument("folder", type=_FILE, metavar="[DIR]", required=False)
@local_options
@pass_session
def demo(session: Session, folder: Path | None) -> None:
    """Unpack SmolLM2-135M-Instruct as a model folder; print its path.

    DIR defaults to ROOT/base/smollm2-135m-instruct. A folder that is there already is left as it is.
    """
    from train.documents import BaseFolder

    target = (folder or session.require_local("base demo") / "base" / NAME).resolve()
    with output.progress(f"making {target.name}", None):
        made = make_demo_base(target)
    if session.as_json:
        output.print_json(BaseFolder(path=str(target), created=made))
    else:
        output.print_line(str(target))


def _limits_of(session: Session, url: str) -> ServerLimits:
    from registry.api import operations
    from train.model.shape import ServerLimits

    status = operations.show_status(dataclasses.replace(session, root=None).http_client())
    return ServerLimits(url, status.base.fingerprint, status.max_lora_rank)


def _is_this_command() -> bool:
    # Only the command's own process may be replaced, not one that merely calls the command (a test).
    return "train" in sys.argv[1:] and Path(sys.argv[0]).name in {"wardrobe", "main.py", "__main__.py"}


def _launched(settings: TrainConfig, launcher: tuple[str, ...]) -> int:
    """Check the launcher's options; tell what only this machine would not do. Return the processes."""
    from train.runs.launcher import check_launch, check_machine, read_launch

    found = read_launch(launcher)
    check_launch(settings, found)
    try:
        check_machine(settings, found, gpu=environment.device_has_gpu())
    except UsageError as error:
        output.print_warning(f"{error} (this machine)")
    return found.processes


def _launch(
    session: Session,
    settings: TrainConfig,
    config: Path,
    out: Path | None,
    resume: bool,
    launcher: tuple[str, ...],
) -> int:
    from registry.store import Registry
    from train.process.launching import launch
    from train.runs.launcher import check_launch, check_machine, read_launch
    from train.runs.run import prepare

    found = read_launch(launcher)
    check_launch(settings, found)
    check_machine(settings, found, gpu=environment.device_has_gpu())
    # What is wrong with the config or its data is said once, here, and not by every process.
    prepare(settings, Registry.open(session.root_path), processes=found.processes)
    command = ["--root", str(session.root_path), "train", "run", str(config)]
    command += ["--out", str(out)] if out is not None else []
    command += [*(["--resume"] if resume else []), *(["--json"] if session.as_json else [])]
    return launch(launcher, command)


def _say_stopping() -> None:
    # In a signal handler: no buffered stream may be touched.
    os.write(2, b"\nstopping behind this step with a checkpoint; a second signal stops at once\n")


def _way_on(root: Path, adapter: str, config: Path) -> str:
    from train.jobs.store import Jobs

    waiting = Jobs(root.resolve()).interrupted(adapter)
    if not waiting:
        return ""
    step = waiting[0].steps_kept[-1]
    return f"; `wardrobe train run {config} --resume` goes on from step {step}"


def _warn_before(prepared: PreparedRun) -> None:
    for text in prepared.warnings:
        output.print_warning(text)
    for name, found in prepared.reports.items():
        if found.truncated:
            rows = ", ".join(str(row) for row in found.truncated[:5])
            limit = prepared.config.training.max_length
            output.print_warning(
                f"{name}: {len(found.truncated)} rows are longer than max_length {limit} and lose their end "
                f"(rows {rows}{', …' if len(found.truncated) > 5 else ''})"
            )


def _say_nearest(prepared: PreparedRun) -> None:
    if prepared.choice is not None:
        output.print_notice(prepared.choice.sentence)


def print_nearest(choice: NearestVersion) -> None:
    """Print the candidates of `from: nearest` with their losses."""
    output.print_table(
        ("nearest", "loss#", ""),
        [
            (one.name, "-" if one.loss is None else f"{one.loss:.4f}", _said(one, choice))
            for one in choice.candidates
        ],
    )
    output.print_notice(choice.sentence)


def _said(candidate: Candidate, choice: NearestVersion) -> str:
    if candidate.left_out is not None:
        return candidate.left_out
    return "the start" if candidate is choice.winner else ""


def _print_run(session: Session, finished: Finished, out: Path | None, seconds: float) -> None:
    from train.documents import RunReport

    document = RunReport.of(finished, out, seconds)
    for warning in document.warnings:
        output.print_warning(warning)
    if session.as_json:
        output.print_json(document)
        return
    if document.digest is None:
        output.print_line(document.out or document.artefact or "")
    else:
        known = "" if document.created else "  (the same content was registered already)"
        output.print_line(f"{document.adapter}@{document.version}  {document.digest}{known}")
    held_out = "" if document.eval_loss is None else f", held-out loss {document.eval_loss:.3f}"
    speed = f"{document.train_seconds:.0f} s ({document.tokens_per_second:.0f} tokens/s)"
    losses = f"loss {document.first_loss:.3f} -> {document.last_loss:.3f}{held_out}"
    output.print_notice(f"{document.steps} steps in {speed}, {losses}")
    if document.why != "the last step":
        output.print_notice(f"taken: step {document.taken}, {document.why}")
    if document.artefact is not None:
        output.print_notice(f"reward model of job {document.job}: name it in a config as reward.model")
    for evaluation in finished.result.evaluations[-1:]:
        print_samples(evaluation.samples)


def print_samples(samples: Iterable[tuple[str, str]]) -> None:
    """Print prompts with their answers, each on a line of its own."""
    for prompt, answer in samples:
        output.print_notice(f"> {prompt}")
        output.print_notice(f"  {answer}")
