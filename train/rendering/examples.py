"""A conversation as training examples: the ids that a server sends, and behind them what is learnt.

Each answer stands behind the very ids that the server sends for the turns before it, and ends with the first
token at which the server stops. An answer whose prompt begins with the example before it, its end included,
goes on with that example: a template that never changes earlier turns gives one example per conversation, and
no shared prefix is computed twice. Where a template changes them, an answer begins an example of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from train.dataset.records import Conversation, RowMessage
from train.rendering.answers import answer_text, thought_apart
from train.rendering.ends import GENERATION_CONFIG, stops_of
from train.rendering.interface import IGNORED, LabelledTokens, Tokenizer, Tools, Unrenderable
from train.rendering.showing import require_shown
from train.rendering.template import Template
from train.rendering.tokens import TokenizedText, Tokens, tokens_of
from train.settings.data import Answers

_ELLIPSIS = "…"


def render(row: Conversation, tokenizer: Tokenizer, answers: Answers = "all") -> tuple[LabelledTokens, ...]:
    """Return the examples of `row`: of the answers that are learnt, all or only the `last`.

    Raises: Unrenderable: a message holds a special token, the template refuses the conversation, leaves out
        tools or calls, or writes an answer that the server would not end.
    """
    scribe = _Scribe(row, tokenizer)
    learnt = [index for index, message in enumerate(row.messages) if message.learn]
    examples: list[_Growing] = []
    for index in learnt if answers == "all" else learnt[-1:]:
        try:
            said = scribe.say(index)
        except Unrenderable as error:
            raise Unrenderable(f"messages[{index}]: {error}", error.remedy) from error
        if not examples or not examples[-1].grow(index, said):
            examples.append(_Growing(index, said))
    return tuple(one.done() for one in examples)


def prompt_ids(messages: Sequence[RowMessage], tokenizer: Tokenizer, tools: Tools = ()) -> list[int]:
    """Return the ids that the server puts before its answer to `messages`.

    Raises: Unrenderable.
    """
    return list(tokens_of(tokenizer).ids(Template(tokenizer, tools).prompt(messages)))


@dataclass(frozen=True, slots=True)
class _Said:
    """The ids of the server's prompt, and of the answer with its end; `whole`: with its reasoning, if any."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    whole: bool


class _Growing:
    """One example, and how an answer that goes on with it is added."""

    def __init__(self, index: int, said: _Said) -> None:
        self._answers = [index]
        self._thoughtless = [] if said.whole else [index]
        self._ids = said.prompt + said.answer
        self._labels = (IGNORED,) * len(said.prompt) + said.answer

    def grow(self, index: int, said: _Said) -> bool:
        """Add the answer `messages[index]` if its prompt begins with this example; tell whether it did."""
        if said.prompt[: len(self._ids)] != self._ids:
            return False
        self._answers.append(index)
        self._thoughtless += [] if said.whole else [index]
        self._labels += (IGNORED,) * (len(said.prompt) - len(self._ids)) + said.answer
        self._ids = said.prompt + said.answer
        return True

    def done(self) -> LabelledTokens:
        return LabelledTokens(self._ids, self._labels, tuple(self._answers), tuple(self._thoughtless))


