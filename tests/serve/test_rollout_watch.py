"""`status --watch`: the picture on a terminal, lines in a pipe, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from registry.errors import Conflict, StorageFailed, WardrobeError
from registry.records import RolloutEntry
from serve.rollout.decision.states import EventType
from serve.rollout.display.picture import bar, draw
from serve.rollout.display.status import RolloutFacts, describe
from serve.rollout.display.watch import MAX_FAILED_LOOKS, RolledBack, line, watch
from serve.rollout.documents import RolloutStatus
from serve.rollout.recording.pooling import pool
from serve.rollout.statistics.judgement import Certificate, Judgement, MetricCheck, MetricVerdict
from tests.fakes.driving import arm, drive, make_root, seen
from tests.fakes.rollouts import make_entry
from tests.fakes.terminal import Terminal

CHECKS = (
    MetricCheck("errors", MetricVerdict.SUSPICIOUS, 2.5, 0.02, "22 of 154 failed, 3 of 900 of stable"),
    MetricCheck("latency", MetricVerdict.PASS, -0.4, 0.015, "no slower"),
    MetricCheck("feedback", MetricVerdict.INSUFFICIENT, 0.0, 0.01, "2 scores", needed=23),
)
JUDGEMENT = Judgement(
    CHECKS,
    MetricCheck("imbalance", MetricVerdict.PASS, -1.0, 0.001, "balanced"),
    Certificate(reached=False, how="", sentence="700 more", needed=700),
)


def make_status(**changes: Any) -> RolloutStatus:
    entry: RolloutEntry = make_entry(**changes)
    return describe(RolloutFacts([entry], [], pool([], step=entry.step), JUDGEMENT, [], 1_060.0))


def shown(status: RolloutStatus, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(draw(status))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def following(*statuses: RolloutStatus | WardrobeError) -> Callable[[], RolloutStatus]:
    """Return a look that sees `statuses` one after the other, raising those that are errors."""
    rest: Iterator[RolloutStatus | WardrobeError] = iter(statuses)

    def look() -> RolloutStatus:
        found = next(rest)
        if isinstance(found, WardrobeError):
            raise found
        return found

    return look


RAMPING = make_status(seq=2)
ADVANCED = make_status(seq=3, step=1, weight=5000, event="advance", reason="advance")
PROMOTED = make_status(seq=4, step=1, state="promoted", weight=10_000)
CLOSED = make_status(seq=5, step=1, state="closed", weight=10_000, reason="cooled")
BACK = make_status(seq=6, state="rolled_back", weight=0, reason="errors", sentence="22 of 154 failed")


def test_the_picture_holds_steps_arms_verdicts_and_what_is_missing() -> None:
    text = shown(RAMPING)
    assert "support@2  ramping at 10%  against support@1" in text
    assert "● 10% ── ○ 50% ── ○ 100%" in text
    assert re.search(r"stable support@1 +canary support@2", text)
    assert re.search(r"errors +suspicious +█{13}─{7} +e 12.2 of 50 +22 of 154 failed", text)
    assert re.search(r"latency +pass +─{20} +e 0.67 of 67 +no slower", text)
    assert re.search(r"promotion +not yet +700 more", text)
    assert "0 of 30 canary units at 10%" in text
    assert "✓ 10% ── ● 50% ── ○ 100%" in shown(ADVANCED)
    assert "✓ 10% ── ✓ 50% ── ✓ 100%" in shown(CLOSED)


def test_the_picture_fits_a_narrow_terminal() -> None:
    assert max(len(row) for row in shown(RAMPING, width=60).splitlines()) <= 60


def test_text_from_outside_is_shown_and_not_obeyed() -> None:
    text = shown(make_status(sentence="[red]\x1b[2J[/red] note", reason="person"))
    assert "[red]\\x1b[2J[/red] note" in text
    assert "\x1b" not in text


def test_a_held_weight_is_told_beside_the_one_in_force() -> None:
    status = make_status(state="hold", weight=0, held_weight=500, reason="suspect", resumes="ramping")
    assert "hold at 0% (held: 5%)" in shown(status)


@pytest.mark.parametrize(("progress", "full"), [(-1, 0), (0, 0), (0.5, 10), (1, 20), (9, 20)])
def test_a_bar_is_full_at_one(progress: float, full: int) -> None:
    assert bar(progress).plain == "█" * full + "─" * (20 - full)


def test_into_a_pipe_goes_one_line_per_change(capsys: pytest.CaptureFixture[str]) -> None:
    pauses: list[float] = []
    watch(
        following(RAMPING, RAMPING, ADVANCED, PROMOTED, PROMOTED, CLOSED),
        0.5,
        as_json=False,
        sleep=pauses.append,
    )
    lines = capsys.readouterr().out.splitlines()
    assert [text[21:] for text in lines] == [line(one) for one in (RAMPING, ADVANCED, PROMOTED, CLOSED)]
    assert line(ADVANCED) == "support@2 ramping at 50% step 2 of 2 (advance)"
    assert pauses == [0.5] * 5


def test_with_json_each_change_is_a_document_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    watch(following(RAMPING, RAMPING, CLOSED), 1, as_json=True, sleep=lambda _: None)
    found = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [one["state"] for one in found] == ["ramping", "closed"]


def test_a_rollback_ends_it_as_a_failure() -> None:
    with pytest.raises(
        RolledBack, match=r"was rolled back \(errors\): 22 of 154 failed; `wardrobe rollout ex"
    ):
        watch(following(RAMPING, BACK), 1, as_json=True, sleep=lambda _: None)


def test_on_a_terminal_the_last_picture_stays() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    watch(following(RAMPING, ADVANCED, CLOSED), 1, as_json=False, sleep=lambda _: None, console=console)
    file = console.file
    assert isinstance(file, io.StringIO)
    assert "support@2  closed  against" in file.getvalue().split("ramping at 50%")[-1]


def test_it_outlives_a_restart_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    down = WardrobeError("http://x", "cannot be reached", "start it")
    watch(following(RAMPING, down, down, CLOSED), 1, as_json=True, sleep=lambda _: None)
    assert len(capsys.readouterr().out.splitlines()) == 2
    with pytest.raises(WardrobeError, match="cannot be reached"):
        watch(following(down), 1, as_json=True, sleep=lambda _: None)
    endless = following(RAMPING, *[StorageFailed("disk", "is full")] * (MAX_FAILED_LOOKS + 1))
    with pytest.raises(StorageFailed):
        watch(endless, 1, as_json=True, sleep=lambda _: None)
    with pytest.raises(Conflict):
        watch(following(RAMPING, Conflict("support", "odd")), 1, as_json=True, sleep=lambda _: None)


def test_the_exit_code_says_how_it_ended(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    wardrobe = Terminal(("--root", str(registry.root)))
    wardrobe.ok("rollout", "start", "support@2", "--policy", "fast")
    drive(registry, EventType.LOADED, EventType.PROMOTE, EventType.COOLED)
    assert "support@2 closed (cooled)" in wardrobe.ok("rollout", "status", "support", "--watch").out
    wardrobe.ok("rollout", "start", "support@3")
    wardrobe.ok("rollout", "abort", "support")
    done = wardrobe("--json", "rollout", "status", "support", "--watch")
    assert (done.code, len(done.out.splitlines())) == (1, 1)
    assert "support@3: was rolled back (abort)" in done.err


def test_ctrl_c_ends_the_picture_of_a_real_terminal_and_not_the_rollout(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    Terminal(("--root", str(registry.root))).ok("rollout", "start", "support@2", "--policy", "fast")
    drive(registry, EventType.LOADED)
    seen(registry, stable=arm(300, failed=3), canary=arm(20, failed=1, begin=1000))
    # A runner that was started in the background hands down SIGINT as ignored.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from registry.cli.main import main; main()"
    arguments = ["--root", str(registry.root), "rollout", "status", "support", "--watch", "--every", "0.2"]
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "60"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env=environment,
    )
    os.close(child)
    try:
        screen = _Screen(parent)
        assert screen.wait_for("ramping at 10%", 30)
        drive(registry, EventType.ADVANCE)
        assert screen.wait_for("ramping at 50%", 30)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    entry = registry.rollout("support")
    assert entry is not None
    assert (entry.state, entry.weight) == ("ramping", 5000)


class _Screen:
    """Reads a terminal from a thread, as nobody may leave it full."""

    def __init__(self, handle: int) -> None:
        self._text = ""
        self._handle = handle
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, text: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while text not in self._text and time.monotonic() < deadline:
            time.sleep(0.02)
        return text in self._text

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._handle, 65_536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            self._text += data.decode(errors="replace")
        os.close(self._handle)
