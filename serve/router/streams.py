"""How an answer ended, read from its bytes and nothing else.

Pure functions of the last chunks of an answer. No chunk is parsed on its way: JSON escapes every quote
and line break inside a string, so no whole line and no quoted key below can occur in generated text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from serve.outcomes import Outcome
from serve.protocol.paths import Dialect

TAIL_CHUNKS = 8
"""How many chunks an exchange keeps: every protocol's closing, error and usage events lie within them."""


# Whole lines' beginnings: a tail is looked at with a line break before it.
_CLOSINGS = {
    Dialect.OPENAI: (b"\ndata: [DONE]\n",),
    Dialect.MESSAGES: (b"\nevent: message_stop\n",),
    Dialect.RESPONSES: (b"\nevent: response.completed\n", b"\nevent: response.incomplete\n"),
}
_FAILURES = (b'\ndata: {"error"', b"\nevent: error\n", b"\nevent: response.failed\n")

# The first text, reasoning or tool call that is not empty, in any of the protocols.
_DELTA = re.compile(
    rb'"(?:content|reasoning|reasoning_content|text|thinking|delta|partial_json|arguments|refusal)": ?"[^"]'
    rb'|"tool_calls": ?\[\{'
)
_FINISH = re.compile(rb'"(?:finish|stop)_reason": ?"([a-z_]{1,20})"')
_COUNT = re.compile(rb'"(prompt|completion|input|output|cached|cache_read_input)_tokens": ?(\d+)')

_INPUT = (b"prompt", b"input")
_OUTPUT = (b"completion", b"output")

has_delta = _DELTA.search
"""Return a match when a chunk holds the first piece of an answer (a role alone is none)."""


class TokenUsage(NamedTuple):
    """Token counts as the answer reports them; zero where it is silent."""

    input: int = 0
    output: int = 0
    cached: int = 0


def read_usage(tail: bytes) -> TokenUsage | None:
    """Return the counts of the last usage object in `tail`, None where there is none."""
    begin = tail.rfind(b'"usage":')
    if begin < 0:
        return None
    taken = output = cached = 0
    for name, digits in _COUNT.findall(tail, begin):
        if name in _INPUT:
            taken = int(digits)
        elif name in _OUTPUT:
            output = int(digits)
        else:
            cached = int(digits)
    return TokenUsage(taken, output, cached)


def is_usage(chunk: bytes) -> bool:
    """Return True for the event of a stream that tells its usage and nothing else."""
    return b'"choices":[]' in chunk and b'"usage":' in chunk


def read_finish(tail: bytes) -> str:
    """Return why the answer in `tail` ended, in the server's own word, '' where it does not say."""
    found = _FINISH.findall(tail)
    return found[-1].decode() if found else ""


def begins_with_error(chunk: bytes) -> bool:
    """Return True when a stream's first chunk is, or holds, an error event."""
    lines = b"\n" + chunk
    return any(mark in lines for mark in _FAILURES)


def judge_status(status: int) -> Outcome:
    """Return the outcome of a complete answer that was not a stream."""
    if status < 400:
        return Outcome.OK
    if status in {429, 503}:
        return Outcome.REJECTED
    return Outcome.CLIENT_ERROR if status < 500 else Outcome.ENGINE_ERROR


def judge_stream(tail: bytes, dialect: Dialect) -> Outcome:
    """Return the outcome of a stream by its last bytes.

    An error event, or an end without the protocol's closing event, is the engine's failure.
    """
    lines = b"\n" + tail
    for mark in _FAILURES:
        if mark in lines:
            return Outcome.ENGINE_ERROR
    for mark in _CLOSINGS[dialect]:
        if mark in lines:
            return Outcome.OK
    return Outcome.ENGINE_ERROR
