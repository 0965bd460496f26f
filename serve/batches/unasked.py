"""What the error file says of requests that were never asked: too late, or cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from registry.entries.openai.batch_states import BatchEvent
from registry.entries.openai.ids import derived_id, made_at
from registry.storage import disk
from serve.batches.answers import AnswerRecord, Survey, render
from serve.batches.lines import read_lines

_WHY = {
    BatchEvent.EXPIRED: (
        "batch_expired", "This request could not be executed before the completion window expired.",
    ),
    BatchEvent.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request was executed."),
    BatchEvent.COMPLETED: ("not_executed", "This request was not executed: the input file was deleted."),
}  # fmt: skip


def unasked_lines(path: Path, found: Survey, event: BatchEvent, batch_id: str) -> Iterator[bytes]:
    """Yield a line of the error file for each request that has no answer. Blocks.

    Raises: Missing; StorageFailed.
    """
    code, message = _WHY[event]
    with disk.explained(path), disk.open_plain(path) as file:
        for line in read_lines(file):
            if line.place < len(found.file) and not found.answered(line.place):
                name = derived_id("batch_req_", made_at(batch_id), batch_id, str(line.place))
                error = {"code": code, "message": message}
                yield render(
                    AnswerRecord(line.place, line.custom_id, name, 0, "", msgspec.Raw(b"null"), error)
                )
