"""YAML as people write it: whatever stands there, the only error is `yaml.YAMLError`.

Owns the call of PyYAML, which lets other errors out for a date such as `2026-13-45`, for `!!int x`, and for
lists that are nested too deep. Invariant: what comes out is a tree that a caller may walk: no anchor is
inside itself, and anchors that repeat each other stand for a bounded number of values.
"""

from __future__ import annotations

import yaml

MOST_CHARACTERS = 4 * 2**20
"""PyYAML reads some 200 kB in a second; files that people write have a few."""
MOST_VALUES = 1_000_000
"""Counted as often as they are referred to."""
DEEPEST = 100
"""Lists and mappings inside each other; what a file is checked with afterwards is recursive, too."""


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> object:
    """Return what `text` holds; dates and times are objects of their own.

    Raises: yaml.YAMLError.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text)} characters; {MOST_CHARACTERS} are read at most")
    try:
        found: object = yaml.load(text, loader)  # noqa: S506  a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise yaml.YAMLError(f"a value is not what it is written as ({error})") from error
    _measure(found, {})
    return found


def _measure(value: object, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return how many values `value` is, and how deep it is nested; None is known of what it lies in.

    Raises: yaml.YAMLError: it is too much, too deep or without an end.
    """
    if not isinstance(value, dict | list | set | tuple):
        return 1, 0
    if id(value) in known:
        if (measured := known[id(value)]) is None:
            raise yaml.YAMLError("an anchor contains itself")
        return measured
    known[id(value)] = None
    inner = value.values() if isinstance(value, dict) else value
    sizes = [_measure(one, known) for one in inner]
    size, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
    if size > MOST_VALUES:
        raise yaml.YAMLError(f"its anchors stand for more than {MOST_VALUES} values")
    if depth > DEEPEST:
        raise yaml.YAMLError("nested too deep")
    known[id(value)] = size, depth
    return size, depth
