"""What is taken of a config, and what is not: each loss with its place and the way out.

Invariant: nothing is left out in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Untaken:
    """Something of a config that the suite does not have: where it stands, what it is, what to do instead."""

    place: str
    what: str
    remedy: str


@dataclass(slots=True)
class ConfigLosses:
    """All that was not taken over, and what means something else here."""

    untaken: list[Untaken] = field(default_factory=list)

    def add(self, place: str, what: str, remedy: str) -> None:
        """Take note of something, once."""
        found = Untaken(place, what, remedy)
        if found not in self.untaken:
            self.untaken.append(found)
