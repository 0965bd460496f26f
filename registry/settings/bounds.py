"""How large a file of settings may be, and what it must not hold whatever it is written in."""

from __future__ import annotations

Place = tuple[int | str, ...]
"""Where a value is in a document: keys, and indices of lists."""

MOST_CHARACTERS = 4 * 2**20
"""PyYAML reads some 200 kB in a second; files that people write have a few."""
MOST_VALUES = 1_000_000
"""Counted as often as anchors refer to them."""
DEEPEST = 100
"""Lists and mappings inside each other; what a file is checked with afterwards is recursive, too."""


class RepeatedKey(Exception):
    """A key that stands twice in one table; lines count from 1."""

    def __init__(self, key: str, line: int, first: int) -> None:
        self.key, self.line = key, line
        self.fact = f"the key {key!r} occurs twice (first on line {first})"
        super().__init__(f"line {line}: {self.fact}")


def measure(value: object) -> None:
    """Refuse what cannot be walked.

    Raises: ValueError: it has too many values, is nested too deep, or is inside itself.
    """
    _measure(value, {}, DEEPEST)


def _measure(value: object, known: dict[int, tuple[int, int] | None], levels: int) -> tuple[int, int]:
    """Return how many values `value` is, and how deep it is nested; None is known of what it lies in.

    `levels` are those still allowed: it is refused on the way down, before Python's own stack ends.
    """
    if not isinstance(value, dict | list | set | tuple):
        return 1, 0
    if id(value) in known:
        if (measured := known[id(value)]) is None:
            raise ValueError("an anchor contains itself")
        return measured
    if levels == 0:
        raise ValueError("nested too deep")
    known[id(value)] = None
    inner = value.values() if isinstance(value, dict) else value
    sizes = [_measure(one, known, levels - 1) for one in inner]
    size, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
    if size > MOST_VALUES:
        raise ValueError(f"its anchors stand for more than {MOST_VALUES} values")
    if depth > DEEPEST:
        raise ValueError("nested too deep")
    known[id(value)] = size, depth
    return size, depth
