"""Which line of a TOML file a key stands on, which `tomllib` does not tell.

Lines are joined until `tomllib` takes them for a statement, so the grammar is its own. Only asked once
something is wrong.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

from registry.settings.bounds import Place, RepeatedKey

_MOST_AGAIN = 2**20
"""A statement of many lines is parsed again for each; beyond so many characters no line is named."""
_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_INLINE = re.compile(r"Duplicate inline table key '(.*)'")
_TWICE = ("Cannot overwrite a value", "Cannot declare ", "Cannot mutate immutable namespace")


def parse_toml(text: str) -> dict[str, Any]:
    """Return what `text` holds.

    Raises: tomllib.TOMLDecodeError; RepeatedKey.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        fact, line = split_place(error, text)
        if line is not None and (inline := _INLINE.match(fact)):
            raise RepeatedKey(inline[1], line, line) from error
        if line is not None and fact.startswith(_TWICE) and (found := _repeated(text, line)):
            raise found from error
        raise


def split_place(error: tomllib.TOMLDecodeError, text: str) -> tuple[str, int | None]:
    """Return what `tomllib` says of `text`, and its line."""
    said, place = str(error), _AT.search(str(error))
    if place is None:
        return said, None
    return said[: place.start()], int(place[1]) if place[1] else len(text.splitlines())


def lines_in_toml(text: str) -> Callable[[Place], int | None]:
    """Return what finds the line on which the statement of a place begins; None: it is not there."""
    lines: dict[Place, int] = {}
    for line, _, places in _statements(text):
        for one in places:
            lines.setdefault(one, line)
    return lines.get


def _repeated(text: str, failed: int) -> RepeatedKey | None:
    """Return the key of the statement that `tomllib` stopped at, on or before line `failed`."""
    lines: dict[Place, int] = {}
    for line, last, places in _statements(text):
        if last >= failed:
            key, first = next(((one, lines[one]) for one in reversed(places) if one in lines), (None, 0))
            return RepeatedKey(".".join(map(str, key)), line, first) if key else None
        for one in places:
            lines.setdefault(one, line)
    return None


def _statements(text: str) -> Iterator[tuple[int, int, list[Place]]]:
    """Yield the first and last line of each statement, and the places that it gives, each after its table."""
    table: Place = ()
    counts: dict[Place, int] = {}
    pending: list[str] = []
    left = len(text) + _MOST_AGAIN
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        pending.append(line)
        chunk = "\n".join(pending)
        left -= len(chunk)
        if left < 0:
            return
        try:
            found: Any = tomllib.loads(chunk)
        except tomllib.TOMLDecodeError:
            continue
        first, header, pending = number - len(pending) + 1, pending[0].lstrip().startswith("["), []
        if not header:
            yield first, number, [(*table, *one) for one in _places(found)]
        elif found:
            table = _table(found, counts)
            yield first, number, [table[: at + 1] for at in range(len(table))]


def _table(found: Any, counts: dict[Place, int]) -> Place:
    """Return the place of a header; a list of tables is at its last item."""
    place: Place = ()
    while isinstance(found, dict) and found:
        ((key, found),) = found.items()
        place = (*place, key)
        if found and isinstance(found, list):
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _places(found: Any) -> Iterator[Place]:
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in inner:
        yield (key,)
        yield from ((key, *below) for below in _places(value))
