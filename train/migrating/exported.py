"""A folder that somebody exported from an account: `jobs.json` or `jobs.jsonl`, and `files/` by their ids.

Owns how such a folder is read; nothing in it is changed. What `wardrobe migrate openai` keeps is one, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.errors import NotFound, UsageError
from registry.settings.file import parse_text, read_text
from train.migrating.interface import JobDocument, plain_id

JOBS, FILES = "jobs.json", "files"
_CHUNK = 1 << 20


class ExportedFolder:
    """An export in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def jobs(self) -> list[JobDocument]:
        """Return every job.

        Raises: UsageError: there is no list of jobs, or it cannot be read.
        """
        path = self._folder / JOBS
        lines = path.with_suffix(".jsonl")
        if not path.is_file() and lines.is_file():
            rows = read_text(lines).splitlines()
            found: Any = [
                parse_text(row, str(lines), "JSON", first_line=number)
                for number, row in enumerate(rows, start=1)
                if row.strip()
            ]
        else:
            absent = f"put the jobs there as GET /v1/fine_tuning/jobs lists them, and the files into {FILES}/"
            found = parse_text(read_text(path, absent=absent), str(path), "JSON")
        data = found.get("data") if isinstance(found, dict) else found
        if not isinstance(data, list) or not all(isinstance(one, dict) and "id" in one for one in data):
            raise UsageError(str(path), "is not a list of fine-tuning jobs", "save what the API lists")
        return data

    def content(self, file: str) -> Iterator[bytes]:
        """Yield the content of the file of that id, whatever the suffix of its name.

        Raises: NotFound: it is not in the export.
        """
        name = plain_id(file, "file")
        folder = self._folder / FILES
        found = sorted({*folder.glob(name), *folder.glob(f"{name}.*")})
        if not found:
            raise NotFound(name, f"is not in {folder}", "")
        with found[0].open("rb") as reader:
            while chunk := reader.read(_CHUNK):
                yield chunk


def encode_jobs(jobs: list[JobDocument]) -> bytes:
    """Return the bytes of `jobs.json`."""
    return json.dumps({"object": "list", "data": jobs}, indent=1, ensure_ascii=False).encode(
        "utf-8", "replace"
    )
