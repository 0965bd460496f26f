"""When to start the engine again, and when to give up: a pure function of what the starts came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ending:
    """How one start ended: `at` in monotonic seconds; `ready` whether it had ever been ready.

    `incurable` marks a configuration that no restart can mend.
    """

    at: float
    ready: bool
    incurable: bool = False


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Wait `first_seconds`, doubled up to `longest_seconds`; give up after `limit` failures in a row.

    A failure is a start that was never ready. A start that was ready counts as one too when it is the
    `limit`th ending within `window_seconds`: an engine that dies right after each start loops as well.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    limit: int = 5
    window_seconds: float = 600.0

    def delay(self, endings: Sequence[Ending]) -> float | None:
        """Return the seconds to wait before the next start, or None to give up; newest ending last."""
        last = endings[-1]
        recent = [ending for ending in endings if last.at - ending.at <= self.window_seconds]
        failures = 0
        for ending in reversed(endings):
            if ending.ready:
                break
            failures += 1
        if last.incurable or failures >= self.limit or len(recent) >= 2 * self.limit:
            return None
        if failures == 0:
            return 0.0 if len(recent) == 1 else self._doubled(len(recent) - 2)
        return self._doubled(failures - 1)

    def _doubled(self, times: int) -> float:
        return float(min(self.first_seconds * 2**times, self.longest_seconds))
