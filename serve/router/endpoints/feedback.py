"""`POST /v1/feedback`: what people thought of an answer.

Owns which feedback is evidence, and the lines that wait to be written. Evidence is only what names an
answer of ours by an id whose MAC is right, written by a version under the rollout that is open now, to a
unit that was assigned, from a key whose group gives evidence and has some of its share left. All other
feedback is kept for people, and nothing else. Invariant: no answer waits for a disk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.types import Send

from registry.entries.keyring import Caller
from registry.views.view import View
from serve.errors import BadBody, BudgetSpent, Busy, ModelNotFound
from serve.rollout.assignment import Arm
from serve.rollout.recording.recorder import Recorders
from serve.rollout.recording.sources import Source
from serve.router.booking import NO_UNIT
from serve.router.endpoints.openai_errors import send_json
from serve.router.endpoints.response_id import BASE_SUBJECT, NO_ANSWER, AnsweredBy, IdIssuer, read_claim

MAX_BODY_BYTES = 65_536
MAX_COMMENT = 4_096
"""Characters of a comment."""
MAX_WAITING = 10_000
"""Lines that may wait to be written; beyond it feedback is refused."""

_LINE_BYTES = 400
"""About what a line takes beside its comment and unit."""

_HOUR_SECONDS = 3_600.0
_ARMS = {arm.letter: arm for arm in (Arm.STABLE, Arm.CANARY, Arm.BASE)}
_REMEDY = "send {response_id | adapter, score 0…1, unit?, comment?}"


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request: `score` from 0 (useless) to 1 (perfect)."""

    score: Annotated[float, Meta(ge=0, le=1)]
    response_id: Annotated[str, Meta(max_length=512)] | None = None
    adapter: Annotated[str, Meta(max_length=128)] | None = None
    unit: Annotated[str, Meta(max_length=256)] | None = None
    comment: Annotated[str, Meta(max_length=MAX_COMMENT)] | None = None


class Receipt(msgspec.Struct):
    """The answer: whether the score is evidence of a rollout, and if not, why."""

    counted: bool
    reason: str


class FeedbackLine(msgspec.Struct):
    """One line of the log: `verified` says that the id is ours; `who` is the key's id."""

    at: float
    adapter: str
    version: str
    arm: str
    unit: str
    score: float
    comment: str
    response_id: str
    verified: bool
    counted: bool
    who: str


_decode = msgspec.json.Decoder(Feedback).decode
_encode = msgspec.json.Encoder().encode


class FeedbackLog:
    """Lines that wait to be appended to the root, oldest first; `add` on the loop, the rest anywhere.

    `problem` says why the last ones could not be written, '' when they were.
    """

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self.problem = ""
        self._limit = limit
        self._lines: deque[tuple[str, bytes]] = deque()

    def __len__(self) -> int:
        return len(self._lines)

    def check_room(self) -> None:
        """Pass when another line may wait.

        Raises: Busy: the root has not been written to for long.
        """
        if len(self._lines) >= self._limit:
            fact = f"{self._limit} lines of feedback wait to be written"
            raise Busy("server", fact, "try again later", rejection="queue_full")

    def add(self, adapter: str, line: FeedbackLine) -> None:
        """Let a line wait."""
        self._lines.append((adapter, _encode(line) + b"\n"))

    def write(self, append: Callable[[str, bytes], None]) -> None:
        """Append all lines by `append(adapter, lines)`; blocks. What cannot be written goes on waiting.

        Raises: whatever `append` raises.
        """
        found: dict[str, list[bytes]] = {}
        while self._lines:
            adapter, line = self._lines.popleft()
            found.setdefault(adapter, []).append(line)
        while found:
            adapter, lines = found.popitem()
            try:
                append(adapter, b"".join(lines))
            except Exception as error:
                found[adapter] = lines
                self._lines.extendleft((name, line) for name, each in found.items() for line in each[::-1])
                self.problem = str(error)
                raise
        self.problem = ""


class Budget:
    """How many bytes of feedback each key may still have kept: a bucket that fills again within an hour."""

    def __init__(self, bytes_per_hour: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = bytes_per_hour
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, who: str, size: int) -> None:
        """Take `size` bytes from a key's bucket.

        Raises: BudgetSpent: it is empty.
        """
        if self._size is None:
            return
        now = self._clock()
        left, at = self._left.get(who, (float(self._size), now))
        left = min(self._size, left + (now - at) * self._size / _HOUR_SECONDS)
        if left < size:
            fact = f"the key {who} has used up its {self._size} bytes of feedback an hour"
            remedy = "send less, or raise limits.feedback_bytes_per_hour"
            raise BudgetSpent("feedback", fact, remedy)
        self._left[who] = left - size, now


