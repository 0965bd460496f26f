"""How a request ended, and who is to blame: the one place that says it, for evidence, traces and alerts."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended, fixed at the end of its stream (a closed set of metric labels)."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    ENGINE_ERROR = "engine_error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def blames_version(self) -> bool:
        """Return True for the version's own failure: what evidence counts against an arm.

        A client can have the others at will: answers that are longer than the time it is given, cancelled
        and malformed requests.
        """
        return self is Outcome.ENGINE_ERROR

    @property
    def fails_user(self) -> bool:
        """Return True where a right request got no whole answer: what service levels and traces count."""
        return self.blames_version or self in {Outcome.TIMEOUT, Outcome.REJECTED}
