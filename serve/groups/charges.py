"""What one request is charged: its reservation, its end, and what is told of its limits on the way.

Owns who pays what: the answer that was given pays, whatever was tried before; one that failed costs nothing
but the request; one that the client left costs what was seen of it, and no more than it may use. Invariant:
a charge ends once, by `settle` or by `end`, and nothing is held after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from registry.entries.keyring import Caller
from serve.groups.accounts import Meter, Reservation, UsageAccount
from serve.groups.telling import Lines, headers_of
from serve.groups.usage import Tokens, UsageLedger
from serve.outcomes import Outcome
from serve.protocol.paths import Dialect

_NOTHING: Tokens = (0, 0, 0)
_PAID = frozenset({Outcome.OK, Outcome.CANCELLED, Outcome.TIMEOUT})


class Progress(Protocol):
    """A request on its way."""

    @property
    def pieces(self) -> int:
        """Return how many pieces of its answer were seen: at least as many tokens."""
        ...


class Purse:
    """What one caller's requests are charged to: its group's account and its key's, and the books."""

    __slots__ = ("accounts", "caller", "group", "key", "ledger", "longest", "meters", "owner_of_longest")

    def __init__(self, caller: Caller, accounts: tuple[UsageAccount, ...], ledger: UsageLedger) -> None:
        self.caller = caller
        self.group = caller.group.name
        self.key = caller.who
        self.accounts = accounts
        self.ledger = ledger
        self.meters: tuple[Meter, ...] = tuple(meter for account in accounts for meter in account.meters)
        longest = (caller.group.limits.longest_prompt, caller.limits.longest_prompt)
        self.longest: int | None = min((one for one in longest if one is not None), default=None)
        self.owner_of_longest = f"group {self.group}" if self.longest == longest[0] else f"key {self.key}"


class Charge:
    """One request's; `hides_usage` says that the usage at the end of its stream is not the client's.

    `input` is its prompt in tokens, as well as that is known before its answer; `most` tells how many tokens
    its answers may have at most; `progress` is the request while it is on its way.
    """

    __slots__ = (
        "_clock", "_most", "_open", "adapter", "hides_usage", "input", "progress", "purse", "reservation",
    )  # fmt: skip

    def __init__(
        self,
        purse: Purse,
        adapter: str,
        reservation: Reservation | None,
        tokens_in: int,
        most: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self.purse = purse
        self.adapter = adapter
        self.reservation = reservation
        self.input = tokens_in
        self.hides_usage = False
        self.progress: Progress | None = None
        self._open = True
        self._most = most
        self._clock = clock

    def headers(self, dialect: Dialect) -> Lines:
        """Return what the answer tells of the limits of who asked."""
        meters = self.purse.meters
        return headers_of(meters, self._clock(), dialect) if meters else []

    def advance(self, now: float) -> None:
        """Book what was seen so far of a stream."""
        progress = self.progress
        if progress is not None and self.reservation is not None and progress.pieces:
            self.reservation.advance(now, progress.pieces)

    def settle(self, outcome: Outcome, usage: Tokens | None, made: Callable[[], int]) -> None:
        """End it: by `usage` as the answer tells it, else by what is `made` of the answer so far."""
        if not self._open:
            return
        self._open = False
        tokens = usage if usage is not None else self._seen(outcome, made)
        purse = self.purse
        purse.ledger.count(purse.group, purse.key, self.adapter, outcome, tokens)
        self.pay(tokens or _NOTHING)
        self.progress = None

    def pay(self, tokens: Tokens) -> None:
        """Commit what was used, before the end is known; what comes after changes nothing of it."""
        if self.reservation is not None:
            self.reservation.commit(self._clock(), tokens[0], tokens[1])

    def end(self) -> None:
        """Let go of everything, if it was not settled: the request never got to an answer."""
        if self._open:
            self._open = False
            self.progress = None
            self.pay(_NOTHING)

    def _seen(self, outcome: Outcome, made: Callable[[], int]) -> Tokens | None:
        return (self.input, min(made(), self._most()), 0) if outcome in _PAID else None
