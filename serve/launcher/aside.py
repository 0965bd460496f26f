"""Work that may hang on a disk, done beside the launcher's loop and waited for only so long."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T], seconds: float, otherwise: T) -> T:
    """Return what `work` returns in a thread, or `otherwise` where it fails or takes longer.

    A daemon's thread, not the loop's pool: a read of a dead mount never returns, and the pool is waited for
    when the process ends.
    """
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
        threading.Thread(target=run, name="wardrobe-aside", daemon=True).start()
        async with asyncio.timeout(seconds):
            return await done
    except (TimeoutError, RuntimeError):  # RuntimeError: no thread can be started now
        return otherwise
