"""Held-out rows, and the questions that they are: what the old model is asked and the new one is judged by.

Owns which rows are held out and in which order they are asked. Invariants: the same files give the same rows
and the same order; a row that is asked is not trained on, and no row like it either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from registry.storage import disk, files
from train.dataset.containers.place import DataPath
from train.dataset.forms import read_prompt
from train.dataset.forms.chat import written
from train.dataset.records import CanonicalRow, Malformed
from train.dataset.sources import read_lines
from train.evaluation.formats.suites import NEEDS_EXPECTED
from train.migrating.fetching import FetchedFiles
from train.migrating.folder import MigratedJob

MOST_ITEMS = 1_000
SUITE = "held-out"
LONGEST_LABEL = 40
"""Characters: answers up to this length in one line are compared whole, longer ones by ROUGE-L."""
_OF_THE_ROW = frozenset({"messages", "tools", "parallel_tool_calls", "functions", "prompt", "completion"})


def hold_out_rows(job: MigratedJob, found: FetchedFiles, share: float) -> tuple[Path, Path | None]:
    """Return the rows to train on and those held out: the validation file, else `share` of the training file.

    The second is None where the rows are too few or too like each other; then a note says so.

    Raises: UsageError: a row that training could not read; StorageFailed.
    """
    assert found.train is not None
    if found.validation is not None:
        return found.train, found.validation
    if not (disk.exists(job.train) and disk.exists(job.held_out)):
        try:
            rows = _chosen(found.train, share)
        except UsageError as error:
            if error.param != "data.eval":
                raise
            found.notes.append(f"no rows are held out, so nothing can be compared: {error}")
            return found.train, None
        for path, inside in ((job.train, False), (job.held_out, True)):
            files.remove(path)  # of a run that was killed between the two, perhaps with another share
            job.put(path, _lines(found.train, rows, inside=inside))
    return job.train, job.held_out


def write_questions(job: MigratedJob, held_out: Path, method: Mapping[str, Any], answer_tokens: int) -> int:
    """Write the items and the suite of a job, and return how many rows ask nothing that can be asked.

    Raises: UsageError: the job's grader is none; StorageFailed.
    """
    items, left_out = _items(held_out)
    suite: dict[str, Any] = {
        "name": SUITE,
        "items": job.items.name,
        "sampling": {"max_tokens": answer_tokens},
        "graders": graders(items, method),
    }
    for item in items:
        if "expected" not in item and suite["graders"][0]["type"] in NEEDS_EXPECTED:
            item["graders"] = []
    files.make_directory(job.folder)
    files.replace(job.items, b"".join(json.dumps(item).encode() + b"\n" for item in items))
    files.replace(job.suite, json.dumps(suite, indent=1).encode())
    return left_out


def graders(items: Sequence[dict[str, Any]], method: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what judges the answers: the job's own grader, else calls, whole answers, or ROUGE-L."""
    inner = method.get(str(method.get("type")))
    grader = inner.get("grader") if isinstance(inner, Mapping) else None
    if isinstance(grader, Mapping):
        return [{"type": "openai", "name": "reward", "grader": dict(grader)}]
    calling = [item for item in items if item.get("calls")]
    if len(calling) * 2 > len(items) and all(item.get("tools") for item in items):
        for item in items:
            item.setdefault("calls", [])  # no call is right where none was made
        return [{"type": "calls"}]
    answers = [str(item.get("expected", "")) for item in items]
    short = all(len(text) <= LONGEST_LABEL and "\n" not in text for text in answers)
    return [{"type": "exact" if short else "rouge_l"}]


def _chosen(path: Path, share: float) -> frozenset[int]:
    from train.epoch.holdout import hold_out
    from train.settings.data import DataSettings

    settings = DataSettings.model_validate({"train": {"path": str(path), "name": "train"}})
    return frozenset(hold_out(settings, share, 0).numbers["train"])


def _lines(path: Path, rows: frozenset[int], *, inside: bool) -> Iterator[bytes]:
    for line in read_lines(DataPath(path)):
        if (line.number in rows) is inside:
            yield line.data.rstrip(b"\r\n") + b"\n"


def _items(held_out: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the items, in an order that their text decides, and how many rows are none."""
    items, left_out = [], 0
    for line in read_lines(DataPath(held_out)):
        try:
            row = line.parse()
            sample, answered = read_prompt(row)
        except Malformed:
            left_out += 1
            continue
        item = _item(line.number, row, sample, answered=answered)
        if item is None:
            left_out += 1
        else:
            items.append(item)
    return sorted(items, key=_drawn)[:MOST_ITEMS], left_out


def _item(
    number: int, row: Mapping[str, Any], sample: CanonicalRow, *, answered: bool
) -> dict[str, Any] | None:
    turns = [{key: one for key, one in written(turn).items() if key != "weight"} for turn in sample.prompt]
    if not turns or turns[-1]["role"] not in {"user", "tool"}:
        return None
    item: dict[str, Any] = {"id": str(number), "messages": turns}
    if sample.tools:
        item["tools"] = [dict(tool) for tool in sample.tools]
    if data := {key: value for key, value in row.items() if key not in _OF_THE_ROW}:
        item["data"] = data
    if answered and sample.answer:
        answer = sample.answer[0]
        if answer.calls:
            item["calls"] = [
                {"name": one.name, "arguments": json.loads(one.arguments)} for one in answer.calls
            ]
        if answer.content:
            item["expected"] = answer.content
    return item


def _drawn(item: Mapping[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps(item["messages"], sort_keys=True).encode() + item["id"].encode()
    ).hexdigest()
