"""Whether a row's calls fit its tools: the name is there, the arguments are what the schema asks for.

Owns these checks, and which of them training refuses; which call a result belongs to is told by
`calls.linked`. A schema that is none is no finding here: templates show any object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from train.dataset.checks.findings import CATALOGUE
from train.dataset.records import CanonicalRow, Malformed, ToolCall

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
            yield "D-TOOL", _unknown(call, functions)
        elif fault := misfit(call, functions[call.name]["parameters"]):
            yield "D-ARGUMENTS", f"{call.name}: {fault}"


def require_uses(sample: CanonicalRow, accepted: frozenset[str]) -> None:
    """Pass where what is learnt calls the row's own tools only, and every result has its call.

    A call that is shown and not learnt, or that the row says is bad, may be of any tool.

    Raises: Malformed: unless `accepted` has the finding.
    """
    faults = [one for one in sample.notes if one[0] == "D-RESULT"]
    if sample.tools and sample.liked is not False:
        names = dict.fromkeys(tool["function"]["name"] for tool in sample.tools)
        calls = (call for turn in sample.messages if turn.learn for call in turn.calls)
        faults += [("D-TOOL", _unknown(call, names)) for call in calls if call.name not in names]
    for rule, fact in faults:
        if rule not in accepted:
            remedy = f"{CATALOGUE[rule].remedy}, or train on it as it is: data.accept [{rule}]"
            raise Malformed(fact, rule, remedy)


def misfit(call: ToolCall, schema: Mapping[str, Any] | None) -> str | None:
    """Return in words how the arguments of `call` miss the tool's JSON Schema; None where they fit."""
    if not schema:
        return None
    return complaint_of(json.dumps(schema))(json.loads(call.arguments))


@lru_cache(maxsize=1024)
def complaint_of(schema: str) -> Complaint:
    """Return what names the first fault of a value against `schema`, which is JSON.

    A schema that refers to what it does not hold, or to itself without end, is as one that is none.
    """
    import jsonschema
    import referencing.exceptions

    try:
        validator = validator_of(json.loads(schema))
    except (jsonschema.SchemaError, RecursionError):
        return lambda _value: None

    def complaint(value: Any) -> str | None:
        try:
            first = jsonschema.exceptions.best_match(validator.iter_errors(value))
        except (RecursionError, referencing.exceptions.Unresolvable):
            return None
        return None if first is None else f"{first.json_path}: {first.message[:200]}"

    return complaint


def validator_of(schema: Any) -> Any:
    """Return what validates values against a JSON Schema; it opens no address that the schema refers to.

    Raises: jsonschema.SchemaError: it is none.
    """
    import jsonschema
    import referencing

    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    # NOTE: without a registry jsonschema 4.26 opens `$ref`s by urllib, `file:` too, which a client may write.
    return kind(schema, registry=referencing.Registry())


def _unknown(call: ToolCall, names: Iterable[str]) -> str:
    return f"calls {call.name}, and its tools are {', '.join(names)}"
