"""The `configs` that a data set's README declares in its YAML header.

Owns the reading of that header, as the Hugging Face hub defines it. Invariant: no pattern leads out of the
data set's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from registry.errors import UsageError
from registry.settings.yaml_text import parse_yaml

README = "README.md"
_FENCE = "---"
_ONLY_SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration: patterns by the name of the split; without any, the names of the files decide."""

    name: str
    default: bool
    folder: str
    patterns: Mapping[str, tuple[str, ...]]


def read_configs(folder: Path) -> tuple[Config, ...]:
    """Return what the README of `folder` declares; nothing where it declares nothing.

    Raises: UsageError: the header cannot be parsed, or a pattern leads out of the folder.
    """
    path = folder / README
    if not path.is_file():
        return ()
    try:
        header = parse_yaml(_header(path.read_text(encoding="utf-8", errors="replace")), repeats=True)
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(str(path), f"has a header that cannot be parsed: {error}", "correct it") from error
    entries = header.get("configs") if isinstance(header, dict) else None
    if not isinstance(entries, list):
        return ()
    return tuple(_config(path, entry) for entry in entries if isinstance(entry, dict))


def _header(text: str) -> str:
    if not text.startswith(_FENCE):
        return ""
    return text.removeprefix(_FENCE).partition(f"\n{_FENCE}")[0]


def _config(path: Path, entry: Mapping[str, Any]) -> Config:
    name, folder = str(entry.get("config_name", "default")), str(entry.get("data_dir", ""))
    patterns = _patterns(entry.get("data_files"))
    for pattern in (folder, *(one for found in patterns.values() for one in found)):
        if "://" in pattern or PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
            fact = f"declares the file {pattern!r}, which is not below the folder"
            raise UsageError(str(path), fact, "name the files of the data set yourself")
    return Config(name, name == "default" or entry.get("default") is True, folder, patterns)


def _patterns(value: Any) -> dict[str, tuple[str, ...]]:
    if isinstance(value, Mapping):
        return {str(split): _texts(paths) for split, paths in value.items()}
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        entries = [one for one in value if isinstance(one, Mapping)]
        return {str(one.get("split", _ONLY_SPLIT)): _texts(one.get("path")) for one in entries}
    found = _texts(value)
    return {_ONLY_SPLIT: found} if found else {}


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(str(one) for one in value)
    return (str(value),) if value else ()
