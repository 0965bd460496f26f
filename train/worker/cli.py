"""`wardrobe train worker`. Imports nothing heavy at its top."""

from __future__ import annotations

import signal
import threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry import foreign
from registry.cli import output
from registry.cli.session import Session, local_options, pass_session
from registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.tuning.jobs import TuningJob
    from train.worker.outcome import TaskKind

_NEEDS = ("torch", "transformers", "peft", "trl", "accelerate")


@click.command()
@click.option(
    "--device",
    metavar="NAME",
    help="The device to train on: cpu, cuda:0, … (default: the first GPU that is visible, else cpu).",
)
@click.option(
    "--threads", type=click.IntRange(1), metavar="N", help="Threads of a training on the CPU (default: all)."
)
@click.option("--idle", is_flag=True, help="Train only on what of the processors nobody else wants.")
@click.option("--once", is_flag=True, help="End when no job waits.")
@local_options
@pass_session
def worker(session: Session, device: str | None, threads: int | None, idle: bool, once: bool) -> None:
    """Train the jobs that were asked for over the API.

    Any number may run, on any machine that shares the root; each trains one job at a time, in a process of
    its own, and one device of a machine is used by one training. Jobs of different keys take turns. Killed at
    any moment, another worker goes on from the newest checkpoint. SIGTERM stops behind the current step with
    a checkpoint; the job is free for another worker then.
    """
    _require_training()
    from registry.store import Registry
    from train.process.priority import IDLE
    from train.worker.device import find_device, visible_devices
    from train.worker.process import die_with_parent, tasks_line
    from train.worker.worker import TuningWorker, WorkerOptions

    die_with_parent()  # where a server started it
    root = Registry.open(session.require_local("train worker")).catalogue.root
    taken = device or find_device()
    environment = visible_devices(taken)
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if idle:
        environment[IDLE] = "1"
    say = tasks_line()
    options = WorkerOptions(
        taken,
        partial(_program, root.path),
        environment,
        on_start=lambda pid, _kind: say(f"begun {pid}"),
        on_stop=lambda pid: say(f"left {pid}"),
        notice=output.print_notice,
    )
    found = TuningWorker(root, options)
    output.print_notice(f"{found.id}: trains on {taken}, jobs of {root.path}")
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ending.set())
    found.run(ending.is_set, once=once)


def _require_training() -> None:
    """Pass where jobs can be trained, without importing what trains: a worker that cannot would fail each.

    Raises: UsageError.
    """
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        fact = f"needs {', '.join(missing)}, which is not installed"
        raise UsageError("train worker", fact, "pip install 'wardrobe-llm[train]'")


def _program(root: Path, job: TuningJob, kind: TaskKind) -> Sequence[str]:
    return foreign.python("-m", "train.worker.task", str(root), job.id, kind.value)
