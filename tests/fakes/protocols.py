"""Answers of three protocols, as small as official clients take them: text, a tool call, JSON of a schema."""

from __future__ import annotations

import json
from typing import Any

TEXT = "one"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}

_VALUES: dict[str, object] = {"string": "Paris", "integer": 2, "number": 2.5, "boolean": True, "array": []}


def chat(body: dict[str, Any], identity: str) -> dict[str, Any]:
    """Return a chat completion: the forced tool's call, JSON of the wanted schema, or a word."""
    message: dict[str, Any] = {"role": "assistant", "content": TEXT}
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    if body.get("tools") and isinstance(body.get("tool_choice"), dict):
        function = body["tools"][0]["function"]
        arguments = json.dumps(instance(function["parameters"]))
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments},
        }
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    elif schema is not None:
        message["content"] = json.dumps(instance(schema))
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": identity, "object": "chat.completion", "created": 1, "model": body.get("model")}
    return {**head, "choices": [choice], "usage": USAGE}


def messages(body: dict[str, Any], identity: str) -> dict[str, Any]:
    """Return an answer of Anthropic's protocol."""
    content = [{"type": "text", "text": TEXT}]
    usage = {"input_tokens": 7, "output_tokens": 3}
    head = {"id": identity, "type": "message", "role": "assistant", "model": body.get("model")}
    return {**head, "content": content, "stop_reason": "end_turn", "usage": usage}


def instance(schema: dict[str, Any]) -> Any:
    """Return a value of a JSON schema that uses `type` and `properties` only."""
    if schema.get("type") == "object":
        return {name: instance(inner) for name, inner in schema.get("properties", {}).items()}
    return _VALUES.get(str(schema.get("type")))
