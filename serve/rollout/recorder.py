"""What one replica sees of one open rollout: the split in force, and the counts of every arm.

Called on the hot path by the event loop alone: no disk, no lock, no parsing. The documents are written by
`serve.rollout.keeper`, from copies.
"""

from __future__ import annotations

from collections.abc import Callable

from registry.records import RolloutEntry
from serve.rollout.evidence import Segment
from serve.router.assignment import Arm, Split


class Recorder:
    """The evidence of one open rollout in one replica."""

    split: Split
    """What assignment uses now: the record's weights, or weight 0 while this replica brakes."""
    segment: Segment
    """Where a request that is assigned now is booked, also when it ends under a later one."""
    entry: RolloutEntry
    """The newest record of the log that this replica knows."""
    wants_text: bool
    """True when the policy looks at the form of answers, so their text has to be kept to the end."""
    unit: str
    """What is randomised: `conversation`, `user` or `request`."""

    def observe(
        self,
        segment: Segment,
        arm: Arm,
        unit: str,
        outcome: str,
        *,
        first_turn: bool,
        rescued: bool = False,
        first_token: float | None = None,
        per_token: float | None = None,
        output_tokens: int = 0,
        finish: str = "",
        text: str | None = None,
    ) -> None:
        """Book one request under the arm that it was assigned to, at the end of its answer.

        `arm` is stable, canary or base; `unit` 16 hex digits; `outcome` a word of `streams.Outcome`;
        times are seconds; `text` the whole answer where the policy wants it and it is complete.
        """
        raise NotImplementedError

    def rate(self, arm: Arm, unit: str, score: float) -> None:
        """Book a score in 0 … 1 of a unit, of which the first counts."""
        raise NotImplementedError

    def compare(self, *, stable_ok: bool, canary_ok: bool) -> None:
        """Book one shadowed pair."""
        raise NotImplementedError

    def drop_pair(self) -> None:
        """Count a request that was chosen for the shadow but not mirrored for want of room."""
        raise NotImplementedError


Recorders = Callable[[RolloutEntry], Recorder]
"""Gives the recorder of an open rollout, brought up to this record."""
