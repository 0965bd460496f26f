"""A conversation as training examples: the ids that a server sends, and behind them what is learnt.

Each answer stands behind the very ids that the server sends for the turns before it, and ends with the first
token at which the server stops. An answer whose prompt begins with the example before it, its end included,
goes on with that example: a template that never changes earlier turns gives one example per conversation, and
no shared prefix is computed twice. Where a template changes them, an answer begins an example of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from train.dataset.records import Message, Row
from train.rendering.answers import answer_text
from train.rendering.ends import GENERATION_CONFIG, stops_of
from train.rendering.interface import IGNORED, Labelled, Tokenizer, Unrenderable
from train.rendering.showing import require_shown
from train.rendering.template import Template
from train.settings.data import Answers


def render(row: Row, tokenizer: Tokenizer, answers: Answers = "all") -> tuple[Labelled, ...]:
    """Return the examples of `row`: of the answers that are learnt, all or only the `last`.

    Raises: Unrenderable: a message holds a special token, the template refuses the conversation, leaves out
        tools or calls, or writes an answer that the server would not end.
    """
    refuse_special_tokens(row, tokenizer)
    require_shown(row, tokenizer)
    template, stops = Template(tokenizer, row.tools), stops_of(tokenizer)
    learnt = [index for index, message in enumerate(row.messages) if message.learn]
    examples: list[_Growing] = []
    for index in learnt if answers == "all" else learnt[-1:]:
        try:
            prompt, answer = _ids_of(template, tokenizer, stops, row.messages[: index + 1])
        except Unrenderable as error:
            raise Unrenderable(f"messages[{index}]: {error}", error.remedy) from error
        if not examples or not examples[-1].grow(index, prompt, answer):
            examples.append(_Growing(index, prompt, answer))
    return tuple(one.done() for one in examples)


class _Growing:
    """One example, and how an answer that goes on with it is added."""

    def __init__(self, index: int, prompt: list[int], answer: list[int]) -> None:
        self._answers = [index]
        self._ids = prompt + answer
        self._labels = [IGNORED] * len(prompt) + answer

    def grow(self, index: int, prompt: list[int], answer: list[int]) -> bool:
        """Add the answer `messages[index]` if its prompt begins with this example; tell whether it did."""
        if prompt[: len(self._ids)] != self._ids:
            return False
        self._answers.append(index)
        self._labels += [IGNORED] * (len(prompt) - len(self._ids)) + answer
        self._ids = prompt + answer
        return True

    def done(self) -> Labelled:
        return Labelled(tuple(self._ids), tuple(self._labels), tuple(self._answers))


def _ids_of(
    template: Template, tokenizer: Tokenizer, stops: frozenset[int], messages: Sequence[Message]
) -> tuple[list[int], list[int]]:
    """Return the ids of the server's prompt, and of the answer with its end."""
    prompt = template.prompt(messages[:-1])
    text = answer_text(template, messages, prompt)
    before = ids_of(tokenizer, prompt)
    behind = _behind(tokenizer, prompt, before, text)
    for position, one in enumerate(behind):
        if one in stops:
            return before, behind[: position + 1]
    end = _end_by_next_turn(template, tokenizer, messages, prompt + text)
    if end in stops:
        return before, [*behind, end]
    raise _endless(tokenizer, stops, behind[-1:] if end is None else [end])


def _behind(tokenizer: Tokenizer, prompt: str, before: list[int], answer: str) -> list[int]:
    """Return the ids of `answer` behind the prompt's, which are `before` and stay as they are."""
    whole = ids_of(tokenizer, prompt + answer)
    if whole[: len(before)] == before:
        return whole[len(before) :]
    # A token would span prompt and answer, and the server has sent the prompt's ids by then.
    alone = ids_of(tokenizer, answer)
    decode: Any = getattr(tokenizer, "decode", None)
    if decode is not None and decode(before + alone) == decode(whole):
        return alone
    raise Unrenderable("the tokens of the prompt change when the answer follows")


def _end_by_next_turn(
    template: Template, tokenizer: Tokenizer, messages: Sequence[Message], written: str
) -> int | None:
    """Return the token that begins the next turn, where that is what ends an answer."""
    follows = Message("tool", "…", learn=False) if messages[-1].calls else Message("user", "…", learn=False)
    try:
        whole = template.answered([*messages, follows])
    except Unrenderable:
        return None
    if not whole.startswith(written):
        return None
    return next(iter(ids_of(tokenizer, whole[len(written) :])), None)


def _endless(tokenizer: Tokenizer, stops: frozenset[int], last: Sequence[int]) -> Unrenderable:
    decode: Any = getattr(tokenizer, "decode", lambda ids: f"token {ids[0]}")
    known = ", ".join(f"{decode([one])} ({one})" for one in sorted(stops)) or "none"
    ends = f"{decode([last[0]])!r} (id {last[0]})" if last else "nothing"
    return Unrenderable(
        f"it has no end-of-turn token at which the server stops: the chat template ends it with {ends}, "
        f"the server stops at {known}",
        f"name the template's end of a turn in eos_token_id of the base's {GENERATION_CONFIG}",
    )


def message_ends(row: Row, tokenizer: Tokenizer, example: Labelled) -> list[int]:
    """Return how many of an example's ids the conversation up to each message's end has; for display.

    Of the messages up to its last answer. Where a template changes earlier text, it is how many tokens stay
    the same; where it cannot show a conversation that stops there, none more than before.
    """
    template = Template(tokenizer, row.tools)
    ends = [0]
    for index in range(example.answers[-1] + 1):
        try:
            text = template.answered(row.messages[: index + 1])
        except Unrenderable:
            ends.append(ends[-1])
            continue
        ends.append(max(ends[-1], shared(ids_of(tokenizer, text), example.ids)))
    return ends[1:]


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def refuse_special_tokens(row: Row, tokenizer: Tokenizer) -> None:
    """Refuse a conversation with a special token in what somebody says.

    Raises: Unrenderable.
    """
    for index, message in enumerate(row.messages):
        for token in tokenizer.all_special_tokens:
            if any(token in text for text in message.texts):
                raise Unrenderable(f"messages[{index}].content holds the special token {token}")


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a rendered text."""
    # The template writes the special tokens itself: adding them again would double the first one.
    return list(tokenizer(text, add_special_tokens=False).input_ids)
