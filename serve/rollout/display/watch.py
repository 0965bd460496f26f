"""`rollout status --watch`: the picture that follows, or one line per change where nobody draws.

Owns the loop. It ends when the rollout is over: normally when `stable` was moved, as an error when it was
rolled back, so a script may wait on it. Ctrl-C ends it as every command (exit 130); the rollout goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.errors import StorageFailed, WardrobeError
from serve.rollout.display.explain import standing
from serve.rollout.display.picture import draw
from serve.rollout.documents import RolloutStatus

if TYPE_CHECKING:
    from rich.console import Console

Look = Callable[[], RolloutStatus]
Sleep = Callable[[float], None]
MAX_FAILED_LOOKS = 30


class RolledBack(WardrobeError):
    """A canary that was rolled back while `rollout status --watch` looked on."""

    code = "rolled_back"


def watch(look: Look, seconds: float, *, as_json: bool, sleep: Sleep, console: Console | None = None) -> None:
    """Show what `look` returns every `seconds` until the rollout is over.

    Raises: RolledBack; whatever `look` raises the first time, or too often in a row.
    """
    steady = _Steady(look)
    if as_json or (console is None and not sys.stdout.isatty()):
        status = _write_lines(steady, seconds, sleep, as_json=as_json)
    else:
        status = _draw(steady, seconds, sleep, console)
    if status.state == "rolled_back":
        remedy = f"`wardrobe rollout explain {status.adapter}` tells why"
        raise RolledBack(status.canary, f"was rolled back ({status.reason}): {status.sentence}", remedy)


def line(status: RolloutStatus) -> str:
    """Return a rollout in one line, for pipes."""
    sentence = f": {status.sentence}" if status.sentence else ""
    step = f" step {status.step + 1} of {len(status.steps)}" if status.step >= 0 and status.open else ""
    now = standing(status.state, status.weight)
    return f"{status.canary} {now}{step} ({status.reason}){sentence}"


class _Steady:
    """A look that outlives a server's restart: a failure in between shows the last picture again."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._last: RolloutStatus | None = None
        self._failures = 0

    def __call__(self) -> RolloutStatus:
        try:
            self._last = self._look()
            self._failures = 0
        except WardrobeError as error:
            self._failures += 1
            passing = error.http_status >= StorageFailed.http_status or error.http_status in {500, 503}
            if self._last is None or not passing or self._failures > MAX_FAILED_LOOKS:
                raise
        return self._last


def _write_lines(look: _Steady, seconds: float, sleep: Sleep, *, as_json: bool) -> RolloutStatus:
    seen = 0
    while True:
        status = look()
        if status.seq != seen:
            seen = status.seq
            if as_json:
                click.echo(json.dumps(status.model_dump(mode="json")))
            else:
                output.print_line(f"{output.moment(status.at)}  {line(status)}")
            sys.stdout.flush()
        if not status.open:
            return status
        sleep(seconds)


def _draw(look: _Steady, seconds: float, sleep: Sleep, console: Console | None) -> RolloutStatus:
    from rich.console import Console as RichConsole
    from rich.live import Live

    status = look()
    live = Live(
        draw(status, compact=True),
        console=console or RichConsole(highlight=False),
        auto_refresh=False,
        vertical_overflow="ellipsis",
    )
    with live:
        while status.open:
            sleep(seconds)
            status = look()
            live.update(draw(status, compact=True), refresh=True)
    return status
