"""Render two chat templates with a set of conversations, as transformers does, and say what came out.

A process of its own, started by `rendering`: templates come from outside, and one that never ends, or fills
the memory, must end nothing else. Reads `{"templates": [text, text]}` from its standard input and writes, per
template, a list with the hash of each rendering, null where the template refused. Ends with `OUT_OF_MEMORY`,
or by the system's signal, where one takes more than its share. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 3
MEMORY_BYTES = 1024**3
OUT_OF_MEMORY = 3
"""The exit code where a template needs more than that."""

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather <here> & there.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Ünïcode"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
_CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Łódź", "days": 2}},
}
_USER = {"role": "user", "content": "What is the capital of Portugal?"}
_SYSTEM = {"role": "system", "content": "You are a careful clerk."}
_ANSWER = {"role": "assistant", "content": "Lisbon."}
_THOUGHT = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nLisbon.", "reasoning_content": "Hm."}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_RESULT = {"role": "tool", "content": '{"sky": "blue"}', "name": "get_weather", "tool_call_id": "call00001"}
_PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "In parts."}, {"type": "text", "text": "Two."}],
}
_CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [_USER],
    [_SYSTEM, _USER],
    [_USER, _ANSWER],
    [_SYSTEM, _USER, _ANSWER, {"role": "user", "content": "And of Spain?"}],
    [_USER, _ANSWER, _USER, _ANSWER],
    [_USER, _THOUGHT, _USER],
    [{"role": "developer", "content": "Be short."}, _USER],
    [{"role": "system", "content": ""}, {"role": "user", "content": "  spaces \n\n and breaks \n"}, _ANSWER],
    [{"role": "user", "content": "{{ braces }} {% if x %} <b>&amp;</b> \"quotes\" 'single' 東京 🙂"}],
    [_PARTS],
    [_SYSTEM, _USER, _CALLING, _RESULT],
    [_SYSTEM, _USER, _CALLING, _RESULT, _ANSWER, _USER],
    [_USER, _USER],
    [_ANSWER],
    [],
)
_SETTINGS: tuple[dict[str, Any], ...] = (
    {"add_generation_prompt": False},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "tools": [_TOOL]},
    {"add_generation_prompt": True, "enable_thinking": False, "thinking": False},
    {"add_generation_prompt": True, "enable_thinking": True, "thinking": True, "reasoning_effort": "high"},
    {"add_generation_prompt": True, "documents": [{"title": "T", "text": "Body."}]},
)
_TOKENS = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk", "sep", "cls", "mask")}
_MOMENT = datetime(2024, 7, 26, 12, tzinfo=UTC)


class Generation(Extension):
    """The block that marks what is learnt, which transformers and TRL add; it changes no text."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Any) -> Any:
        """Return the statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """Return the environment in which transformers renders chat templates, at a fixed moment."""
    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    found.filters["tojson"] = _to_json
    found.globals["raise_exception"] = _raise_exception
    found.globals["strftime_now"] = _MOMENT.strftime
    return found


def renderings(template: str) -> Iterator[str | None]:
    """Yield the hash of each rendering, None where the template, or Jinja, refused."""
    try:
        compiled = environment().from_string(template)
    except (jinja2.TemplateError, RecursionError, ValueError):
        return
    for conversation in _CONVERSATIONS:
        for settings in _SETTINGS:
            given = {"messages": conversation, "tools": None, "documents": None, **_TOKENS, **settings}
            text = None
            try:
                text = compiled.render(given)
            except MemoryError:
                raise  # `main` says so
            except Exception:  # noqa: BLE001, S110 - whatever else a template does is its own affair
                pass
            yield None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def main() -> None:
    """Read the templates, render them within the limits, and write the hashes."""
    for limit, value in ((resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_AS, MEMORY_BYTES)):
        with contextlib.suppress(
            OSError, ValueError
        ):  # a system that does not know it has the parent's clock
            resource.setrlimit(limit, (value, value))
    templates = json.load(sys.stdin)["templates"]
    try:
        found = [list(renderings(template)) for template in templates]
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    json.dump(found, sys.stdout)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


if __name__ == "__main__":
    main()