class FeedbackDesk:
    """Takes feedback: books what is evidence, and lets all of it wait in `log`.

    `trouble` tells why the root cannot be written now, '' if it can: then feedback is refused, not lost.
    """

    def __init__(
        self, ids: IdIssuer, recorders: Recorders, base_name: str, bytes_per_hour: int | None = None
    ) -> None:
        self.log = FeedbackLog()
        self.trouble: Callable[[], str] = str
        self._budget = Budget(bytes_per_hour)
        self._ids = ids
        self._recorders = recorders
        self._base_name = base_name

    async def answer(self, view: View, caller: Caller, body: bytes, send: Send, *, base: bool = True) -> None:
        """Answer one request of whom `view` exists for, and the base model if `base`.

        Raises: BadBody, ModelNotFound, Busy.
        """
        receipt = self.take(view, _parse(body), caller, base=base)
        await send_json(send, 202, _encode(receipt))

    def take(self, view: View, feedback: Feedback, caller: Caller, *, base: bool = True) -> Receipt:
        """Book and keep one piece of feedback.

        Raises: BadBody: it names nothing, or two things. ModelNotFound. Busy.
        """
        answered = self._ids.verify(feedback.response_id) if feedback.response_id else None
        claimed = answered or (read_claim(feedback.response_id) if feedback.response_id else None)
        adapter = _find_adapter(view, feedback, claimed, self._base_name if base else "")
        if adapter is None:
            reason = "it is about the base model, which is in no rollout of its own: not kept"
            return Receipt(counted=False, reason=reason)
        self.log.check_room()
        if trouble := self.log.problem or self.trouble():
            raise Busy(
                "feedback", f"cannot be kept now ({trouble})", "try again later", rejection="not_stored"
            )
        said = f"{feedback.comment or ''}{feedback.unit or ''}{feedback.response_id or ''}"
        self._budget.take(caller.who, _LINE_BYTES + len(said.encode("utf-8", "replace")))
        reason = self._book(view, answered, feedback.score, Source.of(caller))
        line = FeedbackLine(
            at=time.time(),
            adapter=adapter,
            version=claimed.version if claimed is not None else feedback.adapter or "",
            arm=claimed.arm if claimed is not None else "",
            unit=claimed.unit if claimed is not None else feedback.unit or "",
            score=feedback.score,
            comment=feedback.comment or "",
            response_id=feedback.response_id or "",
            verified=answered is not None,
            counted=not reason,
            who=caller.who,
        )
        self.log.add(adapter, line)
        return Receipt(counted=not reason, reason=reason)

    def _book(self, view: View, answered: AnsweredBy | None, score: float, source: Source | None) -> str:
        """Book a score where it is evidence, and return '' or why it is none."""
        if answered is None:
            return "kept, but no evidence: it names no answer of ours by a valid id"
        found = view.adapters.get(answered.adapter)
        entry = found.rollout if found is not None else None
        arm = _ARMS.get(answered.arm)
        if arm is None:
            return "kept, but no evidence: the version was asked for by name"
        if answered.tag == NO_ANSWER:
            return "kept, but no evidence: no version wrote an answer to it"
        if entry is None or entry.rollout[: len(answered.tag)] != answered.tag:
            return "kept, but no evidence: the answer was given under no rollout that is open now"
        if answered.unit == NO_UNIT:
            return "kept, but no evidence: a list decided who answered"
        if source is None:
            return "kept, but no evidence: this key's group gives none"
        refused = self._recorders(entry).rate(arm, answered.unit, score, source)
        return f"kept, but no evidence: {refused}" if refused else ""


def _parse(body: bytes) -> Feedback:
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody("body", f"is not feedback: {error}", _REMEDY) from error


def _find_adapter(view: View, feedback: Feedback, claimed: AnsweredBy | None, base_name: str) -> str | None:
    """Return which adapter feedback is about, None for the base model; without `base_name` there is none.

    Raises: BadBody: nothing is named, or the id names another. ModelNotFound.
    """
    named = feedback.adapter.partition("@")[0] if feedback.adapter is not None else None
    if named is None and claimed is None:
        subject = "body" if feedback.response_id is None else "response_id"
        fact = "names no adapter" if feedback.response_id is None else "is not an id of this server"
        raise BadBody(subject, fact, _REMEDY, param=subject)
    if named is not None and claimed is not None and named != (said := _shown(claimed, base_name)):
        raise BadBody("adapter", f"is {named}, but the id says {said}", "send one of them", param="adapter")
    adapter = claimed.adapter if claimed is not None else named or ""
    if adapter in view.adapters:
        return adapter
    if base_name and base_name in {adapter, claimed and _shown(claimed, base_name)}:
        return None
    raise ModelNotFound(repr(adapter), "there is no such adapter", "see GET /v1/models", param="adapter")


def _shown(claimed: AnsweredBy, base_name: str) -> str:
    about_base = base_name and f"{claimed.version}.{claimed.arm}" == BASE_SUBJECT
    return base_name if about_base else claimed.adapter
