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

import yaml

from registry.errors import UsageError
from registry.yaml_text import parse_yaml
from train.evaluation.strict import read_text

_TEMPLATE = re.compile(r"^\s*(?:[\w.-]+\s*:|-)\s*\{\{.*\}\}|^\s*\{%-?\s", re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][\w.]*)[^}]*\}|([A-Za-z_]\w*))")


class _Once(yaml.SafeLoader):
    """A loader for which a key that stands twice in one mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated key; what a merge (`<<`) brings in may be given again.

        Raises: yaml.YAMLError.
        """
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key {key.value} stands twice: keep one of them")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of the YAML or JSON file at `path`.

    Raises: UsageError: it cannot be read or parsed, holds several documents, a key twice, a template, or no
    settings.
    """
    text = read_text(path)
    try:
        found = _parsed(text)
    except yaml.YAMLError as error:
        raise _unreadable(path, text, error) from error
    if not isinstance(found, dict) or not found:
        raise UsageError(str(path), f"holds no settings but {_kind(found)}", "name a trainer's YAML config")
    _check_keys(path, found)
    if _holds_nul(found):
        raise UsageError(
            str(path), "holds a NUL character, which no path and no name has", "correct the file"
        )
    return found


def _parsed(text: str) -> object:
    """Read YAML, and JSON that is none because tabs stand between its values.

    Raises: yaml.YAMLError.
    """
    try:
        return parse_yaml(text, _Once)
    except yaml.YAMLError:
        if not text.lstrip().startswith("{") or "\t" not in text:
            raise
        return parse_yaml(text.replace("\t", " "), _Once)


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


def _unreadable(path: Path, text: str, error: yaml.YAMLError) -> UsageError:
    if _TEMPLATE.search(text):
        fact = "is a template (Jinja's {{ … }}), not a config"
        return UsageError(str(path), fact, "fill it in first, and import the result")
    if "expected a single document" in str(error):
        return UsageError(str(path), "holds several YAML documents", "put the config into a file of its own")
    return UsageError(str(path), f"cannot be parsed: {_in_short(error)}", "correct the file")


def _in_short(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return f"{where}{getattr(error, 'problem', None) or ' '.join(str(error).split())}"


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
