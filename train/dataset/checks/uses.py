"""Whether a row's calls fit its tools: the name is there, the arguments are what the schema asks for.

Owns these checks; which call a result belongs to is told by `calls.linked`. A schema that is none is no
finding here: templates show any object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from train.dataset.records import CanonicalRow, ToolCall

Complaint = Callable[[Any], str | None]


def inspect_calls(sample: CanonicalRow) -> Iterator[tuple[str, str]]:
    """Yield (rule id, fact) of the calls that the row's tools do not allow."""
    calls = [call for message in (*sample.messages, *sample.rejected) for call in message.calls]
    if not calls:
        return
    if not sample.tools:
        yield "D-NO-TOOLS", f"calls {', '.join(dict.fromkeys(call.name for call in calls))}"
        return
    functions = {tool["function"]["name"]: tool["function"] for tool in sample.tools}
    for call in calls:
        if call.name not in functions:
            yield "D-TOOL", f"calls {call.name}, and its tools are {', '.join(functions)}"
        elif fault := misfit(call, functions[call.name]["parameters"]):
            yield "D-ARGUMENTS", f"{call.name}: {fault}"


def misfit(call: ToolCall, schema: Mapping[str, Any] | None) -> str | None:
    """Return in words how the arguments of `call` miss the tool's JSON Schema; None where they fit."""
    if not schema:
        return None
    return complaint_of(json.dumps(schema))(json.loads(call.arguments))


@lru_cache(maxsize=1024)
def complaint_of(schema: str) -> Complaint:
    """Return what names the first fault of a value against `schema`, which is JSON."""
    import jsonschema

    parsed = json.loads(schema)
    kind = jsonschema.validators.validator_for(parsed)
    try:
        kind.check_schema(parsed)
    except jsonschema.SchemaError:
        return lambda _value: None
    validator = kind(parsed)

    def complaint(value: Any) -> str | None:
        first = jsonschema.exceptions.best_match(validator.iter_errors(value))
        return None if first is None else f"{first.json_path}: {first.message[:200]}"

    return complaint
