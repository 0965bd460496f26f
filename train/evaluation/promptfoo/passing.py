"""The grader `passed` of an imported suite: does an answer pass what its test asserts, by Promptfoo's rules?

It is copied into the suite and runs in the sandbox, so it needs the standard library alone. `item["assert"]`
has the test's assertions, their values filled in.
"""

import json
import re
from typing import Any


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """Return 1 where the answer passes, else 0."""
    return 1.0 if _all(sample["output_text"], item["assert"], item.get("threshold")) else 0.0


def _all(text: str, asserts: list[dict[str, Any]], threshold: float | None) -> bool:
    scores = [(float(one.get("weight", 1)), _holds(text, one)) for one in asserts]
    if threshold is None:
        return all(held for weight, held in scores if weight)
    total = sum(weight for weight, _ in scores)
    return not total or sum(weight for weight, held in scores if held) / total >= threshold


def _holds(text: str, one: dict[str, Any]) -> bool:
    kind = one["type"]
    if kind == "assert-set":
        return _all(text, one["assert"], one.get("threshold"))
    wanted = not kind.startswith("not-")
    return _one(text, kind.removeprefix("not-"), one) == wanted


def _one(text: str, kind: str, one: dict[str, Any]) -> bool:
    value = one.get("value")
    if kind.startswith("icontains"):
        text, kind = text.lower(), kind[1:]
        value = [part.lower() for part in value] if isinstance(value, list) else str(value).lower()
    match kind:
        case "equals":
            return bool(text == value if isinstance(value, str) else _parsed(text) == (value,))
        case "contains" | "contains-any" | "contains-all":
            parts = value if isinstance(value, list) else [str(value)]
            return (any if kind == "contains-any" else all)(part in text for part in parts)
        case "starts-with":
            return text.startswith(str(value))
        case "regex":
            return re.search(str(value), text) is not None
        case "is-json":
            return _parsed(text) is not None
        case "contains-json":
            return _holds_json(text)
    if kind == "levenshtein":
        return bool(_distance(text, str(value)) <= one.get("threshold", 5))
    low, high = one["value"]
    return bool(low <= len(text.split()) <= high)


def _parsed(text: str) -> tuple[Any] | None:
    try:
        return (json.loads(text),)
    except ValueError:
        return None


def _holds_json(text: str) -> bool:
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[\[{]", text):
        try:
            decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        return True
    return False


def _distance(one: str, other: str) -> int:
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        now = [row]
        for column, against in enumerate(other, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != against)))
        before = now
    return before[-1]
