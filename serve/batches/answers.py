"""The answers of a batch: lines that are appended as they come, and the files that are made of them.

Owns `answers/<claim>.jsonl`, one file for each claim, which the server that has the claim alone writes.
Invariants: an answer counts when its line is whole on the disk; of two answers to one request the one that
`survey` finds first counts, everywhere; nothing but places is held in memory.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from registry.entries.openai.batches import BatchProgress
from registry.storage import disk, files

_LONGEST_BYTES = 256 * 1024**2


class AnswerRecord(msgspec.Struct):
    """One answer: to the request at `place`, with the status and body that a client would have got.

    Without a status the request was not asked, and `error` says why.
    """

    place: int
    custom_id: str
    id: str
    status: int
    request_id: str
    body: msgspec.Raw
    error: dict[str, str] | None = None


class _Tokens(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Used(msgspec.Struct):
    usage: _Tokens | None = None


_record, _used = msgspec.json.Decoder(AnswerRecord), msgspec.json.Decoder(_Used)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Survey:
    """Which requests of a batch are answered: `file` (from 1, 0: none) and `offset` of each one's answer."""

    paths: Sequence[Path]
    file: array[int]
    offset: array[int]
    progress: BatchProgress = field(default_factory=BatchProgress)
    usage: dict[str, int] = field(default_factory=dict)

    def answered(self, place: int) -> bool:
        """Return whether the request at `place` is answered."""
        return self.file[place] > 0

    def mark(self, place: int) -> None:
        """Note that a request is answered, by this process."""
        self.file[place] = self.file[place] or 1


class AnswerLog:
    """The answers of one claim; `add` is quick, `write` blocks."""

    def __init__(self, folder: Path, claim: int) -> None:
        self._path = folder / f"{claim}.jsonl"
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()

    def add(self, record: AnswerRecord) -> None:
        """Take an answer."""
        self._waiting.append(_encode(record) + b"\n")

    def write(self) -> int:
        """Append what waits, and return how many answers that were.

        Raises: StorageFailed: they wait on.
        """
        # A task that is cancelled leaves its thread at work: another one must not take the same answers.
        with self._lock:
            taken = self._waiting[:]
            if taken:
                files.append_lines(self._path, b"".join(taken))
                del self._waiting[: len(taken)]
            return len(taken)


def survey(folder: Path, total: int) -> Survey:
    """Read all answers once and say where the one that counts lies for each request. Blocks.

    Raises: StorageFailed.
    """
    paths = [folder / name for name in sorted(disk.names(folder), key=claim_of) if claim_of(name)]
    found = Survey(paths, array("H", bytes(2 * total)), array("Q", bytes(8 * total)))
    completed = failed = 0
    used = _Tokens()
    for number, path in enumerate(paths, 1):
        for offset, record in _read(path):
            if record.place >= total or found.file[record.place]:
                continue
            found.file[record.place], found.offset[record.place] = number, offset
            if 200 <= record.status < 300:
                completed += 1
                _add(used, record.body)
            else:
                failed += 1
    found.progress = BatchProgress(completed, failed)
    found.usage = {"input": used.prompt_tokens, "output": used.completion_tokens, "total": used.total_tokens}
    return found


def output_lines(found: Survey, *, good: bool) -> Iterator[bytes]:
    """Yield the lines of the output file, or of the error file, in the order of the answers. Blocks.

    Raises: StorageFailed.
    """
    for number, path in enumerate(found.paths, 1):
        for offset, record in _read(path):
            counts = record.place < len(found.file) and (
                (found.file[record.place], found.offset[record.place]) == (number, offset)
            )
            if counts and (200 <= record.status < 300) == good:
                yield render(record)


def render(record: AnswerRecord) -> bytes:
    """Return an answer as a line of OpenAI's files."""
    response = None
    if record.status:
        response = {"status_code": record.status, "request_id": record.request_id, "body": record.body}
    line = {"id": record.id, "custom_id": record.custom_id, "response": response, "error": record.error}
    return _encode(line) + b"\n"


def claim_of(name: str) -> int:
    """Return which claim a file of answers is of, 0: it is none."""
    stem, _, kind = name.partition(".")
    return int(stem) if kind == "jsonl" and stem.isdigit() else 0


def _read(path: Path) -> Iterator[tuple[int, AnswerRecord]]:
    """Yield each whole answer of a file, and where its line begins; one that is torn is none."""
    offset = 0
    with disk.explained(path), disk.open_plain(path) as file:
        while line := file.readline(_LONGEST_BYTES):
            found = _decoded(line)
            if found is not None:
                yield offset, found
            offset += len(line)


def _decoded(line: bytes) -> AnswerRecord | None:
    try:
        return _record.decode(line)
    except msgspec.DecodeError:
        return None


def _add(used: _Tokens, body: msgspec.Raw) -> None:
    try:
        found = _used.decode(body).usage
    except msgspec.DecodeError:
        return  # an answer without the counts that ours have
    if found is not None:
        used.prompt_tokens += found.prompt_tokens
        used.completion_tokens += found.completion_tokens
        used.total_tokens += found.total_tokens
