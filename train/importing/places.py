"""Where the rows of a foreign config lie: a file, a folder or a pattern on this machine, or a name on a hub.

Owns which of them a text means, where a relative path counts from, and how the path is spelled in our config.
Trainers count it from where they are started, which no config says: it is looked for there (the working
directory), beside the config, and in the folders above it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_DATA = frozenset({
    ".json", ".jsonl", ".ndjson", ".txt", ".md", ".csv", ".tsv", ".parquet", ".arrow", ".zst", ".gz",
})  # fmt: skip
_ON_A_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+]*://")
_COUNTED_BYTES = 200 * 2**20


@dataclass(frozen=True, slots=True)
class DataLocation:
    """Where rows lie, as our config spells it; `found` is None for what is not on this machine.

    `hub` is true for the name of a data set on the Hugging Face hub.
    """

    path: str
    found: Path | None
    hub: bool = False

    @property
    def has_parts(self) -> bool:
        """Tell whether it may hold several parts (train, test), of which one must be named."""
        return self.hub or (self.found is not None and self.found.is_dir())


@dataclass(frozen=True, slots=True)
class Folders:
    """Where paths count from: theirs from `here` or the config's folder `beside`, ours from `out`."""

    here: Path
    beside: Path
    out: Path

    def place(self, given: str) -> DataLocation:
        """Return where `given` lies; what is not there keeps the path that it has."""
        if given.startswith("hf://"):
            return DataLocation(given, None, hub=True)
        if (found := self.find(given)) is not None:
            return DataLocation(self.spelled(found), found)
        if self._is_hub_name(given):
            return DataLocation(f"hf://{given}", None, hub=True)
        return DataLocation(given if _ELSEWHERE.match(given) else os.path.normpath(given), None)

    def find(self, given: str) -> Path | None:
        """Return the file, folder or pattern that `given` names, None where there is none."""
        if _ELSEWHERE.match(given) or not given:
            return None
        home = _at_home(given)
        # A name on a hub must not be taken for whatever lies further up.
        above = () if self._is_hub_name(given) else self.beside.parents
        folders = (self.here, self.beside, *above)
        for folder in folders if not Path(home).is_absolute() else (Path("/"),):
            candidate = Path(os.path.normpath(folder / home))
            if _exists(candidate) or (_is_pattern(home) and any(_matches(candidate))):
                return candidate
        return None

    def spelled(self, path: Path) -> str:
        """Return a path as our config names it: from the config's folder where that is near, else whole."""
        relative = os.path.relpath(path, self.out)
        near = not relative.startswith(f"..{os.sep}..{os.sep}..")
        return relative if near else str(path)

    def _is_hub_name(self, given: str) -> bool:
        return bool(_ON_A_HUB.fullmatch(given)) and PurePosixPath(given).suffix.lower() not in _DATA


def is_elsewhere(path: str) -> bool:
    """Tell whether a path is an address (http, s3, …) other than the hub's."""
    return bool(_ELSEWHERE.match(path)) and not path.startswith("hf://")


def count_rows(path: Path | None) -> int | None:
    """Return how many rows a JSON Lines file or a JSON array has; None for anything else."""
    if path is None or not path.is_file() or path.stat().st_size > _COUNTED_BYTES:
        return None
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        rows = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else None
    except (OSError, ValueError):
        return None
    return len(rows) if isinstance(rows, list) else None


def first_row(path: Path | None) -> dict[str, object] | None:
    """Return the first row of a JSON Lines file or a JSON array; None where that cannot be told cheaply."""
    if path is None or not path.is_file() or path.suffix not in {".jsonl", ".json"}:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.readline()) if path.suffix == ".jsonl" else None
        if found is None and path.stat().st_size <= _COUNTED_BYTES:
            found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    row = found[0] if isinstance(found, list) and found else found
    return row if isinstance(row, dict) else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A text that is not a path at all (too long) is not a file either.
        return False


def _at_home(given: str) -> str:
    try:
        return str(Path(given).expanduser())
    except RuntimeError:
        # There is no such person, so it is a name like any other.
        return given


def _matches(pattern: Path) -> Iterator[Path]:
    """Yield what a pattern names; its folder holds no pattern in the usual case."""
    at = next(at for at, part in enumerate(pattern.parts) if _is_pattern(part))
    return Path(*pattern.parts[:at]).glob(str(Path(*pattern.parts[at:])))


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[")
