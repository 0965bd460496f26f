"""The items of a Responses request against vLLM's own types, so that a wrong one is cheap.

NOTE: vLLM's `input` is a list of a union of dozens of types without a discriminator, and pydantic keeps
every error of every type of every item: 3 to 10 ms for each wrong one, all of them on the event loop, and a
message of hundreds of lines. Here the first wrong one ends it. Remove when vLLM goes by an item's `type`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

AT_ONCE = 8
"""Items between two turns of the event loop; up to so many are vLLM's own business altogether."""

PARTS_AT_ONCE = 16
"""Content parts of one item that are looked at together: a wrong one costs half a millisecond."""


async def vet(items: bytes) -> str:
    """Return what is wrong with the first wrong item of a JSON list, '' where all are right."""
    found = json.loads(items)
    pieces = list(_pieces(found))
    if len(pieces) <= AT_ONCE:
        return ""
    for begin in range(0, len(pieces), AT_ONCE):
        chosen = pieces[begin : begin + AT_ONCE]
        if not _are_right([piece for _, piece in chosen]):
            return _describe(found, chosen)
        await asyncio.sleep(0)
    return ""


def _pieces(items: list[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the items with their numbers; one with many parts as several that have some of them each."""
    for number, item in enumerate(items):
        long = isinstance(item, dict) and next((key for key in item if _is_long(item[key])), None)
        if not long:
            yield number, item
            continue
        parts = item[long]
        for begin in range(0, len(parts), PARTS_AT_ONCE):
            yield number, {**item, long: parts[begin : begin + PARTS_AT_ONCE]}


def _is_long(value: object) -> bool:
    return isinstance(value, list) and len(value) > PARTS_AT_ONCE


def _are_right(pieces: list[Any]) -> bool:
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    try:
        ResponsesRequest.model_validate({"input": pieces})
    except ValidationError:
        return False
    return True


def _describe(items: list[Any], chosen: list[tuple[int, Any]]) -> str:
    number = next((one for one, piece in chosen if not _are_right([piece])), chosen[0][0])
    item = items[number]
    if not isinstance(item, dict):
        return f"item {number} is not an object"
    shown = ", ".join(f"{key} {item[key]!r}"[:60] for key in ("type", "role") if key in item)
    keys = ", ".join(sorted(item))[:200]
    return f"item {number} ({shown or 'neither type nor role'}) is not an input item; it has the keys {keys}"
