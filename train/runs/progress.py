"""What a person sees while a run goes on: a bar with loss, tokens/s and time left, or a line now and then.

On a terminal the bar is redrawn; elsewhere (a log, a pipe) about ten lines are written in all. Everything
goes to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from train.loop.watching import OptimiserStep, TrainingEvaluation

_LINES = 10


class RunProgress:
    """Shows one run, or nothing with `quiet`; a context manager. `position` says in words how far it came."""

    def __init__(self, name: str, on_publishing: Callable[[], None], *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._on_publishing = on_publishing
        self.position = "before the first step"
        self._name = name
        self._started = 0.0
        self._first_tokens = self._first_step = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(f"{name}: preparing", total=None, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, step: OptimiserStep) -> None:
        """Show one optimiser step."""
        done, total, tokens = step.number, step.total, step.tokens
        self.position = f"at step {done} of {total}"
        # The first step pays for warming up; the speed is counted from its end.
        if not self._started:
            self._started, self._first_step, self._first_tokens = time.monotonic(), done, tokens
        seconds = time.monotonic() - self._started
        measured = done - self._first_step  # steps that the speed is of; none behind the first one
        speed = f"  {(tokens - self._first_tokens) / seconds:.0f} tokens/s" if measured and seconds else ""
        facts = f"loss {step.loss:.3f}{speed}"
        self._bar.update(
            self._task, description=f"{self._name}: training", total=total, completed=done, facts=facts
        )
        if self._bar.disable and not self._quiet and (done == total or done % max(1, total // _LINES) == 0):
            left = f"  {seconds / measured * (total - done):.0f} s left" if measured and done < total else ""
            print(f"{self._name}: step {done}/{total}  {facts}{left}", file=sys.stderr)  # noqa: T201

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Show an evaluation on a line of its own."""
        text = evaluation.text()
        if self._quiet or not text:
            return
        line = f"{self._name}: {self.position}: {text}"
        if self._bar.disable:
            print(line, file=sys.stderr)  # noqa: T201
        else:
            self._bar.console.print(line, highlight=False, markup=False)

    def close(self, state: str) -> None:
        """Nothing: the command says how the run ended."""

    def publishing(self) -> None:
        """Show that the result is being kept."""
        self.position = "after the last step"
        self._bar.update(self._task, description=f"{self._name}: registering")
        self._on_publishing()
