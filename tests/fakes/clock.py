"""A clock that stands still until it is moved."""

from __future__ import annotations


class Clock:
    """Seconds since the epoch, as the test says."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now
