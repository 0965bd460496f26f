"""Prompts for reinforcement: what is asked, and what graders need to judge the answers.

Owns which rows are prompts. Rows of supervised training are: their last answer is what graders expect. So
are rows that end with the user's turn, or have a `prompt` alone. Other keys of a row go to the graders'
`data`. Invariant: the prompt's ids are exactly those that a server gets for the same turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from registry.errors import UsageError
from train.dataset.checks.uses import require_uses
from train.dataset.forms import read_prompt
from train.dataset.forms.mapping import PLAIN, RowMapping, require_columns
from train.dataset.records import Malformed, RowKind, RowMessage, ToolCall
from train.dataset.sources import RawRow, Where, read_lines
from train.epoch.encoding import Tokenizer, kept, require_template
from train.epoch.items import ItemFile
from train.epoch.rows import row_error
from train.methods.answers import render_answer
from train.rendering.interface import Tools
from train.settings.data import Overflow

_REMEDY = 'write {"messages": [… the user\'s turn]}, {"prompt": …}, or a row of supervised training'
_STAND_IN = "answer"


@dataclass(frozen=True, slots=True)
class OnlinePrompt:
    """One prompt.

    `question` is its last turn, `expected` the right answers that the row gives, `calls` the right calls of
    its `tools` (None where the row does not answer), `data` its other keys. Nothing is learnt of it and
    nothing cut off.
    """

    row: int
    prompt_ids: tuple[int, ...]
    question: str
    expected: tuple[str, ...]
    data: Mapping[str, JsonValue]
    learnt: int = 0
    truncated: bool = False
    tools: Tools = ()
    calls: tuple[ToolCall, ...] | None = None

    @property
    def length(self) -> int:
        """Return the tokens of the prompt; its answers are not known yet."""
        return len(self.prompt_ids)


def read_prompts(
    path: Where, tokenizer: Tokenizer, *, longest: int, overflow: Overflow, reading: RowMapping = PLAIN
) -> ItemFile[OnlinePrompt]:
    """Read and render every prompt of the file at `path`; one may have `longest` tokens.

    Raises: UsageError: naming file and row: a malformed row, or a prompt that is too long (with `overflow:
        drop` it is left out; a prompt is never cut); a file without prompts.
    """
    require_template(tokenizer)
    require_columns(path, reading)
    found, dropped = [], []
    for line in read_lines(path):
        prompt = _prompt(path, line, tokenizer, reading)
        if prompt.length <= longest:
            found.append(prompt)
        elif overflow == "drop":
            dropped.append(prompt.row)
        else:
            fact = f"its prompt has {prompt.length} tokens, and {longest} leave room for an answer"
            remedy = "raise max_length, lower method.max_answer_tokens, or drop it (data.overflow: drop)"
            raise row_error(path, prompt.row, fact, remedy)
    if not found and not dropped:
        raise UsageError(str(path), "holds no rows", "write one JSON object per line")
    return kept(path, found, dropped, longest)


def _prompt(path: Where, line: RawRow, tokenizer: Tokenizer, reading: RowMapping) -> OnlinePrompt:
    try:
        row = line.parse()
        sample, answered = read_prompt(row, reading)
        require_uses(sample, reading.accept)
    except Malformed as error:
        raise row_error(path, line.number, error, _REMEDY) from error
    if sample.form.kind is not RowKind.SUPERVISED:
        fact = f"has the keys {sorted(row)}: {sample.form.kind.value}, which this method does not take"
        raise row_error(path, line.number, fact, _REMEDY)
    stand_in = (RowMessage("assistant", _STAND_IN, learn=True),)
    ids = render_answer(path, line.number, sample.prompt, stand_in, tokenizer, sample.tools).prompt_ids
    answer = sample.answer[0] if answered else None
    expected = (answer.content,) if answer is not None and answer.content else ()
    calls = answer.calls if answer is not None else None
    data = {key: row[key] for key in sample.extra}
    return OnlinePrompt(
        line.number, ids, sample.prompt[-1].content, expected, data, tools=sample.tools, calls=calls
    )