class _Scribe:
    """Writes down the answers of one row, in their order."""

    def __init__(self, row: Conversation, tokenizer: Tokenizer) -> None:
        self._messages = row.messages
        self._template = Template(tokenizer, row.tools)
        self._tokens = tokens_of(tokenizer)
        self._stops = stops_of(tokenizer)
        self._before: TokenizedText | None = None
        refuse_special_tokens(row, self._tokens)
        require_shown(row, tokenizer)

    def say(self, index: int) -> _Said:
        messages = self._messages[: index + 1]
        prompt = self._template.prompt(messages[:-1])
        text = answer_text(self._template, messages, prompt)
        before = self._tokens.write(prompt, self._before)
        behind = self._tokens.added(before, text)
        exact = behind is not None
        if behind is None:
            behind = self._alone(before, text)
        for position, one in enumerate(behind):
            if one in self._stops:
                behind = behind[: position + 1]
                break
        else:
            end = self._end_by_next_turn(messages)
            if end not in self._stops:
                raise _endless(self._tokens, self._stops, behind if end is None else (*behind, end))
            behind, text = (*behind, end), text + self._tokens.marks.get(end, "")
        self._before = self._after(before, behind, text, exact=exact)
        return _Said(before.ids, behind, whole=thought_apart(messages[-1]).reasoning.strip() in text)

    def _after(
        self, before: TokenizedText, behind: tuple[int, ...], text: str, *, exact: bool
    ) -> TokenizedText | None:
        """Return what stands there when the answer has ended; None where its letters are not known."""
        end = self._tokens.marks.get(behind[-1])
        at = -1 if end is None else text.find(end)
        if end is None or at < 0:
            return None
        return TokenizedText(before.text + text[: at + len(end)], before.ids + behind, exact)

    def _alone(self, before: TokenizedText, answer: str) -> tuple[int, ...]:
        """Return the ids of an answer that would share a token with the prompt, which is sent by then."""
        alone = self._tokens.ids(answer)
        if self._tokens.decode(before.ids + alone) != self._tokens.decode(
            self._tokens.ids(before.text + answer)
        ):
            raise Unrenderable("the tokens of the prompt change when the answer follows")
        return alone

    def _end_by_next_turn(self, messages: Sequence[RowMessage]) -> int | None:
        """Return the token that begins the turn behind an answer, where that is what ends it."""
        answer = messages[-1] if messages[-1].calls else replace(messages[-1], content=_ELLIPSIS)
        given = [*messages[:-1], replace(answer, reasoning="")]
        follows = RowMessage("tool" if answer.calls else "user", _ELLIPSIS, learn=False)
        try:
            written, whole = self._template.answered(given), self._template.answered([*given, follows])
        except Unrenderable:
            return None
        if not whole.startswith(written):
            return None
        return next(iter(self._tokens.ids(whole[len(written) :])), None)


def _endless(tokens: Tokens, stops: frozenset[int], written: tuple[int, ...]) -> Unrenderable:
    known = ", ".join(f"{tokens.decode((one,))} ({one})" for one in sorted(stops)) or "nothing"
    mark = next((one for one in written if one in tokens.marks), written[-1] if written else None)
    ends = "nothing" if mark is None else f"{tokens.decode((mark,))!r} (id {mark})"
    return Unrenderable(
        f"it has no end-of-turn token at which the server stops: the chat template ends it with {ends}, "
        f"the server stops at {known}",
        f"name the template's end of a turn in eos_token_id of the base's {GENERATION_CONFIG}",
    )


def refuse_special_tokens(row: Conversation, tokens: Tokens) -> None:
    """Refuse a conversation with a special token in what somebody says.

    Raises: Unrenderable.
    """
    for index, message in enumerate(row.messages):
        thoughts = message.role == "assistant"
        for text in message.texts:
            if token := tokens.special_in(text, thoughts=thoughts):
                raise Unrenderable(f"messages[{index}].content holds the special token {token}")


def message_ends(row: Conversation, tokenizer: Tokenizer, example: LabelledTokens) -> list[int]:
    """Return how many of an example's ids the conversation up to each message's end has; for display.

    Of the messages up to its last answer. Where a template changes earlier text, it is how many tokens stay
    the same; where it cannot show a conversation that stops there, none more than before.
    """
    template, tokens = Template(tokenizer, row.tools), tokens_of(tokenizer)
    ends = [0]
    for index in range(example.answers[-1] + 1):
        try:
            text = template.answered(row.messages[: index + 1])
        except Unrenderable:
            ends.append(ends[-1])
            continue
        ends.append(max(ends[-1], shared(tokens.ids(text), example.ids)))
    return ends[1:]


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
