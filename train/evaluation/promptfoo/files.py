"""Files that a config names: `file://…` and plain paths, from the config's folder.

Owns which kinds are read: YAML, JSON, JSON Lines, CSV and text. What would be run (JavaScript, Python,
programs) or fetched is not.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from registry.settings.file import parse_text, read_text
from train.evaluation.promptfoo.draft import ConfigLosses

PREFIX = "file://"
_DATA = {".yaml", ".yml", ".json", ".jsonl", ".csv"}
_TEXTS = {"", ".txt", ".md", ".j2"}
_RUN = (".js", ".cjs", ".mjs", ".ts", ".py", ".sh", ".rb", ".pl")


def is_path(value: object) -> bool:
    """Tell whether a value says that it is a file."""
    return isinstance(value, str) and value.startswith(PREFIX)


def read_named(value: str, folder: Path, place: str, losses: ConfigLosses) -> list[Any]:
    """Return what the files hold that `value` names: parsed data, rows of CSV as mappings, or texts.

    Raises: UsageError: a file that is not there, or not valid.
    """
    name = value.removeprefix(PREFIX)
    if name.startswith(("http:", "https:", "huggingface:")) or "://" in name:
        losses.add(place, f"{value} is fetched from elsewhere", "save it as a file and name that")
        return []
    if (
        name.startswith("exec:")
        or any(end in name.lower() for end in (*[f"{one}:" for one in _RUN],))
        or name.lower().endswith(_RUN)
    ):
        losses.add(place, f"{value} is a program", "run it yourself and save what it gives as JSON Lines")
        return []
    paths = sorted(folder.glob(name)) if any(one in name for one in "*?[") else [folder / name]
    found = []
    for path in paths:
        kind = path.suffix.lower()
        if kind not in _DATA | _TEXTS:
            losses.add(
                place, f"{value} is of a kind that is not read", "save it as YAML, JSON Lines, CSV or text"
            )
            continue
        found.append(_content(path, kind))
    if not paths:
        losses.add(place, f"no file is called {value}", "put it beside the config")
    return found


def _content(path: Path, kind: str) -> Any:
    text = read_text(path)
    if kind == ".jsonl":
        lines = enumerate(text.splitlines(), start=1)
        return [parse_text(line, str(path), "JSON", first_line=at) for at, line in lines if line.strip()]
    if kind == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    if kind in _TEXTS:
        return text
    return parse_text(text, str(path), "JSON" if kind == ".json" else "YAML")
