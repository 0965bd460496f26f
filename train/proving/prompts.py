"""Prompts: what training would put before an answer, against what the server does put there.

Owns the comparison of token ids. Training's are made by `train.epoch.encoding.render`, the one that every run
uses; the server's come from the server. Invariant: a conversation that the template cannot render is left
out and counted, never taken for equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.dataset import read_sample
from train.dataset.forms.chat import written
from train.epoch.encoding import Tokenizer, render
from train.epoch.rows import Conversation, RowMessage
from train.proving.probes import ProbeTurns
from train.rendering.showing import ToolsHidden


@dataclass(frozen=True, slots=True)
class ProofPrompt:
    """One prompt: its messages as the API takes them, and the ids that training puts before the answer."""

    messages: tuple[dict[str, Any], ...]
    ids: tuple[int, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where a prompt differs: `position` is the first token that does (the length of the shorter)."""

    prompt: int
    position: int
    trained: tuple[int, ...]
    served: tuple[int, ...]


def training_prompts(
    conversations: Sequence[ProbeTurns], tokenizer: Tokenizer
) -> tuple[list[ProofPrompt], list[str]]:
    """Return a prompt per answer, and why conversations could not be rendered."""
    found, left_out = [], []
    for index, conversation in enumerate(conversations):
        for turns in _up_to_each_answer(conversation):
            try:
                found.append(_prompt(turns, tokenizer))
            except ValueError as error:
                left_out.append(f"conversation {index + 1}: {error}")
    return found, left_out


def tool_prompts(
    rows: Sequence[Mapping[str, Any]], tokenizer: Tokenizer
) -> tuple[list[ProofPrompt], list[str]]:
    """Return a prompt per answer of rows with tools, and why some could not be rendered.

    None where the template shows no tools: such rows cannot be trained on either.
    """
    found: list[ProofPrompt] = []
    left_out = []
    for index, row in enumerate(rows, start=1):
        sample = read_sample(row)
        for at, turn in enumerate(sample.messages):
            if turn.role != "assistant":
                continue
            turns = (*(one.unlearnt() for one in sample.messages[:at]), turn)
            try:
                (example,) = render(Conversation(0, turns, sample.tools), tokenizer)
            except ToolsHidden:
                break
            except ValueError as error:
                left_out.append(f"conversation with tools {index}: {error}")
                continue
            messages = tuple(_asked(one) for one in turns[:-1])
            found.append(
                ProofPrompt(messages, example.ids[: len(example.ids) - example.learnt], sample.tools)
            )
    return found, left_out


def whole_ids(conversations: Sequence[ProbeTurns], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the token ids of whole conversations, as far as they can be rendered."""
    found: list[list[int]] = []
    for conversation in conversations:
        try:
            found += [list(one.ids) for one in render(_row(conversation), tokenizer, "last")]
        except ValueError:
            continue
    return found


def deviation(number: int, prompt: ProofPrompt, served: Sequence[int]) -> Deviation | None:
    """Return where the served ids leave the trained ones, None where they are equal."""
    if tuple(served) == prompt.ids:
        return None
    pairs = zip(prompt.ids, served, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(prompt.ids), len(served)))
    return Deviation(number, at, prompt.ids[at : at + 8], tuple(served[at : at + 8]))


def _asked(turn: RowMessage) -> dict[str, Any]:
    return {key: value for key, value in written(turn).items() if key != "weight"}


def _up_to_each_answer(conversation: ProbeTurns) -> Iterator[ProbeTurns]:
    for index, (role, _) in enumerate(conversation):
        if role == "assistant":
            yield conversation[: index + 1]


def _prompt(turns: ProbeTurns, tokenizer: Tokenizer) -> ProofPrompt:
    (example,) = render(_row(turns), tokenizer)
    messages = tuple({"role": role, "content": content} for role, content in turns[:-1])
    return ProofPrompt(messages, example.ids[: len(example.ids) - example.learnt])


def _row(turns: ProbeTurns) -> Conversation:
    last = len(turns) - 1
    return Conversation(
        0, tuple(RowMessage(role, text, learn=index == last) for index, (role, text) in enumerate(turns))
    )
