"""Where the rows of a foreign config lie: a file beside it, or a name on a hub."""

from __future__ import annotations

from pathlib import PurePosixPath

_FILES = frozenset({".json", ".jsonl", ".txt", ".md"})
_OTHER_FILES = frozenset({".csv", ".parquet", ".arrow", ".tsv", ".zst", ".gz"})


def local_path(given: str) -> tuple[str, str]:
    """Return the path that our config gets for `given`, and why it is another one ("" if it is not)."""
    suffix = PurePosixPath(given).suffix.lower()
    if suffix in _FILES:
        return given, ""
    if suffix in _OTHER_FILES:
        wanted = str(PurePosixPath(given).with_suffix(".jsonl"))
        return wanted, f"rows are JSON Lines: write them to {wanted}"
    wanted = f"{PurePosixPath(given).name or 'train'}.jsonl"
    return wanted, f"is no file but a name on a hub or a folder: put its rows into {wanted}"
