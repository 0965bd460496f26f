"""Rows of training data: a file in, conversations out.

Owns what supervised training takes and its error messages; knows no tokenizer. The forms are those of
`train.dataset.forms`: `{"messages": [{"role": …, "content": …, "weight": 0|1}, …]}`, where `weight: 0`
keeps an answer from being learnt, ShareGPT's `conversations`, Alpaca's `instruction/input/output`, and
`prompt/completion` with an optional `context`. Invariant: every row that comes out has at least one answer
to learn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from registry.errors import UsageError
from train.dataset.checks.uses import require_uses
from train.dataset.forms import read_sample
from train.dataset.forms.hints import guess
from train.dataset.forms.mapping import PLAIN, RowMapping, require_columns
from train.dataset.records import ROLES, CanonicalRow, Conversation, Malformed, RowKind, RowMessage
from train.dataset.sources import RawRow, Where, name_row, read_lines

__all__ = ["ROLES", "Conversation", "RowMessage", "hash_file", "read_rows", "row_error"]

_REMEDY = 'write {"messages": [{"role": …, "content": …}]} or {"prompt": …, "completion": …}'


def read_rows(path: Where, reading: RowMapping = PLAIN) -> list[Conversation]:
    """Read every row of the file at `path`; blank lines are skipped.

    Raises: UsageError: naming file and row, for anything that is not a form of supervised training.
    """
    require_columns(path, reading)
    rows = [_read_row(path, line, reading) for line in read_lines(path)]
    if not rows:
        raise UsageError(str(path), "holds no rows", "write one JSON object per line")
    return rows


def hash_file(path: Path) -> str:
    """Return the SHA-256 (hex) of the bytes of the file at `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def row_error(path: Where, number: int, fact: str | ValueError, remedy: str) -> UsageError:
    """Build the error about one row, so that all of them read alike; a fault's own remedy goes first."""
    return UsageError(name_row(path, number), str(fact), getattr(fact, "remedy", "") or remedy)


def _read_row(path: Where, line: RawRow, reading: RowMapping) -> Conversation:
    try:
        parsed = line.parse()
    except Malformed as error:
        raise row_error(path, line.number, error, "write one JSON object per line") from error
    try:
        sample = _supervised(parsed, reading)
        return Conversation(line.number, sample.messages, sample.tools)
    except Malformed as error:
        raise row_error(path, line.number, error, _REMEDY) from error


def _supervised(parsed: object, reading: RowMapping) -> CanonicalRow:
    sample = read_sample(parsed, reading)
    if sample.form.kind is not RowKind.SUPERVISED:
        keys = sorted(parsed) if isinstance(parsed, dict) else ()
        remedy = _other_method(sample.form.kind, keys)
        fact = f"has the keys {keys}: {sample.form.kind.value}, not supervised training"
        raise Malformed(fact, "D-FORM", remedy)
    require_uses(sample, reading.accept)
    return sample


def _other_method(kind: RowKind, keys: Sequence[str]) -> str:
    """Return what to do with a row that supervised training does not take."""
    if kind is RowKind.KTO:
        return "use method: kto, which learns from ratings, or leave the rated rows out"
    if kind is RowKind.PREFERENCE:
        return "use method: dpo (or orpo, reward), which learns from pairs"
    asked, answered = guess(keys)
    if asked is None or answered is None:
        return "use method: pretrain, or write rows of a question and an answer"
    return f"map its columns (columns: {{prompt: {asked}, completion: {answered}}}), or use method: pretrain"
