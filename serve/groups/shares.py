"""This replica's part of every limit, by how many replicas of the root live (pure; clock injected).

Invariants: the parts of replicas that see the same others are together the limit; what one that went away
held is free for the others only a minute later, when nothing counts any more that it let in. So only a
replica that begins can add to what is used within a minute, and no more than its part.
"""

from __future__ import annotations

from collections.abc import Collection

from serve.groups.accounts import WINDOW_SECONDS


class ReplicaShares:
    """Who shares the limits, as far as this replica, `name`, has seen."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._names: tuple[str, ...] = (name,)
        self._more: list[tuple[float, int]] = []
        self.replicas = 1
        self.rank: int | None = 0

    def observe(self, now: float, alive: Collection[str]) -> bool:
        """Take in which replicas live, this one in any case, and return whether its part has changed."""
        names = tuple(sorted({self._name, *alive}))
        if len(names) < len(self._names):
            self._more.append((now, len(self._names)))
        self._names = names
        self._more = [one for one in self._more if now - one[0] < WINDOW_SECONDS + 1]
        before = self.replicas, self.rank
        self.replicas = max([len(names), *(count for _, count in self._more)])
        # Who has the rest of a division is agreed only where all are seen.
        self.rank = names.index(self._name) if self.replicas == len(names) else None
        return before != (self.replicas, self.rank)
