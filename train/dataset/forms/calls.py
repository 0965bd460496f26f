"""Tools and their calls, as files write them, to OpenAI's form.

Owns the written forms of a tool and of a call, and which call a result belongs to. Invariant: a tool that
was read is, key by key, what vLLM gives to a chat template for the same request; a call's arguments are a
JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from registry.validation.canonical import parse_json
from train.dataset.records import CanonicalRow, Malformed, RowMessage, ToolCall

TOOL_KEYS = ("tools", "functions")
_CALL_KEYS = {"id", "call_id", "tool_call_id", "type", "function", "name", "arguments", "parameters", "index"}
_VALUES = {"default", "const", "enum", "examples"}
_SCHEMA_KEYS = ("parameters", "input_schema", "inputSchema")
_EMPTY: tuple[object, ...] = (None, "", [], {}, ())


def read_tools(value: object, where: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """Read a list of tools, or the JSON text of one: OpenAI's, bare functions, Anthropic's.

    Raises: Malformed: naming the tool, counted from 0.
    """
    if value in _EMPTY:
        return ()
    parsed = _parsed(value, where, "D-SCHEMA")
    if isinstance(parsed, Mapping):
        parsed = [parsed]
    if not isinstance(parsed, list | tuple):
        raise Malformed(f"{where} is {shown(value)}, not a list of tools")
    return tuple(_tool(one, f"{where}[{index}]") for index, one in enumerate(parsed) if one is not None)


def tools_of(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Read the tools of a row, under any of `TOOL_KEYS`.

    Raises: Malformed.
    """
    return tuple(tool for key in TOOL_KEYS for tool in read_tools(row.get(key), key))


def read_calls(value: object, where: str) -> tuple[ToolCall, ...]:
    """Read the calls of one turn: a call or a list of them, or the JSON text of either.

    Raises: Malformed: `D-CALL`, naming the call.
    """
    parsed = _parsed(value, where, "D-CALL")
    if isinstance(parsed, list):
        return tuple(_call(one, f"{where}[{index}]") for index, one in enumerate(parsed))
    return (_call(parsed, where),)


def written_call(call: ToolCall) -> dict[str, Any]:
    """Return a call as OpenAI's API writes it."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def linked(
    messages: Sequence[RowMessage], tools: Sequence[Mapping[str, Any]]
) -> tuple[tuple[RowMessage, ...], tuple[tuple[str, str], ...]]:
    """Give calls without an id one, and results without one the id of the first call that waits.

    Arguments that are null and that no tool of that name has are left out: tables fill them in. Return the
    turns, and findings (rule, fact): ids that were missing, results without a call, calls without a result.
    """
    linking = _Linking(tools)
    turns = tuple(linking.turn(index, message) for index, message in enumerate(messages, start=1))
    return turns, tuple(linking.found)


def with_links(sample: CanonicalRow) -> CanonicalRow:
    """Return the sample with an id for every call, and every result linked to its call."""
    if not any(turn.calls or turn.role == "tool" for turn in (*sample.messages, *sample.rejected)):
        return sample
    messages, notes = linked(sample.messages, sample.tools)
    rejected = sample.rejected
    if rejected:
        turns, others = linked((*sample.prompt, *rejected), sample.tools)
        rejected, notes = turns[len(sample.prompt) :], tuple(dict.fromkeys((*notes, *others)))
    return replace(sample, messages=messages, rejected=rejected, notes=(*sample.notes, *notes))


def shown(value: object) -> str:
    """Return `value` as JSON of at most 40 characters."""
    written = json.dumps(value, ensure_ascii=False, default=str)
    return written if len(written) <= 40 else f"{written[:37]}…"


# Hermes' and Llama's marks, ToolACE's `[f(x=1)]`, ToolBench's `Action: f`, bare JSON with a name.
_CALL_IN_TEXT = re.compile(r"<|\[\s*[\w. -]+\(|^\s*Action\s*:|[\"']name[\"']\s*:", re.MULTILINE)


class _Linking:
    """The calls that wait for their results, turn by turn."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._arguments = {tool["function"]["name"]: _arguments_of(tool) for tool in tools}
        self.found: list[tuple[str, str]] = []
        self._waiting: list[ToolCall] = []
        self._calls = 0
        self._in_text = False

    def turn(self, index: int, message: RowMessage) -> RowMessage:
        """Return the turn with its ids."""
        if message.role == "tool":
            return self._result(index, message)
        if self._waiting:
            names = ", ".join(call.name for call in self._waiting)
            self.found.append(("D-NO-RESULT", f"turn {index} goes on before the result of {names}"))
        self._waiting = []
        if message.role != "assistant":
            return message
        self._in_text = not message.calls and _CALL_IN_TEXT.search(message.content) is not None
        self._waiting = [self._numbered(index, call) for call in message.calls]
        return replace(message, calls=tuple(self._waiting)) if message.calls else message

    def _numbered(self, index: int, call: ToolCall) -> ToolCall:
        self._calls += 1
        call = self._without_holes(call)
        if call.id:
            return call
        self._note("D-CALL-ID", f"turn {index} calls {call.name} without an id")
        # Nine letters and digits: Mistral's templates take no other.
        return replace(call, id=f"call{self._calls:05}")

    def _without_holes(self, call: ToolCall) -> ToolCall:
        known = self._arguments.get(call.name)
        if known is None or "null" not in call.arguments:
            return call
        given = json.loads(call.arguments)
        kept = {key: value for key, value in given.items() if value is not None or key in known}
        return call if kept == given else replace(call, arguments=json.dumps(kept, ensure_ascii=False))

    def _result(self, index: int, message: RowMessage) -> RowMessage:
        call = self._answered(message)
        if call is not None:
            self._waiting.remove(call)
            return message if message.call_id else replace(message, call_id=call.id)
        # A call that is part of the text has neither name nor id that could be compared.
        if not self._in_text:
            named = f" of the call {message.call_id}" if message.call_id else ""
            self.found.append(("D-RESULT", f"turn {index} is a result{named}, which no call waits for"))
        return message

    def _answered(self, message: RowMessage) -> ToolCall | None:
        if message.call_id:
            return next((call for call in self._waiting if call.id == message.call_id), None)
        named = [call for call in self._waiting if call.name == message.name]
        return next(iter(named or self._waiting), None)

    def _note(self, rule: str, fact: str) -> None:
        if not any(known == rule for known, _ in self.found):
            self.found.append((rule, fact))


