"""How the first row of a file was understood: its form, its columns, its turns, and what is not read.

Owns what is shown of it. A wrong mapping is seen here before anything is learnt from it.
"""

from __future__ import annotations

import itertools

from registry.api.documents import Document
from train.dataset.checks.personal import hide
from train.dataset.forms import PLAIN, RowMapping, understand
from train.dataset.records import CanonicalRow, Malformed
from train.dataset.sources import Where, read_lines

_SHOWN_CHARACTERS = 60
_SEARCHED_ROWS = 100


class FirstRow(Document):
    """How the first row of `file` that can be read was understood.

    `columns` are the row's keys by what they hold, `turns` are (role, text, learnt), shortened and masked;
    of a pair the last two are the chosen and the rejected answer. `not_read` are the keys left over.
    """

    file: str
    row: int
    form: str
    columns: dict[str, str]
    turns: list[tuple[str, str, bool]]
    liked: bool | None
    not_read: list[str]

    def lines(self) -> list[str]:
        """Return what a person reads of it."""
        named = ", ".join(key if slot == key else f"{slot}: {key}" for slot, key in self.columns.items())
        rating = {True: ", rated good", False: ", rated bad", None: ""}[self.liked]
        shown = [f"row {self.row} is {self.form} ({named}){rating}"]
        shown += [f"    {role}: {text}{'  (learnt)' if learnt else ''}" for role, text, learnt in self.turns]
        return shown + ([f"    not read: {', '.join(self.not_read)}"] if self.not_read else [])


def first_row(path: Where, reading: RowMapping = PLAIN) -> FirstRow | None:
    """Return how the first row of the file at `path` that can be read was understood.

    None where none of the first 100 can.

    Raises: UsageError: when the file cannot be read.
    """
    for line in itertools.islice(read_lines(path), _SEARCHED_ROWS):
        try:
            plan, sample = understand(line.parse(), reading)
        except Malformed:
            continue
        columns = {
            slot: reading.columns.get(key, key) for slot, key in plan.keys.items() if key not in sample.extra
        }
        turns = _turns(sample)
        return FirstRow(
            file=str(path),
            row=line.number,
            form=sample.form.value,
            columns=columns,
            turns=turns,
            liked=sample.liked,
            not_read=list(sample.extra),
        )
    return None


def _turns(sample: CanonicalRow) -> list[tuple[str, str, bool]]:
    if sample.text:
        return [("text", _short(sample.text), True)]
    if not sample.rejected:
        # An answer that is rated bad is learnt, too, but not as what to say.
        liked = sample.liked is not False
        return [(turn.role, _short(turn.said), turn.learn and liked) for turn in sample.messages]
    return [
        *((turn.role, _short(turn.said), False) for turn in sample.prompt),
        ("chosen", _short(sample.answer[0].said), True),
        ("rejected", _short(sample.rejected[0].said), False),
    ]


def _short(text: str) -> str:
    text = hide(" ".join(text.split()))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
