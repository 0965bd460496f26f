"""How many tokens a prompt has, by the engine's own tokenizer; asked only where a bound is too coarse.

It renders and tokenises as the engine will, behind the router, for the base model: adapters share its
tokenizer. Invariant: what cannot be counted is None, and the caller goes by the bound.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from serve.protocol.paths import Dialect, Endpoint

Ask = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]

_CHAT = (
    "messages", "tools", "add_generation_prompt", "continue_final_message", "add_special_tokens",
    "chat_template_kwargs",
)  # fmt: skip
_UNSEEN = ("documents", "prompt_embeds", "chat_template")
"""Fields that a prompt is made of too, and that a tokenizer's path does not read."""

_MESSAGES = ("messages", "system", "tools", "tool_choice")


class _Count(msgspec.Struct):
    count: int | None = None
    input_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PromptCount:
    """The tokens of all prompts of a request together, and of the longest of them."""

    total: int
    longest: int


class PromptCounter:
    """Counts by asking the server behind; `base` is the base model's name there."""

    def __init__(self, base: str, ask: Ask) -> None:
        self.base = base
        self._ask = ask

    async def count(self, endpoint: Endpoint, fields: Mapping[str, Raw]) -> PromptCount | None:
        """Return the tokens of a request's prompts, None where nobody can tell."""
        if any(name in fields and bytes(fields[name]) != b"null" for name in _UNSEEN):
            return None
        if endpoint.operation == "chat":
            return _one(await self._counted("/tokenize", fields, _CHAT))
        if endpoint.dialect is Dialect.MESSAGES:
            return _one(await self._counted("/v1/messages/count_tokens", fields, _MESSAGES))
        if endpoint.operation in {"completion", "embeddings"}:
            return await self._prompts(
                fields.get("prompt" if endpoint.operation == "completion" else "input")
            )
        return None

    async def _prompts(self, raw: Raw | None) -> PromptCount | None:
        counts: list[int] = []
        for prompt in _prompts(raw):
            found = (
                prompt
                if isinstance(prompt, int)
                else await self._counted("/tokenize", {"prompt": prompt}, ("prompt",))
            )
            if found is None:
                return None
            counts.append(found)
        return PromptCount(sum(counts), max(counts)) if counts else None

    async def _counted(self, path: str, fields: Mapping[str, Raw], names: tuple[str, ...]) -> int | None:
        asked: dict[str, object] = {name: fields[name] for name in names if name in fields}
        asked["model"] = self.base
        if path.endswith("count_tokens"):
            asked["max_tokens"] = 1
        status, answer = await self._ask(path, msgspec.json.encode(asked))
        if status != 200:
            return None
        try:
            found = msgspec.json.decode(answer, type=_Count)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return found.count if found.count is not None else found.input_tokens


def _one(tokens: int | None) -> PromptCount | None:
    return None if tokens is None else PromptCount(tokens, tokens)


def _prompts(raw: Raw | None) -> list[Raw | int]:
    """Return the prompts of a text or a list; those that are tokens by their number."""
    if raw is None:
        return []
    if not bytes(raw).startswith(b"["):
        return [raw]
    try:
        values = msgspec.json.decode(raw, type=list[Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
    if values and bytes(values[0])[:1] not in {b'"', b"["}:
        return [len(values)]
    return [one if bytes(one).startswith(b'"') else bytes(one).count(b",") + 1 for one in values]
