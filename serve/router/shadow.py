"""Copies of stable's requests for the canary, made after the user has been answered.

Owns the running copies: a few at a time, dropped and counted beyond that, ended when the server drains.
A copy is answered in one piece, its answer is thrown away, and only whether both arms managed it is kept.
Invariant: nobody waits for a copy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from time import monotonic

from msgspec import Raw
from starlette.types import Message

from serve.outcomes import Outcome
from serve.protocol.body import Fields
from serve.router.exchange import Exchange
from serve.router.targets import RolloutTarget

OPERATIONS = frozenset({"chat", "completion", "responses", "messages"})
"""What can be copied: it answers with text, and asking twice changes nothing."""

_JUDGED = {Outcome.OK: True, Outcome.ENGINE_ERROR: False, Outcome.TIMEOUT: False}
"""Whether an arm managed a request; the other outcomes say nothing of an arm."""

Carry = Callable[[Exchange], Awaitable[None]]


class Shadows:
    """Makes copies with `carry`, which forwards an exchange and books it; one event loop."""

    def __init__(self, carry: Carry) -> None:
        self._carry = carry
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Return how many copies are being answered."""
        return len(self._tasks)

    def mirror(self, rollout: RolloutTarget, answered: Exchange) -> None:
        """Send a copy of an answered request to the canary, unless the answer says nothing of stable."""
        stable_ok = _JUDGED.get(answered.outcome)
        if stable_ok is None or answered.endpoint.operation not in OPERATIONS:
            return
        recorder = rollout.recorder
        name = recorder.entry.rollout
        if self._running[name] >= rollout.mirrors:
            recorder.drop_pair()
            return
        self._running[name] += 1
        task = asyncio.create_task(self._copy(rollout, answered, stable_ok=stable_ok), name=f"shadow {name}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._end(name, done))

    def cancel(self) -> None:
        """End all copies; they are compared with nothing."""
        for task in self._tasks:
            task.cancel()

    def _end(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]
        if not task.cancelled():
            task.exception()  # the failure is in the pair; the server behind has logged it

    async def _copy(self, rollout: RolloutTarget, answered: Exchange, *, stable_ok: bool) -> None:
        target = rollout.shadow
        target.decided.value += 1
        fields = in_one_piece(answered.fields)
        copy = Exchange(
            target,
            answered.endpoint,
            answered.scope,
            answered.headers,
            fields,
            answered.unit,
            receive_nothing,
            send_nowhere,
            monotonic(),
        )
        with contextlib.suppress(Exception):  # whatever it was, it is in the outcome
            await self._carry(copy)
        canary_ok = _JUDGED.get(copy.outcome)
        if canary_ok is None:
            rollout.recorder.drop_pair()
        else:
            rollout.recorder.compare(stable_ok=stable_ok, canary_ok=canary_ok)


def in_one_piece(fields: Fields) -> Fields:
    """Return the fields of the same request that is not streamed and leaves nothing behind."""
    copied = {name: raw for name, raw in fields.items() if name not in {"stream", "stream_options", "store"}}
    if "input" in copied:
        copied["store"] = Raw(b"false")
    return copied


async def receive_nothing() -> Message:
    """Wait for ever: nobody can leave a copy."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def send_nowhere(message: Message) -> None:
    """Throw a message away."""
