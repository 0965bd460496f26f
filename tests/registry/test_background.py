"""Work that goes on: whatever a turn raises, the next one comes, and what was wrong is told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from registry.background import LONGEST_PAUSE_SECONDS, Background, PeriodicWork
from registry.errors import StorageFailed

ERRORS: tuple[BaseException, ...] = (
    OSError(5, "Input/output error"),
    RuntimeError("odd"),
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    StorageFailed("keys", "cannot be read"),
    asyncio.CancelledError(),
)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def failing(errors: Iterator[BaseException], done: Callable[[], object]) -> Callable[[], None]:
    """Return a turn that raises one error after the other, and then is well."""

    def turn() -> None:
        error = next(errors, None)
        if error is not None:
            raise error
        done()

    return turn


def impatient(work: PeriodicWork) -> PeriodicWork:
    """Have a work try again at once, as `pause` says in a test of its own."""

    class Hurried(PeriodicWork):
        __slots__ = ()
        pause = 0.001

    work.__class__ = Hurried
    return work


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_loop_goes_on_whatever_its_turn_raises(error: BaseException) -> None:
    async def live() -> PeriodicWork:
        done = asyncio.Event()
        background = Background()
        turn = failing(iter([error, error]), done.set)

        async def asynchronous() -> None:
            turn()

        work = impatient(background.work("keys", asynchronous, 0.001))
        task = background.loop(work)
        async with asyncio.timeout(5):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return work

    work = asyncio.run(live())
    assert (work.failures, work.problem) == (2, "")


@pytest.mark.parametrize("error", ERRORS[:-1], ids=lambda error: type(error).__name__)
def test_a_thread_goes_on_whatever_its_turn_raises(error: BaseException) -> None:
    done = threading.Event()
    background = Background()
    work = impatient(background.work("watcher", failing(iter([error, error]), done.set), 0.001))
    background.thread(work)
    assert done.wait(5)
    background.stop()
    assert work.failures == 2


def test_a_loop_that_is_cancelled_ends() -> None:
    async def live() -> None:
        background = Background()
        task = background.loop(background.work("keys", lambda: None, 60.0))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(live())


def test_a_kind_of_failure_is_logged_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    work = PeriodicWork("keys", lambda: None, 1.0)
    with caplog.at_level(logging.INFO, "registry.background"):
        for _ in range(3):
            work.fail(StorageFailed("keys", "cannot be read"))
        work.fail(RuntimeError("odd"))
        work.succeed()
        work.fail(StorageFailed("keys", "cannot be read"))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "keys failed and is tried again",
        "keys failed and is tried again",
        "keys goes on, after 4 failures within 0 s",
        "keys failed and is tried again",
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [False, True, False, False]
    assert work.failures == 5


def test_what_fails_is_tried_again_later_and_later_but_soon_enough() -> None:
    work = PeriodicWork("keys", lambda: None, 0.5)
    pauses = []
    for _ in range(8):
        work.fail(OSError("no"))
        pauses.append(work.pause)
    assert pauses == [0.5, 1.0, 2.0, 4.0, *[LONGEST_PAUSE_SECONDS] * 4]
    work.succeed()
    assert work.pause == 0.5
    hourly = PeriodicWork("tidy", lambda: None, 3_600.0)
    hourly.fail(OSError("no"))
    assert hourly.pause == 3_600.0


def test_a_turn_that_never_ends_is_a_problem() -> None:
    clock = Clock()
    work = PeriodicWork("keys", lambda: None, 1.0, patience_seconds=10.0, clock=clock)
    work.began = clock.now
    clock.now += 10
    assert work.state() == ""
    clock.now += 1
    assert work.state() == "has not come to an end for 11 s"


def test_a_fault_in_a_part_is_told_and_slows_nothing_down() -> None:
    work = PeriodicWork("rollouts", lambda: None, 0.5)
    work.note(StorageFailed("support", "is damaged"))
    work.succeed()
    assert (work.problem, work.pause, work.failures) == ("support: is damaged", 0.5, 1)
    work.succeed()
    assert work.problem == ""


def test_what_is_done_once_is_told_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("no prompt")

    async def live() -> Background:
        background = Background()
        await background.once("golden prompts", fail)
        await background.once("golden prompts", fail)
        return background

    background = asyncio.run(live())
    assert background.works["golden prompts"].failures == 2
    assert background.problems() == {"golden prompts": "ValueError: no prompt"}
    assert len(caplog.records) == 1


def test_an_error_whose_text_cannot_be_made_is_counted_all_the_same() -> None:
    class Mute(RuntimeError):
        def __str__(self) -> str:
            raise MemoryError

    work = PeriodicWork("keys", lambda: None, 1.0)
    work.fail(Mute())
    assert (work.failures, work.problem) == (1, "Mute")
