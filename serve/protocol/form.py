"""Whether a request leaves the answer, and its form, to the version that answers.

A client can have a blank or broken answer of any version at will: by a grammar, a stop word, a bias, one
token. Such a form says nothing of the version, so it is nobody's evidence; nor is what asks for no answer at
all. Owns the table of the fields that leave the form to the model. Pure. Invariant: a field that is not in
the table takes it away, so one that a later vLLM adds is no way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw

from serve.protocol.fields import IGNORED

LEAST_TOKENS = 4
"""A lower limit lets the client, not the version, decide what an answer looks like; labels are short too."""

TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

FREE = frozenset(
    {
        "model", "messages", "system", "prompt", "instructions", "previous_response_id",
        "tools", "parallel_tool_calls", "max_tool_calls", "reasoning", "reasoning_effort", "top_p", "seed",
        "stream", "stream_options", "logprobs", "top_logprobs", "include", "store", "priority",
        "request_id", "session_id", "cache_salt",
        *IGNORED,
    }
)  # fmt: skip
"""Fields that say what is asked, how it is delivered and for whom; whatever they hold."""


class _Item(msgspec.Struct):
    status: str | None = None


_NUMBERS = frozenset({int, float})

_decode_limit = msgspec.json.Decoder(int | None).decode
_decode_items = msgspec.json.Decoder(str | list[_Item]).decode


def _at_least(least: float, most: float) -> Callable[[object], bool]:
    def holds(value: object) -> bool:
        return type(value) in _NUMBERS and least <= value <= most  # type: ignore[operator]

    return holds


def _is(*values: object) -> Callable[[object], bool]:
    return lambda value: value in values


def _plain(value: object) -> bool:
    """Return True for the `text` of a responses request that asks for text of any form."""
    return isinstance(value, dict) and value.get("format") in (None, {"type": "text"})


_ENOUGH = _at_least(LEAST_TOKENS, float("inf"))

HARMLESS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(TOKEN_FIELDS, _ENOUGH),
    "temperature": _at_least(0, 1),
    "n": _is(1),
    "best_of": _is(1),
    "top_k": _at_least(-1, float("inf")),
    "min_p": _at_least(0, 1),
    "frequency_penalty": _at_least(0, 0.5),
    "presence_penalty": _at_least(0, 0.5),
    "repetition_penalty": _at_least(1, 1.2),
    "logit_bias": _is({}),
    "stop": _is([]),
    "stop_sequences": _is([]),
    "echo": _is(0),  # and false
    "suffix": _is(""),
    "response_format": _is({"type": "text"}),
    "text": _plain,
    "thinking": _is({"type": "disabled"}),
    "truncation": _is("disabled"),
    "background": _is(0),
    "tool_choice": _is("auto", "none", {"type": "auto"}, {"type": "none"}),
}
"""Fields that leave the form to the model with these values, and with null; with others they take it."""


def leaves_form(fields: Mapping[str, Raw]) -> bool:
    """Return True where nothing in a request's fields decides the form of its answer but the question."""
    for name in fields.keys() - FREE:
        raw = fields[name]
        if name == "input":
            if not _asks_anew(raw):
                return False
        elif bytes(raw) != b"null":
            harmless = HARMLESS.get(name)
            if harmless is None or not harmless(_value(raw)):
                return False
    return True


def generates(fields: Mapping[str, Raw]) -> bool:
    """Return False where a request asks for no token: the prompt alone is echoed or scored, for little."""
    for name in TOKEN_FIELDS:  # noqa: SIM110 - on the hot path, where a generator costs more than all of it
        if name in fields and not _some(fields[name]):
            return False
    return True


def _some(raw: Raw) -> bool:
    try:
        limit = _decode_limit(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False  # vLLM reads `0.0`, `"0"` and `false` as 0
    return limit is None or limit > 0


def _value(raw: Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return NotImplemented  # no value of any table


def _asks_anew(raw: Raw) -> bool:
    """Return False where the last item of an `input` is an answer that vLLM would go on with."""
    try:
        items = _decode_items(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(items, str) or not items or items[-1].status not in {"in_progress", "incomplete"}
