"""Reading an answer as it arrives: when the first text came, how often text came, and how it ended.

Knows nothing of sockets or clocks, so that the runner, locust and tests read alike. Invariants: a delta
without text (the role, an empty string, usage) is never a first token; a stream is complete only with
`[DONE]`, whatever its status was.
"""

from __future__ import annotations

import json
from typing import Any

from loadtests.runner.records import CANCELLED, OK, RequestRecord

_TEXTS = ("content", "reasoning_content", "reasoning")


class AnswerReader:
    """One answer; feed it what arrives, then `close` it. It fills in `record`."""

    def __init__(self, record: RequestRecord, *, keep_text: bool = False) -> None:
        self.record = record
        self._keep = keep_text
        self._texts: list[str] = []
        self._rest = b""
        self.done = False

    @property
    def text(self) -> str:
        """Return the answer's text, if it was to be kept."""
        return "".join(self._texts)

    def headers(self, status: int, headers: Any) -> None:
        """Take the status and the headers (any mapping with `get`, names in any case)."""
        record = self.record
        record.status = status
        record.version = headers.get("x-wardrobe-adapter") or ""
        record.arm = headers.get("x-wardrobe-arm") or ""
        if status != 200:
            record.fail(f"http {status}")

    def feed(self, data: bytes, now: float) -> None:
        """Take what arrived of a stream at `now`."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)

    def whole(self, body: bytes) -> None:
        """Take the body of an answer that is not a stream, or of an error."""
        record = self.record
        try:
            answer = json.loads(body)
        except ValueError:
            record.fail("invalid", body[:200].decode(errors="replace"))
            return
        if record.status != 200:
            record.detail = str(_message(answer))[:300]
            return
        self._usage(answer)
        record.response_id = str(answer.get("id", ""))
        for choice in answer.get("choices", ()):
            self._note(choice.get("text") or (choice.get("message") or {}).get("content") or "")
        self.done = True

    def close(self, now: float) -> None:
        """Say that no more comes: judge how it ended."""
        record = self.record
        record.ended = now
        if record.outcome == CANCELLED or record.error:
            return
        if not self.done:
            record.fail("cut", f"ended after {record.pieces} pieces without [DONE]")
            return
        record.outcome = OK

    def _event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            self.record.fail("invalid", data[:200].decode(errors="replace"))
            return
        if "error" in event:
            self.record.fail("error event", str(_message(event)))
            return
        self._usage(event)
        self.record.response_id = self.record.response_id or str(event.get("id", ""))
        for choice in event.get("choices") or ():
            if text := _text(choice):
                self.record.pieces += 1
                if self.record.first is None:
                    self.record.first = now
                self._note(text)

    def _usage(self, answer: dict[str, Any]) -> None:
        if usage := answer.get("usage"):
            self.record.prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self.record.output_tokens = int(usage.get("completion_tokens") or 0)

    def _note(self, text: str) -> None:
        if self._keep and text:
            self._texts.append(text)


def _text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    if delta is None:
        return str(choice.get("text") or "")
    for name in _TEXTS:
        if delta.get(name):
            return str(delta[name])
    calls = delta.get("tool_calls") or ()
    return "".join(str((call.get("function") or {}).get("arguments") or "") for call in calls)


def _message(answer: Any) -> Any:
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    return error.get("message", error) if isinstance(error, dict) else error
