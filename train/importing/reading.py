"""The text of a foreign config into its settings, or what the file is instead.

Owns what is refused before anybody asks whose config it is: several documents, a key given twice, a template
that was not filled in, keys that are not text. YAML's anchors and merges are what they stand for.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from registry.settings.bounds import MOST_CHARACTERS
from registry.settings.file import parse_text, read_text

_TEMPLATE = re.compile(r"^\s*(?:[\w.-]+\s*:|-)\s*\{\{.*\}\}|^\s*\{%-?\s", re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][\w.]*)[^}]*\}|([A-Za-z_]\w*))")


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of the YAML or JSON file at `path`.

    Raises: UsageError: it cannot be read or parsed, holds several documents, a key twice, a template, or no
    settings.
    """
    text = read_text(path, most=MOST_CHARACTERS)
    try:
        found = _parsed(text, str(path))
    except UsageError as error:
        raise _other(path, text, error) or error from error.__cause__
    if not isinstance(found, dict) or not found:
        raise UsageError(str(path), f"holds no settings but {_kind(found)}", "name a trainer's YAML config")
    _check_keys(path, found)
    if _holds_nul(found):
        raise UsageError(
            str(path), "holds a NUL character, which no path and no name has", "correct the file"
        )
    return found


def _parsed(text: str, subject: str) -> object:
    """Read YAML, and JSON that is none because tabs stand between its values."""
    try:
        return parse_text(text, subject)
    except UsageError:
        if not text.lstrip().startswith("{") or "\t" not in text:
            raise
        return parse_text(text.replace("\t", " "), subject)


def fill_in(subject: str, key: str, text: str) -> str:
    """Return `text` with the environment's variables (`$DATA`, `${DATA}`) filled in.

    Raises: UsageError: naming one that is not set.
    """
    filled = os.path.expandvars(text)
    if found := _VARIABLE.search(filled):
        fact = f"{key}: {text} holds the variable {found[1] or found[2]}, which is not set"
        raise UsageError(subject, fact, "set it, or write the value into the file", param=key)
    return filled


def refers(text: object) -> str | None:
    """Return the key that `${key}` refers to, None where `text` is no such reference alone."""
    found = re.fullmatch(r"\$\{([\w.]+)\}", text) if isinstance(text, str) else None
    return found[1] if found else None


def _other(path: Path, text: str, error: UsageError) -> UsageError | None:
    """Return what a file that cannot be parsed is instead, if that is known."""
    if _TEMPLATE.search(text):
        fact = "is a template (Jinja's {{ … }}), not a config"
        return UsageError(str(path), fact, "fill it in first, and import the result")
    if "another document" in error.fact:
        return UsageError(str(path), "holds several YAML documents", "put the config into a file of its own")
    return None


def _kind(found: object) -> str:
    if isinstance(found, list):
        return "a list"
    return "nothing" if found is None or found == {} else f"one text ({json.dumps(str(found)[:40])})"


def _holds_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any(_holds_nul(one) for one in value.values())
    return any(map(_holds_nul, value)) if isinstance(value, list) else "\0" in str(value)


def _check_keys(path: Path, found: dict[Any, Any]) -> None:
    other = [key for key in found if not isinstance(key, str)]
    if not other:
        return
    # YAML 1.1 reads the bare word `on` as true.
    if other == [True] and "jobs" in found:
        fact = "is a workflow (on, jobs), not a training config"
        raise UsageError(str(path), fact, "name the trainer's YAML config")
    fact = f"has a key that YAML does not read as text: {other[0]!r}"
    raise UsageError(str(path), fact, "put it in quotes, or name a trainer's YAML config")
