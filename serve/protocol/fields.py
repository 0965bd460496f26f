"""Fields that vLLM takes and does not act on, though the answer would be another one: refused by name.

Owns the table; the page of HTTP is written from it. What changes nothing that a client could see in the
answer (`metadata`, `service_tier`, `user`, `store` of a chat, …) is in `IGNORED` and passes. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import Raw

from serve.engine.interface import Abilities
from serve.errors import FieldNotServed, ToolsNotServed

Dialect = Literal["openai", "responses", "messages"]
Asks = Callable[[Raw], bool]

_EVERYWHERE: tuple[Dialect, ...] = ("openai", "responses", "messages")

IGNORED = (
    "metadata", "service_tier", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "verbosity", "store (of a chat completion)",
)  # fmt: skip
"""Fields that are taken and change nothing."""

TOOLS = "tools"
TOOL_CHOICE = "tool_choice"


class _Tool(msgspec.Struct):
    type: str | None = None


_decode_tools = msgspec.json.Decoder(list[_Tool]).decode
_decode_words = msgspec.json.Decoder(list[str]).decode


def _given(raw: Raw) -> bool:
    return bytes(raw) != b"null"


def _true(raw: Raw) -> bool:
    return bytes(raw) == b"true"


def _speaks(raw: Raw) -> bool:
    try:
        return any(word != "text" for word in _decode_words(raw))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


@dataclass(frozen=True, slots=True)
class Unserved:
    """A field that is refused on paths of `dialects` where `asks` says that it asks for something."""

    field: str
    fact: str
    remedy: str
    dialects: tuple[Dialect, ...] = ("openai",)
    asks: Asks = _given


_NO_CONVERSATIONS = "send the turns, or go on from a response by `previous_response_id`"
_STRUCTURED = "send `structured_outputs` or `response_format`: vLLM ignores the old spelling"
_LEGACY = "send `tools` and `tool_choice`"

UNSERVED: tuple[Unserved, ...] = (
    Unserved("modalities", "names more than text, and answers are text", "leave it out", asks=_speaks),
    Unserved("audio", "asks for sound, and answers are text", "leave it out"),
    Unserved("prediction", "is not served: the answer is generated whole", "leave it out"),
    Unserved("web_search_options", "is not served: nothing here searches", "leave it out"),
    Unserved("functions", "is not served", _LEGACY),
    Unserved("function_call", "is not served", _LEGACY),
    Unserved("conversation", "is not served: no conversations are kept", _NO_CONVERSATIONS, ("responses",)),
    Unserved(
        "background",
        "is not served: a version could be unloaded while an answer goes on unseen",
        "leave it out, or stream",
        ("responses",),
        _true,
    ),
    Unserved("mcp_servers", "is not served: nothing here calls other servers", "leave it out", ("messages",)),
    Unserved("container", "is not served: nothing here runs code", "leave it out", ("messages",)),
    *(
        Unserved(name, "is not served", _STRUCTURED, _EVERYWHERE)
        for name in ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
    ),
)
"""Every field that is refused, in the order of the page."""

_BY_DIALECT: Mapping[str, Mapping[str, Unserved]] = {
    dialect: {one.field: one for one in UNSERVED if dialect in one.dialects} for dialect in _EVERYWHERE
}

_OWN_TOOLS: Mapping[str, frozenset[str | None]] = {
    "openai": frozenset({None, "function", "custom"}),
    "responses": frozenset({None, "function", "custom", "namespace"}),
    "messages": frozenset({None, "custom"}),
}
"""Types of tools that the client runs itself, by dialect; all others are OpenAI's or Anthropic's own."""


def watched(dialect: str) -> frozenset[str]:
    """Return the fields that `check_fields` has to see on a path of `dialect`."""
    return frozenset({*_BY_DIALECT[dialect], TOOLS})


def check_fields(dialect: str, fields: Mapping[str, Raw], abilities: Abilities) -> None:
    """Pass when nothing is asked for that would be ignored.

    Raises: FieldNotServed; ToolsNotServed: tools, and the engine parses no calls.
    """
    table = _BY_DIALECT[dialect]
    for name in table.keys() & fields.keys():
        one = table[name]
        if one.asks(fields[name]):
            raise FieldNotServed(name, one.fact, one.remedy, param=name)
    if TOOLS in fields:
        _check_tools(dialect, fields, abilities)


def _check_tools(dialect: str, fields: Mapping[str, Raw], abilities: Abilities) -> None:
    try:
        tools = _decode_tools(fields[TOOLS])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return  # null, or what vLLM refuses in its own words
    hosted = [tool.type for tool in tools if tool.type not in _OWN_TOOLS[dialect]]
    if hosted and not abilities.hosted_tools:
        fact = (
            f"`{(hosted[0] or '')[:60]}` is a tool that the server would have to run, and this one runs none"
        )
        raise FieldNotServed(TOOLS, fact, "declare a function and run it yourself", param=TOOLS)
    if tools and not abilities.calls_tools and not _declined(fields.get(TOOL_CHOICE)):
        raise ToolsNotServed(
            TOOLS,
            "this server parses no calls of tools: the base's chat template shows none to the model, or in a "
            "format that is not known here",
            "under [vllm] in serve.toml, give a template with tools as `chat_template`, and set "
            "`tool_call_parser` where its format is not found out (docs/how-to/clients.md); "
            "or send `tool_choice: none`",
            param=TOOLS,
        )


def _declined(choice: Raw | None) -> bool:
    if choice is None:
        return False
    try:
        found = msgspec.json.decode(choice)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return found == "none" or (isinstance(found, dict) and found.get("type") == "none")
