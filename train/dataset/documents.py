"""The JSON documents of the data commands: what `--json` prints and what a report's JSON file holds."""

from __future__ import annotations

from collections import defaultdict
from typing import Self

from registry.api.documents import Document
from train.dataset.checks.check import Checked, FileCount
from train.dataset.checks.findings import Finding
from train.dataset.checks.first import FirstRow
from train.dataset.checks.lengths import Lengths
from train.dataset.mask import MaskedRow


class ExampleDocument(Document):
    """One place where something was found, and the sentence about it."""

    file: str
    row: int
    fact: str


class FindingDocument(Document):
    """One kind of finding: every row of every file, and sentences about the first ones.

    `accepted` of `count` were accepted by a person.
    """

    id: str
    severity: str
    title: str
    remedy: str
    count: int
    accepted: int
    rows: dict[str, list[int]]
    examples: list[ExampleDocument]

    @classmethod
    def of(cls, found: Finding, checked: Checked) -> Self:
        """Describe a finding."""
        ledger = checked.ledger
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for place in sorted(set(found.places)):
            file, row = ledger.locate(place)
            rows[file].append(row)
        examples = (
            ExampleDocument(file=file, row=row, fact=fact)
            for (file, row), fact in ((ledger.locate(place), fact) for place, fact in sorted(found.examples))
        )
        rule = found.rule
        return cls(
            id=rule.id,
            severity=rule.severity.value,
            title=rule.title,
            remedy=rule.remedy,
            count=found.count,
            accepted=checked.accepted(found),
            rows=dict(rows),
            examples=list(examples),
        )


class DataReport(Document):
    """What a check found; `ok` is False where any finding is an error that is not in `accepted`."""

    ok: bool
    files: list[FileCount]
    rows: int
    unreadable: int
    distinct: int
    sets: int
    compared: int
    base: str | None
    max_length: int | None
    lengths: dict[str, Lengths]
    turns: dict[int, int]
    labels: dict[str, int]
    length_bias: float | None
    accepted: list[str]
    first: list[FirstRow]
    findings: list[FindingDocument]

    @property
    def several(self) -> bool:
        """Tell whether rows must be named with their file: there are several, or a folder of them."""
        named = {name for found in self.findings for name in found.rows}
        return len(self.files) > 1 or bool(named - {file.path for file in self.files})

    @classmethod
    def of(cls, checked: Checked, base: str | None, max_length: int | None) -> Self:
        """Describe a check; `base` and `max_length` are those that it rendered with."""
        summary = checked.summary
        measured = {
            "questions": summary.questions,
            "answers": summary.answers,
            "tokens": summary.tokens,
            "learnt": summary.learnt,
        }
        return cls(
            ok=checked.ok,
            files=list(summary.files),
            rows=summary.rows,
            unreadable=summary.unreadable,
            distinct=summary.distinct,
            sets=summary.sets,
            compared=summary.compared,
            base=base,
            max_length=max_length,
            lengths={name: found for name, found in measured.items() if found},
            turns=summary.turns,
            labels=summary.labels,
            length_bias=summary.length_bias,
            accepted=list(checked.acceptance.written),
            first=list(summary.first),
            findings=[FindingDocument.of(found, checked) for found in checked.findings],
        )


class SplitDocument(Document):
    """A split: rows by part; `digest` and `dataset` are null where it was not stored in a root."""

    rows: dict[str, int]
    clusters: int
    digest: str | None
    created: bool
    dataset: str | None
    out: str | None


class TokenDocument(Document):
    """One token, whether it is trained on, and why."""

    id: int
    text: str
    trained: bool
    why: str


class MaskedDocument(Document):
    """The tokens of one conversation of a row."""

    row: int
    part: str
    trained: int
    tokens: list[TokenDocument]

    @classmethod
    def of(cls, masked: MaskedRow) -> Self:
        """Describe a masked row."""
        tokens = [
            TokenDocument(id=token.id, text=token.text, trained=token.why.learnt, why=token.why.value)
            for token in masked.tokens
        ]
        trained = sum(token.trained for token in tokens)
        return cls(row=masked.row, part=masked.part, trained=trained, tokens=tokens)
