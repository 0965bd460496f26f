"""A job's files into the migration's folder: rows, held-out rows, figures.

Owns which files a job has. Invariants: a file is fetched once, however many jobs name it; one that the
account deleted is told and not asked for again; rows are what the account has, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import NotFound
from registry.storage import disk
from train.migrating.folder import MigrationFolder, decoded_result
from train.migrating.interface import BrokenOff, JobDocument, JobSource

ROWS, FIGURES = ".jsonl", ".csv"
_TRIES = 3
"""How often a content is fetched that breaks off."""


@dataclass(slots=True)
class FetchedFiles:
    """What there is of a job's files; `notes` are sentences about what there is not."""

    train: Path | None = None
    validation: Path | None = None
    results: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def fetch(job: JobDocument, source: JobSource | None, folder: MigrationFolder) -> FetchedFiles:
    """Fetch what is missing of a job's files; without a `source`, tell what there is.

    Raises: AccountFailed; Denied; StorageFailed; UsageError: an id that is none.
    """
    found = FetchedFiles()
    found.train = _fetched(job.get("training_file"), ROWS, "training file", source, folder, found.notes)
    found.validation = _fetched(
        job.get("validation_file"), ROWS, "validation file", source, folder, found.notes
    )
    results = job.get("result_files")
    for file in results if isinstance(results, list) else ():
        path = _fetched(file, FIGURES, "result file", source, folder, found.notes)
        if path is not None:
            found.results.append(path)
    return found


def _fetched(
    file: object,
    suffix: str,
    what: str,
    source: JobSource | None,
    folder: MigrationFolder,
    notes: list[str],
) -> Path | None:
    if file is None:
        return None
    path = folder.file(str(file), suffix)
    if disk.exists(path):
        return path
    if source is None or folder.is_gone(path):
        notes.append(f"the {what} {file} is not there any more: it was deleted at the account")
        return None
    for attempt in range(1, _TRIES + 1):
        try:
            folder.keep_file(path, _content(source, str(file), suffix))
        except NotFound:
            folder.mark_gone(path)
            notes.append(f"the {what} {file} is not there any more: it was deleted at the account")
            return None
        except BrokenOff:
            if attempt == _TRIES:
                raise
        else:
            return path
    raise AssertionError("the last try returns or raises")


def _content(source: JobSource, file: str, suffix: str) -> Iterator[bytes]:
    chunks = source.content(file)
    if suffix == ROWS:
        yield from chunks
    else:
        yield decoded_result(b"".join(chunks))
