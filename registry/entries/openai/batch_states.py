"""The states of a batch and the events that move it, in OpenAI's words: pure, no clock, no disk."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from registry.errors import Conflict


class BatchState(StrEnum):
    """Where a batch stands, in OpenAI's words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Return whether nothing can follow."""
        return self in _FINAL


class BatchEvent(StrEnum):
    """What happened to a batch.

    `CLAIMED`: a server took it in hand; `RELEASED`: it let go in order; `WITHDRAWN`: somebody cancelled it.
    """

    CREATED = "created"
    CLAIMED = "claimed"
    RELEASED = "released"
    STARTED = "started"
    ANSWERED = "answered"
    WITHDRAWN = "withdrawn"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


_S, _E = BatchState, BatchEvent
_FINAL = frozenset({_S.FAILED, _S.COMPLETED, _S.EXPIRED, _S.CANCELLED})


def _held(state: BatchState) -> dict[BatchEvent, BatchState]:
    """Return what changes who has the batch in hand, and nothing else."""
    return {_E.CLAIMED: state, _E.RELEASED: state}


_NEXT: Mapping[BatchState | None, Mapping[BatchEvent, BatchState]] = MappingProxyType(
    {
        None: {_E.CREATED: _S.VALIDATING},
        _S.VALIDATING: {
            **_held(_S.VALIDATING),
            _E.STARTED: _S.IN_PROGRESS,
            _E.FAILED: _S.FAILED,
            _E.WITHDRAWN: _S.CANCELLING,
            _E.EXPIRED: _S.EXPIRED,
        },
        _S.IN_PROGRESS: {
            **_held(_S.IN_PROGRESS),
            _E.ANSWERED: _S.FINALIZING,
            _E.WITHDRAWN: _S.CANCELLING,
            _E.FAILED: _S.FAILED,
            _E.EXPIRED: _S.EXPIRED,
        },
        _S.FINALIZING: {**_held(_S.FINALIZING), _E.COMPLETED: _S.COMPLETED},
        _S.CANCELLING: {**_held(_S.CANCELLING), _E.CANCELLED: _S.CANCELLED},
    }
)


def next_state(state: BatchState | None, event: BatchEvent, batch: str = "batch") -> BatchState:
    """Return the state after `event`; None is the state before the first.

    Raises: Conflict: the event cannot follow.
    """
    found = _NEXT.get(state, {}).get(event)
    if found is None:
        raise Conflict(batch, f"is {state or 'not made yet'}, so it cannot be {event}", param="batch_id")
    return found