def _arguments_of(tool: Mapping[str, Any]) -> Mapping[str, Any] | None:
    parameters = tool["function"]["parameters"] or {}
    found = parameters.get("properties")
    return found if isinstance(found, Mapping) else None


def _tool(value: object, where: str) -> Mapping[str, Any]:
    tool = _parsed(value, where, "D-SCHEMA")
    if not isinstance(tool, Mapping):
        raise Malformed(f"{where} is {shown(value)}, not a tool")
    kind = tool.get("type")
    function = _parsed(tool.get("function"), f"{where}.function", "D-SCHEMA")
    if function is None and "name" in tool:
        function, kind = tool, "function"
    if kind not in (None, "", "function"):
        raise Malformed(f"{where}.type is {shown(kind)}, and only functions can be called here")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise Malformed(f"{where} is {shown(tool)}, which has no name")
    return _as_served(tool, function, where)


def _as_served(tool: Mapping[str, Any], function: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what vLLM's ChatCompletionToolsParam makes of a tool: a description of null is shown too."""
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise Malformed(f"{where}.description is {shown(description)}, not a text")
    key = next((key for key in _SCHEMA_KEYS if function.get(key) is not None), "parameters")
    parameters = _parsed(function.get(key), f"{where}.{key}", "D-SCHEMA")
    if parameters == "":
        parameters = None
    if parameters is not None and not isinstance(parameters, Mapping):
        raise Malformed(f"{where}.{key} is {shown(parameters)}, not a JSON Schema")
    served: dict[str, Any] = {
        "name": function["name"],
        "description": description,
        "parameters": None if parameters is None else _without_holes(parameters),
    }
    strict = function.get("strict", tool.get("strict"))
    if isinstance(strict, bool):
        served["strict"] = strict
    return {"type": "function", "function": served}


def _without_holes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what is null: tables fill every schema up with the keys of all others."""
    return {
        key: _whole(one) if key not in _VALUES else one
        for key, one in schema.items()
        if one is not None or key in _VALUES
    }


def _whole(value: object) -> object:
    if isinstance(value, Mapping):
        return _without_holes(value)
    return [_whole(one) for one in value] if isinstance(value, list) else value


def _call(value: object, where: str) -> ToolCall:
    call = _parsed(value, where, "D-CALL")
    if not isinstance(call, Mapping):
        raise Malformed(f"{where} is {shown(value)}, not a call with name and arguments", "D-CALL")
    if unknown := sorted(key for key in call.keys() - _CALL_KEYS if call[key] not in _EMPTY):
        raise Malformed(f"{where} has the unknown keys {unknown}", "D-CALL")
    if call.get("type") not in (None, "", "function"):
        raise Malformed(f"{where}.type is {shown(call['type'])}, not function", "D-CALL")
    function = _parsed(call.get("function"), f"{where}.function", "D-CALL")
    inner = call if function is None else function
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(name, str) or not name:
        raise Malformed(f"{where} is {shown(call)}, which names no tool", "D-CALL")
    identity = next((call[key] for key in ("id", "call_id", "tool_call_id") if call.get(key)), "")
    given = inner.get("arguments", inner.get("parameters"))
    return ToolCall(name, _arguments(given, f"{where} ({name})"), str(identity))


def _arguments(given: object, where: str) -> str:
    if isinstance(given, str) and given.strip():
        parsed = _parsed(given, f"the arguments of {where}", "D-CALL")
        written = given
    else:
        parsed = {} if given in _EMPTY or isinstance(given, str) else given
        written = json.dumps(parsed, ensure_ascii=False)
    if not isinstance(parsed, Mapping):
        raise Malformed(f"the arguments of {where} are {shown(given)}, not a JSON object", "D-CALL")
    return written


def _parsed(value: object, where: str, rule: str) -> Any:
    """Return what a JSON text holds, or a value that is not text as it is; a blank text is none."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return parse_json(value.encode())
    except ValueError as error:
        raise Malformed(f"{where} is {shown(value)}, which is no JSON ({error})", rule) from error
