"""What a record of requests shows over moves of `stable`.

Invariant: a request that failed, whose names disagree, or that was answered by a version that could not have
been `stable` while it was open, is counted, never dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.examples.clients import Asked

# An alias move reaches a running server within this time (seconds).
VISIBLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StableMove:
    """One command that moved `stable`: to which version, from when until when it ran."""

    version: int
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class SwapVerdict:
    """What the record shows; `spanning` answers were open while a move happened.

    `seconds` is the time from each move's command (its start included) to the first chunk by the new version.
    """

    requests: int
    failures: int
    wrong_versions: int
    by_version: dict[int, int]
    spanning: int
    seconds: tuple[float, ...]
    first_error: str | None

    @property
    def clean(self) -> bool:
        """Return True when nothing failed, nothing was wrong, and every version really answered."""
        return self.requests > 0 and self.failures == 0 and self.wrong_versions == 0

    def lines(self, adapter: str) -> list[str]:
        """Return the lines of a report."""
        answered = ", ".join(f"{adapter}@{number}: {count}" for number, count in self.by_version.items())
        lines = [
            f"  requests                     {self.requests}",
            f"  answered by                  {answered}",
            f"  failed                       {self.failures}",
            f"  answered by a wrong version  {self.wrong_versions}",
            f"  open while stable moved      {self.spanning}",
        ]
        for name, seconds in zip(("promote", "rollback"), self.seconds, strict=False):
            lines.append(f"  {f'{name} → first token':<28} {seconds:.2f} s")
        return [*lines, *([f"  first failure: {self.first_error}"] if self.first_error else [])]


def judge(asked: Sequence[Asked], moves: Sequence[StableMove]) -> SwapVerdict:
    """Return the verdict; `moves` begins with the version that was stable from the start."""
    right = [one for one in asked if one.error is None]
    by_version: dict[int, int] = {}
    for one in right:
        for version in set(one.versions):
            by_version[version] = by_version.get(version, 0) + 1
    errors = [one.error for one in asked if one.error is not None]
    return SwapVerdict(
        requests=len(asked),
        failures=len(errors),
        wrong_versions=sum(not _is_possible(one, moves) for one in right),
        by_version=dict(sorted(by_version.items())),
        spanning=sum(any(one.began < move.began < one.ended for move in moves) for one in right),
        seconds=tuple(_first_chunk(right, move) for move in moves[1:]),
        first_error=errors[0] if errors else None,
    )


def _is_possible(one: Asked, moves: Sequence[StableMove]) -> bool:
    if len(one.versions) != 1:
        return False
    for place, move in enumerate(moves):
        later = moves[place + 1 :]
        until = later[0].ended + VISIBLE_SECONDS if later else float("inf")
        if move.version == one.versions[0] and one.ended >= move.began and one.began <= until:
            return True
    return False


def _first_chunk(right: Sequence[Asked], move: StableMove) -> float:
    times = [one.first for one in right if one.first >= move.began and one.versions == (move.version,)]
    return min(times, default=float("nan")) - move.began
