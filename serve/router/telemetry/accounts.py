"""What became of one request, for those who keep accounts: the access log and the traces.

Nothing here is on the way of a request unless somebody keeps accounts (`accounted.py`). Invariant: no account
holds a word of a prompt or of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from serve.router.streams import TokenUsage


@dataclass(frozen=True, slots=True)
class Account:
    """One try to answer: by whom, and how it ended. `status` is 0 where no answer began.

    `seconds` and `first_token` are since the request was first seen; `usage` is None where the answer named
    none.
    """

    adapter: str
    version: str
    arm: str
    status: int
    outcome: str
    stream: bool
    seconds: float
    first_token: float | None
    usage: TokenUsage | None
    finish: str

    @property
    def model(self) -> str:
        """Return NAME@N, or the base's name."""
        return (
            self.adapter if self.arm == "base" and self.version == "0" else f"{self.adapter}@{self.version}"
        )


@dataclass(slots=True, eq=False)
class RequestAccount:
    """One request of a client, from its first byte to the end of its answer; filled on its way.

    `request_id` is the answer's x-request-id, `inner_id` the one that names the version. `tries` are in
    order: where there are two, stable answered what the canary failed. `refused` and `reason` are the status
    and the code of the error that the router itself answered with. `trace_id` and `span` are set where it is
    traced; `forwarded` is what the last try was made with.
    """

    operation: str
    headers: dict[bytes, bytes]
    began: float = field(default_factory=monotonic)
    who: str = ""
    request_id: str = ""
    inner_id: str = ""
    tries: list[Account] = field(default_factory=list)
    refused: int = 0
    reason: str = ""
    trace_id: str = ""
    span: object = None
    forwarded: object = None

    @property
    def last(self) -> Account | None:
        """Return the try that the client saw, None where the router let nobody try."""
        return self.tries[-1] if self.tries else None

    @property
    def status(self) -> int:
        """Return the status that the client saw, 0 where it saw none."""
        return self.refused or (self.last.status if self.last is not None else 0)

    @property
    def outcome(self) -> str:
        """Return how it ended: a version's outcome, else `refused` or `cancelled`."""
        if self.last is not None:
            return self.last.outcome
        return "refused" if self.refused else "cancelled"


class RequestObserver(Protocol):
    """Somebody who keeps accounts. None of these may block; what they raise is logged and forgotten."""

    def begin(self, request: RequestAccount) -> None:
        """Hear of a request."""

    def forward(self, request: RequestAccount, headers: list[tuple[bytes, bytes]]) -> None:
        """See the headers that go to the server behind, once per try; they may be changed."""

    def end(self, request: RequestAccount) -> None:
        """Hear how it ended."""
