"""One answer behind its prompt, as token ids: what pairs, ratings and reinforcement have in common.

Owns where a prompt ends and its answer begins. Both come from `train.epoch.encoding.render`: the prompt
is exactly what the server gets, the answer ends with its end-of-turn token, and what the template writes
behind it is left out. Invariant: at least one token of the answer is left, or the row is refused by its
number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from registry.errors import UsageError
from train.dataset.checks.uses import require_uses
from train.dataset.containers.place import Where
from train.dataset.forms import read_sample
from train.dataset.forms.mapping import PLAIN, RowMapping, require_columns
from train.dataset.records import CanonicalRow, Conversation, Malformed, RowKind, RowMessage
from train.dataset.sources import read_lines
from train.epoch.encoding import Tokenizer, render_row
from train.epoch.rows import row_error
from train.rendering.interface import Tools


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt and one answer; `whole` counts their tokens before anything was cut off."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    whole: int


def read_samples(
    path: Where, kinds: Sequence[RowKind], remedy: str, reading: RowMapping = PLAIN
) -> Iterator[tuple[int, CanonicalRow]]:
    """Yield every row of the file at `path` with its number; only rows of `kinds` are taken.

    Raises: UsageError: naming file and row; a file without rows.
    """
    require_columns(path, reading)
    number = None
    for line in read_lines(path):
        number = line.number
        try:
            parsed = line.parse()
            sample = read_sample(parsed, reading)
            require_uses(sample, reading.accept)
        except Malformed as error:
            raise row_error(path, number, error, remedy) from error
        if sample.form.kind not in kinds:
            fact = f"has the keys {sorted(parsed)}: {sample.form.kind.value}, which this method does not take"
            raise row_error(path, number, fact, remedy)
        yield number, sample
    if number is None:
        raise UsageError(str(path), "holds no rows", "write one JSON object per line")


def render_answer(
    path: Where,
    number: int,
    prompt: Sequence[RowMessage],
    answer: Sequence[RowMessage],
    tokenizer: Tokenizer,
    tools: Tools = (),
) -> Answered:
    """Return the ids of `prompt`, with `tools`, and of the one turn `answer`, nothing cut off.

    Raises: UsageError: naming file and row: an answer of several turns, or one that cannot be rendered.
    """
    if len(answer) != 1 or answer[0].role != "assistant":
        roles = ", ".join(message.role for message in answer)
        fact = f"has an answer of the turns {roles or 'none'}, not one assistant turn"
        raise row_error(path, number, fact, "put the earlier turns into the prompt")
    turns = (*(turn.unlearnt() for turn in prompt), replace(answer[0], learn=True))
    (one,) = render_row(path, Conversation(number, turns, tuple(tools)), tokenizer)
    first = len(one.ids) - one.learnt
    return Answered(one.ids[:first], one.ids[first:], len(one.ids))


def cut_answer(path: Where, number: int, answered: Answered, max_length: int) -> Answered:
    """Return `answered` with at most `max_length` tokens in all.

    Raises: UsageError: naming file and row: no token of the answer is left.
    """
    room = max_length - len(answered.prompt_ids)
    if room <= 0:
        fact = (
            f"an answer begins at token {len(answered.prompt_ids) + 1}, and max_length {max_length} "
            "cuts it off entirely"
        )
        raise row_error(path, number, fact, f"raise max_length to {answered.whole} or shorten the row")
    return Answered(answered.prompt_ids, answered.answer_ids[:room], answered.whole)
