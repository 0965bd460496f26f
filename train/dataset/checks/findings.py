"""The catalogue of findings, and the ledger that collects them.

Owns the ids, their severity and their remedy. Invariants: every finding has an entry in `CATALOGUE`; the
ledger keeps every row of every finding (8 bytes each) and the sentences of the first `EXAMPLES` of each;
no sentence shows a personal datum or a secret in full.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from train.dataset.checks.personal import hide

EXAMPLES = 20
_FILE_SHIFT = 40


class Severity(Enum):
    """How bad a finding is: an error makes `data check` end with 1."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class FindingRule:
    """One kind of finding; `title` says what is wrong, `remedy` what to do."""

    id: str
    severity: Severity
    title: str
    remedy: str


@dataclass(slots=True)
class Finding:
    """Every row of one kind; `examples` are (place, sentence) of the first ones."""

    rule: FindingRule
    places: array[int] = field(default_factory=lambda: array("Q"))
    examples: list[tuple[int, str]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Return how often it was found."""
        return len(self.places)


class FindingLedger:
    """All findings of one check over `files`, by id."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = tuple(files)
        self._found: dict[str, Finding] = {}
        self._shards: list[tuple[int, str, int]] = []

    def begin_shard(self, file: int, path: str, offset: int) -> None:
        """Note that the rows of `file` behind `offset` lie in the file at `path`, counted there from 1."""
        self._shards.append((pack(file, offset), path, offset))

    def locate(self, place: int) -> tuple[str, int]:
        """Return the file that the row at `place` lies in, and its row there."""
        file, row = unpack(place)
        at = bisect.bisect_left(self._shards, place, key=lambda shard: shard[0]) - 1
        if at < 0 or unpack(self._shards[at][0])[0] != file:
            return self.files[file], row
        _, path, offset = self._shards[at]
        return path, row - offset

    def add(self, rule: str, place: int, fact: str) -> None:
        """Note that the row at `place` breaks `rule`; `fact` says how, without the row's number.

        Raises: KeyError: for an id that the catalogue does not have.
        """
        found = self._found.get(rule)
        if found is None:
            found = self._found[rule] = Finding(CATALOGUE[rule])
        found.places.append(place)
        if len(found.examples) < EXAMPLES:
            found.examples.append((place, hide(fact)))

    @property
    def findings(self) -> list[Finding]:
        """Return the findings, errors first, each severity by id."""
        order = list(Severity)
        return sorted(self._found.values(), key=lambda f: (order.index(f.rule.severity), f.rule.id))

    def named(self, place: int) -> str:
        """Return `row 17` or, with several files, `test.jsonl row 17`."""
        file, row = self.locate(place)
        return f"row {row}" if len(self.files) == 1 and not self._shards else f"{file} row {row}"


def pack(file: int, row: int) -> int:
    """Return file (from 0) and row (from 1) as one number that sorts by file, then row."""
    return file << _FILE_SHIFT | row


def unpack(place: int) -> tuple[int, int]:
    """Return the file (from 0) and the row (from 1) of a packed place."""
    return place >> _FILE_SHIFT, place & (1 << _FILE_SHIFT) - 1


_RULES = {
    Severity.ERROR: (
        ("D-ENCODING", "the line is not UTF-8", "save the file as UTF-8"),
        ("D-CONTAINER", "the file is of no kind that is read, or damaged", "do what the fact says"),
        ("D-CELLS", "a record does not fit its table", "quote cells that hold a separator or a line end"),
        ("D-JSON", "the line is not JSON", "write one JSON object per line"),
        ("D-TORN", "the line ends in the middle", "write the file again: a writer was stopped"),
        ("D-KEY-TWICE", "a key stands twice", "keep one: parsers differ in which they take"),
        ("D-FORM", "the keys fit no form", "map its columns (--columns), see the forms"),
        ("D-SCHEMA", "a value has a wrong type or shape", "correct the value"),
        ("D-MIXED", "rows of different kinds in one file", "put each kind in a file of its own"),
        ("D-ROLE", "an unknown role", "use system, developer, user, assistant or tool"),
        ("D-EMPTY", "an answer or text is empty", "write the answer or remove the row"),
        ("D-EMPTY-INPUT", "a question is empty", "write the question"),
        ("D-UNTRAINED", "no token of the row is trained on", "give it an answer with weight 1"),
        ("D-CUT-OFF", "max_length cuts the whole answer off", "raise max_length or shorten the row"),
        ("D-TEMPLATE", "the chat template cannot show the row", "correct the row's turns or the template"),
        ("D-MEDIA", "pictures, sounds or films", "remove the row, or accept that its text is learnt"),
        ("D-RATED", "a row that says its answer is bad", "rate it (KTO), accept it, or remove the row"),
        ("D-CALL", "a tool call that cannot be read", 'write {"name": …, "arguments": {…}}'),
        ("D-TOOL", "a call of a tool that is not in tools", "correct the name, or add the tool"),
        ("D-RESULT", "a tool's result without its call", "add the call, or name it by tool_call_id"),
        ("D-TOOLS", "the chat template cannot show tools", "give the base a template that shows them"),
        ("D-SPECIAL", "a special token of the base inside a text", "remove it: it would end the turn"),
        ("D-SURROGATE", "half a character", "repair the escape: it cannot be written as UTF-8"),
        ("D-LEAK", "the same content in two files", "split with `wardrobe data split`"),
        ("D-PREF-SAME", "chosen and rejected are equal", "remove the pair: it teaches nothing"),
        ("D-PREF-CONFLICT", "two pairs contradict each other", "keep the one that is right"),
        ("D-KTO-CONFLICT", "one answer rated both ways", "keep the rating that is right"),
        ("D-SECRET", "a key or password", "remove it and revoke it"),
        ("D-PRIVATE-KEY", "a private key", "remove it and revoke it"),
    ),
    Severity.WARNING: (
        ("D-FORMS", "rows written in different forms", "bring them into one form"),
        ("D-NO-TOOLS", "calls of tools that the row does not give", "give the row its `tools`"),
        ("D-NO-RESULT", "a call without its result", "add the turn of role tool"),
        ("D-ARGUMENTS", "arguments that do not fit the tool's schema", "correct the call or the schema"),
        ("D-ORDER", "turns out of order", "system first, then user and assistant in turn"),
        ("D-CUT", "max_length cuts the end of the answer off", "raise max_length or shorten the row"),
        ("D-MARKER", "a chat marker of some model inside a text", "remove it if it is left over"),
        ("D-MOJIBAKE", "text decoded with the wrong encoding", "replace it as shown"),
        ("D-REPLACEMENT", "characters were lost (U+FFFD)", "restore the text from its source"),
        ("D-CONTROL", "control characters", "remove them"),
        ("D-INVISIBLE", "invisible characters", "remove them unless the language needs them"),
        ("D-DUPLICATE", "the row repeats another", "keep one"),
        ("D-NEAR", "the row is almost another", "keep one if they teach the same"),
        ("D-CONFLICT", "the same input with different answers", "keep the answer that is right"),
        ("D-ECHO", "the answer repeats the question", "write the answer"),
        ("D-LENGTH", "far longer or shorter than the others", "look at the row"),
        ("D-BALANCE", "one label is most of the data", "add rows of the others, or weigh them"),
        ("D-RARE", "a label with fewer than 3 rows", "add rows or merge labels"),
        ("D-SPELLING", "labels that differ in case or spaces only", "spell them alike"),
        ("D-PREF-LENGTH", "the chosen answers differ in length", "balance it, or length is learnt"),
        ("D-KTO-BALANCE", "nearly all ratings are the same", "add ratings of the other kind"),
        ("D-SCORE", "a score that training does not read", "leave low ones out, or rate rows (label)"),
        ("D-EMAIL", "an e-mail address", "mask it or have consent"),
        ("D-PHONE", "a telephone number", "mask it or have consent"),
        ("D-IP", "a public IP address", "mask it"),
        ("D-CARD", "a payment card's number", "mask it"),
        ("D-IBAN", "a bank account's number", "mask it"),
        ("D-SSN", "a US social security number", "mask it"),
    ),
    Severity.INFO: (
        ("D-READ-AS", "the file is read as what it holds, not as its name says", "nothing, if that is so"),
        ("D-BOM", "the file begins with a byte order mark", "nothing: it is skipped"),
        ("D-EXTRA", "keys that training does not read", "nothing, unless they were meant as data"),
        ("D-CALL-ID", "calls without an id", "nothing: they are numbered"),
        ("D-UNUSED-ANSWER", "an answer of weight 0", "nothing: it is read and not learnt"),
    ),
}
CATALOGUE = {
    rule: FindingRule(rule, severity, title, remedy)
    for severity, rules in _RULES.items()
    for rule, title, remedy in rules
}
