"""One pass over the files: every row parsed, read, inspected and counted.

Owns the order of the checks of a single row. Invariant: each row that is not blank ends either in the
columns or in a finding that says why it could not be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from train.dataset.checks.content import inspect_text
from train.dataset.checks.findings import FindingLedger, pack
from train.dataset.checks.personal import find_personal
from train.dataset.checks.sketches import Sketches, common_shingles
from train.dataset.checks.uses import inspect_calls
from train.dataset.columns import RowColumns, normal
from train.dataset.forms import read_sample
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.dataset.records import CanonicalRow, Malformed, RowKind, RowMessage, joined
from train.dataset.rendering import Rendering
from train.dataset.sources import RawRow, Where, read_lines, remarks, sample_lines

LABEL_CHARACTERS = 60
_MOST_LABELS = 5000
_SAMPLED_LINES = 4096


@dataclass(slots=True)
class Labels:
    """Short answers and how often each was given; `counts` is None once there are too many to be labels."""

    counts: Counter[str] | None = field(default_factory=Counter)
    others: int = 0

    def add(self, answer: str) -> None:
        """Count an answer."""
        if len(answer) > LABEL_CHARACTERS or "\n" in answer:
            self.others += 1
        elif self.counts is not None:
            self.counts[answer] += 1
            if len(self.counts) > _MOST_LABELS:
                self.counts = None


@dataclass(slots=True)
class ScannedRows:
    """What one pass found: the rows in numbers, sketches of their texts, labels, and unreadable rows."""

    columns: RowColumns
    sketches: Sketches
    labels: Labels
    unreadable: int = 0


class Scanner:
    """Scans files into a `ScannedRows`; findings about single rows go to `ledger`."""

    def __init__(
        self, ledger: FindingLedger, rendering: Rendering | None, reading: RowMapping = PLAIN
    ) -> None:
        self._ledger = ledger
        self._reading = reading
        self._rendering = rendering
        self._special = rendering.special_tokens if rendering else ()

    def scan(self, paths: Sequence[Where], sketches: Sketches, advance: Callable[[int], None]) -> ScannedRows:
        """Read every row of `paths`, and add its text to `sketches`; `advance` is told the bytes read.

        Raises: UsageError: when a file cannot be read.
        """
        found = ScannedRows(RowColumns(), sketches, Labels())
        for number, path in enumerate(paths):
            for rule, fact in remarks(path):
                self._ledger.add(rule, pack(number, 1), fact)
            shard = None
            for line in read_lines(path):
                if line.shard is not None and line.shard is not shard:
                    shard = line.shard
                    self._ledger.begin_shard(number, str(shard.file), shard.offset)
                self._row(found, pack(number, line.number), line)
                advance(line.size)
        return found

    def _row(self, found: ScannedRows, place: int, line: RawRow) -> None:
        try:
            sample = read_sample(line.parse(), self._reading)
        except Malformed as error:
            self._ledger.add(error.rule, place, f"{error}; {error.remedy}" if error.remedy else str(error))
            found.unreadable += 1
            # What cannot be read may be repaired by hand later; a secret in it must not wait for that.
            for rule, fact in find_personal(line.data.decode("utf-8", "replace")):
                self._ledger.add(rule, place, fact)
            return
        bad = False
        for rule, fact in self._inspect(sample):
            self._ledger.add(rule, place, fact)
            bad = bad or rule in {"D-SPECIAL", "D-SURROGATE"}
        tokens, learnt = self._rendered(sample, place) if not bad else (0, 0)
        found.columns.add(place, sample, tokens, learnt)
        found.sketches.add(sketched_text(sample))
        if sample.form.kind is RowKind.SUPERVISED:
            found.labels.add(answer_text(sample))

    def _rendered(self, sample: CanonicalRow, place: int) -> tuple[int, int]:
        if self._rendering is None:
            return 0, 0
        rendered = self._rendering.render(sample)
        for rule, fact in rendered.findings:
            self._ledger.add(rule, place, fact)
        return rendered.tokens, rendered.learnt

    def _inspect(self, sample: CanonicalRow) -> Iterator[tuple[str, str]]:
        yield from sample.notes
        yield from inspect_calls(sample)
        if sample.extra:
            yield "D-EXTRA", f"has the keys {', '.join(sample.extra)}"
        if ignored := {key for turn in (*sample.messages, *sample.rejected) for key in turn.ignored}:
            yield "D-EXTRA", f"its turns have the keys {', '.join(sorted(ignored))}"
        yield from inspect_turns(sample.messages)
        if sample.prompt and normal(sample.prompt[-1].said) == normal(answer_text(sample)):
            yield "D-ECHO", "the answer is the question again"
        for index, text in enumerate(sample.texts):
            for rule, fact in (*inspect_text(text, self._special), *find_personal(text)):
                yield rule, f"text {index + 1}: {fact}"


def inspect_turns(messages: Sequence[RowMessage]) -> Iterator[tuple[str, str]]:
    """Yield (rule id, fact) of what is wrong with the order and the weights of `messages`."""
    previous = ""
    for index, message in enumerate(messages):
        if message.role in {"system", "developer"} and index > 0:
            yield "D-ORDER", f"turn {index + 1} is {message.role}; only the first may be"
        elif message.role == previous != "tool":
            yield "D-ORDER", f"turns {index} and {index + 1} are both {message.role}"
        elif message.role == "assistant" and previous in {"", "system", "developer"}:
            yield "D-ORDER", f"turn {index + 1} answers before anything was asked"
        if message.role == "user" and not message.content.strip():
            yield "D-EMPTY-INPUT", f"turn {index + 1} is empty"
        if message.role == "assistant" and not message.learn and index == len(messages) - 1:
            yield "D-UNUSED-ANSWER", "its last answer has weight 0"
        previous = message.role
    if messages and messages[-1].role != "assistant":
        yield "D-ORDER", f"ends with a turn of {messages[-1].role}, which nothing answers"


def answer_text(sample: CanonicalRow) -> str:
    """Return the last learnt answer."""
    return sample.answer[0].said.strip() if sample.answer else ""


def sketched_text(sample: CanonicalRow) -> str:
    """Return what is compared with other rows: the conversation, or the document."""
    return sample.text or joined((*sample.messages, *sample.rejected))


def open_sketches(paths: Sequence[Where], reading: RowMapping = PLAIN) -> Sketches:
    """Return empty sketches that know the boilerplate of `paths`.

    Raises: UsageError: when a file cannot be read.
    """
    return Sketches(common_shingles(_sampled(paths, reading)))


def _sampled(paths: Sequence[Where], reading: RowMapping) -> Iterator[str]:
    for path in paths:
        for line in sample_lines(path, _SAMPLED_LINES // len(paths)):
            try:
                yield sketched_text(read_sample(line.parse(), reading))
            except Malformed:
                continue
