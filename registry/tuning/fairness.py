"""Whose job is next: keys take turns, within a key the oldest goes first. Pure.

A turn goes to the key with the fewest jobs in training; of those to the one whose last turn is longest ago.
So two keys that queue alike are served alternately, however many jobs one of them has put in before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job that waits: its id, the key that asked for it, and since when (UNIX seconds)."""

    id: str
    who: str
    since: float


def choose(waiting: Sequence[WaitingJob], running: Sequence[str], history: Mapping[str, float]) -> str | None:
    """Return the id of the job that is next, None where nothing waits.

    `running` holds the key of each job in training, `history` when each key had its last turn.
    """
    busy = Counter(running)
    oldest: dict[str, WaitingJob] = {}
    for job in sorted(waiting, key=lambda one: (one.since, one.id)):
        oldest.setdefault(job.who, job)
    if not oldest:
        return None
    who = min(
        oldest,
        key=lambda key: (busy[key], history.get(key, float("-inf")), oldest[key].since, oldest[key].id),
    )
    return oldest[who].id
