"""A bound on the processor time of work whose cost a stranger's input decides.

Owns the signal SIGPROF while a block is bounded. Invariant: a block ends, by itself or by `OutOfTime`, also
within a regular expression or a library that catches every `Exception`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class OutOfTime(BaseException):
    """The allowance of a block is used up."""


@contextlib.contextmanager
def processor_allowance(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block once this process has used `seconds` of processors; main thread only.

    Processor time, because a process that is stopped, or has to wait, does nothing wrong.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
