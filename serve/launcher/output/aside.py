"""Work that may hang on a disk, done beside the launcher's loop and waited for only so long.

NOTE: `threading.Thread.start` waits for its thread without limit, and one that finds no memory for its first
step never tells it (CPython 3.11, seen under RLIMIT_AS); the loop's own pool is waited for as the process
ends. So threads are started bare here. Remove when `start` raises.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def start_thread(work: Callable[[], object]) -> None:
    """Run `work` in a thread that nobody waits for; without memory it may never run.

    Raises: RuntimeError: no thread can be started now.
    """
    _thread.start_new_thread(work, ())


async def aside(work: Callable[[], T], seconds: float, otherwise: T) -> T:
    """Return what `work` returns in a thread, or `otherwise` where it fails or takes longer."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T) -> None:
        if not done.done():
            done.set_result(value)

    def run() -> None:
        try:
            found = work()
        except Exception:  # noqa: BLE001 - whatever it is, `otherwise` is the answer to it
            found = otherwise
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found)

    try:
        start_thread(run)
        async with asyncio.timeout(seconds):
            return await done
    except (TimeoutError, RuntimeError):  # RuntimeError: no thread can be started now
        return otherwise
