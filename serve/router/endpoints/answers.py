"""The text of an answer, taken out of its bytes when somebody has the time.

Pure functions for the form tests of a rollout. They parse, so the hot path only keeps the bytes and hands
over what would take the text out of them. Invariant: what is incomplete, cut by a stop word, too long or no
text at all (a tool call) has no text, which is not the same as an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from serve.protocol.paths import Dialect

MAX_BYTES = 256 * 1024
"""How long an answer may be for its form to be looked at."""

MAX_CHUNKS = 2_048
"""How many chunks of a stream are kept for it: a bound that costs nothing per chunk."""


_WHOLE = frozenset(
    {None, "stop", "end_turn", "completed", "in_progress", "queued", "length", "max_tokens", "incomplete"}
)
"""How an answer says that the version ended it by itself, or went on to a limit (`serve.protocol.form` knows
those that leave no room); a stop word has words of its own."""


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    stop_reason: str | None = None


class _Response(msgspec.Struct):
    status: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None


class _Answer(msgspec.Struct):
    """An answer in one piece, or one event of a stream, of any of the three protocols."""

    type: str = ""
    choices: list[_Choice] = []
    content: list[_Part] = []
    output: list[_Item] = []
    delta: str | _Part | None = None
    stop_reason: str | None = None
    status: str | None = None
    response: _Response | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def read_text(chunks: Iterable[bytes], dialect: Dialect, *, streamed: bool) -> str | None:
    """Return the text of a complete answer (of its first choice), None where there is none to judge.

    An answer that a stop word of the client's ended has none: its form is not the version's.
    """
    body = b"".join(chunks)
    try:
        pieces = list(_streamed(body, dialect) if streamed else _whole(body, dialect))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return None if None in pieces or not pieces else "".join(piece or "" for piece in pieces)


def _whole(body: bytes, dialect: Dialect) -> Iterator[str | None]:
    """Yield the pieces of text; None for a call of a tool."""
    answer = _decode(body)
    if not {answer.stop_reason, answer.status} <= _WHOLE:
        yield None
    if dialect is Dialect.MESSAGES:
        yield from (part.text or "" if part.type == "text" else None for part in answer.content)
    elif dialect is Dialect.RESPONSES:
        for item in answer.output:
            if item.type == "function_call":
                yield None
            yield from (part.text or "" for part in item.content or () if part.type == "output_text")
    else:
        yield from _first_choice(answer)


def _streamed(body: bytes, dialect: Dialect) -> Iterator[str | None]:
    for line in body.splitlines():
        if not line.startswith(b"data: ") or line == b"data: [DONE]":
            continue
        event = _decode(line[6:])
        if dialect is Dialect.OPENAI:
            yield from _first_choice(event)
        elif event.type == "response.output_text.delta" and isinstance(event.delta, str):
            yield event.delta
        elif event.type.startswith("response.function_call") or _is_cut(event):
            yield None
        elif event.type == "content_block_delta" and isinstance(event.delta, _Part):
            yield None if event.delta.type == "input_json_delta" else event.delta.text or ""


def _is_cut(event: _Answer) -> bool:
    """Return True for an event that says that a stop word ended the answer."""
    told = {event.response.status} if event.response is not None else set()
    if isinstance(event.delta, _Part):
        told.add(event.delta.stop_reason)
    return not told <= _WHOLE


def _first_choice(answer: _Answer) -> Iterator[str | None]:
    for choice in answer.choices:
        if choice.index:
            continue
        message = choice.message or choice.delta
        if choice.finish_reason not in _WHOLE:
            yield None
        elif message is None:
            yield choice.text or ""
        else:
            yield None if message.tool_calls else message.content or ""
