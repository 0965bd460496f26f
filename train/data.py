"""From conversations to token ids and labels.

Owns the loss mask. It renders with the base model's own chat template and takes the labels by prefix
difference: what the template shows before an answer is the prompt that the server will send, what comes
after it up to the end-of-turn token is what the model must learn to say. No template needs generation
markers for that. Invariants: an answer's end-of-turn token is always learnt (else the adapter never
stops), nothing behind it is (the server stops there), and the ids before an answer are exactly the ids
that a server would send.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from registry.errors import UsageError
from train.dataset.containers.place import Where
from train.dataset.reading import PLAIN, Reading
from train.items import Item, ItemFile
from train.rows import Row, read_rows, row_error
from train.settings.data import Overflow

_Kind = TypeVar("_Kind", bound=Item)

IGNORED = -100  # torch's ignore_index: no loss at this position


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    eos_token_id: int | None
    chat_template: Any
    all_special_tokens: list[str]

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """Render `conversation` to text."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        """Tokenise `text`; the result has `input_ids`."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row ready to train on: `labels` are `input_ids`, or -100 where nothing is learnt.

    `row` is the line in its file; `truncated` tells that tokens were cut off at the end.
    """

    row: int
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    truncated: bool

    @property
    def length(self) -> int:
        """Return the number of tokens."""
        return len(self.input_ids)

    @property
    def learnt(self) -> int:
        """Return the number of tokens with a loss."""
        return sum(label != IGNORED for label in self.labels)


def load_examples(
    path: Where,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    overflow: Overflow = "truncate",
    reading: Reading = PLAIN,
) -> ItemFile[Example]:
    """Read and render every row of the file at `path`.

    Raises: UsageError: naming file and row: a malformed row, a template that the answer cannot be found
        in, an answer that `max_length` tokens cut off entirely, or, with `overflow` `error`, a row that is
        longer; a file of which every row would be dropped.
    """
    require_template(tokenizer)
    found, dropped = [], []
    for row in read_rows(path, reading):
        ids, labels = render_row(path, row, tokenizer)
        if len(ids) > max_length and overflow != "truncate":
            refuse_overflow(path, row.number, len(ids), max_length, overflow)
            dropped.append(row.number)
        else:
            found.append(cut(path, row.number, ids, labels, max_length))
    return kept(path, found, dropped, max_length)


def require_template(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer without a chat template.

    Raises: UsageError.
    """
    if not tokenizer.chat_template:
        raise UsageError("base model", "has no chat template", "use an instruct model, or give it a template")


def render_row(path: Where, row: Row, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return token ids and labels of a row (`render`), its faults told with file and row.

    Raises: UsageError.
    """
    try:
        return render(row, tokenizer)
    except ValueError as error:
        raise row_error(path, row.number, str(error), "correct the row or the chat template") from error


def refuse_overflow(path: Where, number: int, length: int, max_length: int, overflow: Overflow) -> None:
    """Refuse a row that is too long where `overflow` is `error`.

    Raises: UsageError.
    """
    if overflow == "error":
        fact = f"has {length} tokens, over max_length {max_length}, and data.overflow is error"
        raise row_error(path, number, fact, f"raise max_length to {length}, shorten the row, or drop it")


def kept(path: Where, items: Sequence[_Kind], dropped: Sequence[int], max_length: int) -> ItemFile[_Kind]:
    """Return the items of a file of which `dropped` rows were left out.

    Raises: UsageError: nothing is left.
    """
    if not items:
        fact = f"all {len(dropped)} rows are longer than max_length {max_length} and would be dropped"
        raise UsageError(str(path), fact, "raise training.max_length")
    return ItemFile(tuple(items), tuple(dropped))


def render(row: Row, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return token ids and labels of the whole conversation.

    Raises: ValueError: a message holds a special token, the text before an answer is not a prefix of the
        whole, in characters or in tokens, or an answer does not end with the end-of-turn token.
    """
    _refuse_special_tokens(row, tokenizer)
    chat = [message.chat() for message in row.messages]
    whole = _text(tokenizer, chat, prompt=False)
    ids = _ids(tokenizer, whole)
    labels = [IGNORED] * len(ids)
    for index, message in enumerate(row.messages):
        if message.learn:
            for position in _answer_positions(tokenizer, chat, index, whole, ids):
                labels[position] = ids[position]
    return ids, labels


def message_ends(row: Row, tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """Return for every message how many of `ids` the conversation up to its end has; for display.

    Where a template changes earlier text, it is how many tokens stay the same.
    """
    chat = [message.chat() for message in row.messages]
    ends = []
    for index in range(len(chat)):
        prefix = _ids(tokenizer, _text(tokenizer, chat[: index + 1], prompt=False))
        pairs = zip(prefix, ids, strict=False)
        ends.append(next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(prefix), len(ids))))
    return ends


def cut(path: Where, number: int, ids: list[int], labels: list[int], max_length: int) -> Example:
    """Return the first `max_length` tokens of a row.

    Raises: UsageError: nothing that is learnt is left.
    """
    example = Example(number, tuple(ids[:max_length]), tuple(labels[:max_length]), len(ids) > max_length)
    if example.learnt == 0:
        first = next(index for index, label in enumerate(labels) if label != IGNORED)
        fact = f"its answer begins at token {first + 1}, and max_length {max_length} cuts it off entirely"
        raise row_error(path, number, fact, f"raise max_length to {len(ids)} or shorten the row")
    return example


def _answer_positions(
    tokenizer: Tokenizer, chat: list[dict[str, Any]], index: int, whole: str, ids: list[int]
) -> Iterable[int]:
    before = _text(tokenizer, chat[:index], prompt=True)
    after = _text(tokenizer, chat[: index + 1], prompt=False) if index + 1 < len(chat) else whole
    if not (whole.startswith(after) and after.startswith(before)):
        raise ValueError(f"the chat template changes earlier text when messages[{index}] is added")
    start = _prefix_length(tokenizer, before, ids, index)
    end = _prefix_length(tokenizer, after, ids, index) if after != whole else len(ids)
    end_of_turn = tokenizer.eos_token_id  # a property that transformers looks up anew each time
    stops = [position for position in range(start, end) if ids[position] == end_of_turn]
    if not stops:
        raise ValueError(f"the chat template does not end messages[{index}] with the end-of-turn token")
    return range(start, stops[0] + 1)


def _prefix_length(tokenizer: Tokenizer, text: str, ids: list[int], index: int) -> int:
    prefix = _ids(tokenizer, text)
    if ids[: len(prefix)] != prefix:
        raise ValueError(f"the tokens before messages[{index}] change when the answer follows")
    return len(prefix)


def _refuse_special_tokens(row: Row, tokenizer: Tokenizer) -> None:
    for index, message in enumerate(row.messages):
        for token in tokenizer.all_special_tokens:
            if token in message.content:
                raise ValueError(f"messages[{index}].content holds the special token {token}")


def _text(tokenizer: Tokenizer, chat: list[dict[str, Any]], *, prompt: bool) -> str:
    if not chat and not prompt:
        return ""
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    # The template writes the special tokens itself: adding them again would double the first one.
    return list(tokenizer(text, add_special_tokens=False).input_ids)
