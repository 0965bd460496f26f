"""Whether the child's API server still lives, by its answers to pings: the outer half of the watchdog.

Pure but for the names of its numbers. It counts looks, not seconds: a machine that was suspended, or a
container that was frozen with everything in it, has missed one look and not a minute of them.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOK_SECONDS = 1.0
_LOOKS_PER_LIMIT = 5


@dataclass(slots=True)
class ChildPulse:
    """Judges one child that is asked every `look_seconds`; hung after `limit_seconds` without an answer."""

    limit_seconds: float
    _pongs: int = 0
    _silent: int = 0

    @property
    def look_seconds(self) -> float:
        """Return how often the child is to be asked."""
        return min(LOOK_SECONDS, self.limit_seconds / _LOOKS_PER_LIMIT)

    def look(self, pongs: int, missed: int) -> str:
        """Take in what was heard since the last look; return why the child counts as hung, or ''.

        `pongs` have come in all; `missed` pings the newest of them has named: the child's thread answers, its
        loop does not.
        """
        if pongs == self._pongs:
            self._silent += 1
        else:
            self._silent = 0
        self._pongs = pongs
        if self._silent * self.look_seconds >= self.limit_seconds:
            return f"the API server has not answered for {self.limit_seconds:g} s"
        if not self._silent and missed * self.look_seconds >= self.limit_seconds:
            return f"the API server's event loop has been blocked for {self.limit_seconds:g} s"
        return ""

    def forgive(self) -> None:
        """Begin again: a debugger held the child."""
        self._silent = 0
