"""Golden prompts: asked of a canary before users meet it, and the answers kept as an attestation.

Each line of an adapter's `golden.jsonl` is a body for chat (`messages`) or completions (`prompt`); what
else it holds goes to the engine as it is, bar two words of ours: `name` for messages, and `expect`, text
that the answer must contain. Sampling is greedy and 64 tokens long unless the line says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

KIND = "golden"
MAX_TOKENS = 64

Ask = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
"""Sends a JSON body to a path of the server behind and returns status and body of the answer."""


@dataclass(frozen=True, slots=True)
class GoldenAnswer:
    """What came back for one golden prompt; `ok` is False for no answer, or one without `expect`."""

    name: str
    ok: bool
    text: str
    finish: str


async def ask_golden(ask: Ask, model: str, lines: bytes) -> list[GoldenAnswer]:
    """Ask every golden prompt of `model` (an engine's name), one after the other."""
    found = []
    for number, line in enumerate(lines.splitlines(), 1):
        if line.strip():
            found.append(await _ask_one(ask, model, number, json.loads(line)))
    return found


def attestation(answers: list[GoldenAnswer]) -> dict[str, JsonValue]:
    """Return the body of the attestation that keeps the answers."""
    return {"ok": all(one.ok for one in answers), "answers": [asdict(one) for one in answers]}


def answered(body: Mapping[str, JsonValue]) -> dict[str, bool]:
    """Return, by prompt, whether an attestation's answers were right."""
    rows = body.get("answers")
    found = {}
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            found[str(row.get("name"))] = row.get("ok") is True
    return found or {"answers": body.get("ok") is True}


async def _ask_one(ask: Ask, model: str, number: int, line: dict[str, JsonValue]) -> GoldenAnswer:
    name, expect = str(line.pop("name", f"line {number}")), line.pop("expect", "")
    if "messages" not in line and "prompt" not in line:
        return GoldenAnswer(name, ok=False, text="has neither messages nor prompt", finish="")
    path = "/v1/chat/completions" if "messages" in line else "/v1/completions"
    body = {"max_tokens": MAX_TOKENS, "temperature": 0, **line, "model": model, "stream": False}
    status, raw = await ask(path, json.dumps(body).encode())
    if status != 200:
        return GoldenAnswer(
            name, ok=False, text=raw[:500].decode("utf-8", "replace"), finish=f"HTTP {status}"
        )
    choice = json.loads(raw)["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return GoldenAnswer(name, str(expect) in (text or ""), text or "", str(choice.get("finish_reason")))
