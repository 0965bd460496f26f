"""What goes wrong at an account or on the disk, once each: a sentence, an exit code, and then it goes on.

Owns the scenes. In each the same command is run again when the fault is over, and must end well; none trains.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadtests.drills.faults.volume import may_mount
from loadtests.drills.migrate.command import MigrationCommand
from loadtests.drills.migrate.provider import DoorFaults, Provider

INTERRUPTED = 130
_ALWAYS = 10_000
_SMALL, _ROOMY = "64k", "16m"


@dataclass(frozen=True, slots=True)
class FaultScene:
    """One fault as it was seen: exit code, what was said, seconds, and the exit code of the run after it."""

    name: str
    code: int
    said: str
    seconds: float
    resumed: int
    passed: bool


@dataclass
class AccountStage:
    """Where the scenes are played: each has a folder of its own."""

    provider: Provider
    root: Path
    folder: Path

    def command(self, name: str, *more: str, **changes: Any) -> MigrationCommand:
        """Return the command of a scene."""
        made = MigrationCommand(
            self.provider.url,
            self.provider.key,
            self.folder / name,
            self.root,
            self.folder / f"{name}.log",
            more,
        )
        return replace(made, **changes)

    def told(self, name: str) -> str:
        """Return what the command said on stderr."""
        return (self.folder / f"{name}.log").read_text()

    def scene(
        self, name: str, command: MigrationCommand, *, code: int, said: str, faults: DoorFaults | None = None
    ) -> FaultScene:
        """Play a fault that is at the door, or in the command itself; then without it."""
        self.provider.door.faults = faults or DoorFaults()
        began = time.monotonic()
        found, report = command.finish()
        seconds = time.monotonic() - began
        self.provider.door.faults = DoorFaults()
        told = self.told(name) + "".join(_words(report))
        resumed = self.command(name).finish()[0]
        return _seen(name, found, told, seconds, resumed, code == found and said in told, said)


def play(stage: AccountStage) -> list[FaultScene]:
    """Play every scene."""
    found = []
    for scene in (_wrong_key, _away, _busy, _broken, _cut, _always_cut, _budget, _interrupted, _full):
        one = scene(stage)
        print(
            f"  {one.name}: exit {one.code} in {one.seconds:.1f} s, then {one.resumed}: {one.said}",
            flush=True,
        )
        found.append(one)
    return found


def _wrong_key(stage: AccountStage) -> FaultScene:
    command = stage.command("wrong-key", key="sk-wrong")
    return stage.scene("wrong-key", command, code=1, said="does not take the key (401)")


def _away(stage: AccountStage) -> FaultScene:
    command = stage.command("away", url="http://127.0.0.1:9")
    return stage.scene("away", command, code=1, said="cannot be reached")


def _busy(stage: AccountStage) -> FaultScene:
    faults = DoorFaults(statuses=[429] * 3, retry_after_seconds=2)
    found = stage.scene("busy", stage.command("busy"), code=0, said="answers 429", faults=faults)
    return replace(found, passed=found.passed and found.seconds >= 6)


def _broken(stage: AccountStage) -> FaultScene:
    faults = DoorFaults(statuses=[500] * _ALWAYS, retry_after_seconds=0.01, spare_listing=True)
    return stage.scene(
        "broken", stage.command("broken"), code=1, said="answers 500 after 6 tries", faults=faults
    )


def _cut(stage: AccountStage) -> FaultScene:
    """One content that breaks off is fetched again at once."""
    command, faults = stage.command("cut"), DoorFaults(cut_contents=2)
    found = stage.scene("cut", command, code=0, said="recorded", faults=faults)
    return replace(found, said="fetched again at once")


def _always_cut(stage: AccountStage) -> FaultScene:
    faults = DoorFaults(cut_contents=_ALWAYS)
    return stage.scene("always-cut", stage.command("always-cut"), code=1, said="broke off", faults=faults)


def _budget(stage: AccountStage) -> FaultScene:
    before = sum(one.tokens for one in stage.provider.models.asked)
    command = stage.command("budget", "--budget", "300")
    began = time.monotonic()
    code, report = command.finish()
    spent = sum(one.tokens for one in stage.provider.models.asked) - before
    seconds = time.monotonic() - began
    told = "".join(_words(report))
    resumed = stage.command("budget").finish()[0]
    good = (
        code == 0 and "the budget of 300 tokens is spent" in told and spent == report["tokens"] < 300 + 4 * 40
    )
    return _seen("budget", code, told, seconds, resumed, good, "the budget of 300 tokens is spent")


def _interrupted(stage: AccountStage) -> FaultScene:
    """Ctrl-C while answers are on their way."""
    command = stage.command("interrupted")
    with command.started() as process:
        _wait(
            lambda: sum(path.read_bytes().count(b"\n") for path in command.out.glob("*/answers.jsonl")) >= 8
        )
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.communicate()
        seconds, code = time.monotonic() - began, process.returncode
    told = stage.told("interrupted")
    resumed = command.finish()[0]
    good = code == INTERRUPTED and "the same command goes on" in told and seconds < 3
    return _seen("interrupted", code, told, seconds, resumed, good, "the same command goes on")


def _full(stage: AccountStage) -> FaultScene:
    """A disk with room for a part of it all."""
    scratch = stage.folder / "scratch"
    scratch.mkdir()
    if not may_mount(scratch):
        return FaultScene("full", 0, "not played: it needs the right to mount", 0.0, 0, passed=True)
    with _disk(stage.folder / "full") as disk:
        command = stage.command("full")
        began = time.monotonic()
        code, report = command.finish()
        seconds = time.monotonic() - began
        told = stage.told("full") + "".join(_words(report))
        subprocess.run(["mount", "-o", f"remount,size={_ROOMY}", str(disk)], check=True)
        resumed = stage.command("full").finish()[0]
        left = [path.name for path in disk.rglob(".*.partial")]
    good = code == 1 and "there is no room left" in told and not left
    return _seen("full", code, told, seconds, resumed, good, "there is no room left")


@contextmanager
def _disk(point: Path) -> Iterator[Path]:
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SMALL}", "none", str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


def _seen(
    name: str, code: int, told: str, seconds: float, resumed: int, good: bool, wanted: str
) -> FaultScene:
    found = [line for line in told.splitlines() if wanted in line and not line.startswith("{")]
    said = found[-1] if found else told[-300:]
    return FaultScene(name, code, said, round(seconds, 1), resumed, passed=good and resumed == 0)


def _words(report: dict[str, Any]) -> Iterator[str]:
    for job in report.get("jobs", []):
        yield from (f"{text}\n" for text in (job["sentence"], *job["notes"]))


def _wait(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not there():
        assert time.monotonic() < until, "it never came so far"
        time.sleep(0.02)
