"""Templates: `{{item.…}}` and `{{sample.…}}` filled in from one answer and what it answers. Pure.

Invariant: text from the values is never a template itself; a value that is not there is told, not left empty.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.tuning.graders import PLACE

if TYPE_CHECKING:
    from pydantic import JsonValue

_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]")


class NoValue(ValueError):
    """A place of a template for which there is no value; `parsing`: the answer is no JSON."""

    def __init__(self, message: str, *, parsing: bool = False) -> None:
        super().__init__(message)
        self.parsing = parsing


@dataclass(frozen=True, slots=True)
class GradedSample:
    """One answer and the item that it answers."""

    output_text: str
    item: Mapping[str, JsonValue]
    output_tools: tuple[JsonValue, ...] = ()

    @property
    def output_json(self) -> JsonValue:
        """Return the answer as JSON, None where it is none."""
        try:
            value: JsonValue = json.loads(self.output_text)
        except (ValueError, RecursionError):
            return None
        return value

    def document(self) -> dict[str, JsonValue]:
        """Return what stands for `sample`."""
        tools = list(self.output_tools)
        return {"output_text": self.output_text, "output_json": self.output_json, "output_tools": tools}


def fill(template: str, sample: GradedSample) -> str:
    """Return the text with every place filled in; what is no text is written as JSON.

    Raises: NoValue.
    """
    return PLACE.sub(lambda found: _written(_value(found[1], sample)), template)


def _written(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(path: str, sample: GradedSample) -> JsonValue:
    head = "item" if path.startswith("item") else "sample"
    value: JsonValue = dict(sample.item) if head == "item" else sample.document()
    if path.startswith("sample.output_json") and sample.output_json is None:
        raise NoValue("the sample is no JSON", parsing=True)
    for name, index in _STEP.findall(path[len(head) :]):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and index and int(index) < len(value):
            value = value[int(index)]
        else:
            raise NoValue(f"{{{{{path}}}}}: there is no {name or f'[{index}]'}")
    return value
