"""Rows of two answers, one of them better.

Owns where the turns that both answer come from: a question, a conversation, or what both begin with.
"""

from __future__ import annotations

from train.dataset.forms.cells import read_answer, read_spoken, read_turns
from train.dataset.forms.chat import shown
from train.dataset.forms.keys import FormPlan, KeySlot
from train.dataset.forms.supervised import Row, question_turns, with_system
from train.dataset.records import Malformed, RowMessage

Turns = tuple[RowMessage, ...]


def pair_of(row: Row, plan: FormPlan) -> tuple[Turns, Turns, Turns]:
    """Return the prompt, the chosen and the rejected answer.

    Raises: Malformed.
    """
    chosen, rejected = _answer(row, plan.keys[KeySlot.CHOSEN]), _answer(row, plan.keys[KeySlot.REJECTED])
    prompt = _prompt(row, plan)
    if not prompt and len(chosen) > 1 == len(rejected):
        # A conversation that ends with the good answer, and the bad one alone.
        rejected = (*chosen[:-1], *rejected)
    if prompt and not _repeats(prompt, chosen, rejected):
        return _without_answer(prompt, chosen), chosen, rejected
    shared, chosen, rejected = _split_shared(chosen, rejected)
    return with_system(row, plan, shared), chosen, rejected


def _answer(row: Row, key: str) -> Turns:
    return read_spoken(row[key]) or read_answer(row[key], key)


def _prompt(row: Row, plan: FormPlan) -> Turns:
    if KeySlot.QUESTION in plan.keys:
        key = plan.keys[KeySlot.QUESTION]
        if isinstance(row[key], dict) and "messages" in row[key]:
            return read_turns(row[key]["messages"], f"{key}.messages", learn=False)
        return question_turns(row, plan)
    if KeySlot.CONVERSATION in plan.keys:
        key = plan.keys[KeySlot.CONVERSATION]
        return with_system(row, plan, read_turns(row[key], key, learn=False))
    return ()


def _repeats(prompt: Turns, chosen: Turns, rejected: Turns) -> bool:
    """Tell whether both conversations hold the question too, as UltraFeedback's do."""
    asked = [turn.content for turn in prompt if turn.role != "assistant"][-1:]
    return all(len(one) > 1 and [one[-2].content] == asked for one in (chosen, rejected))


def _without_answer(prompt: Turns, chosen: Turns) -> Turns:
    """Return `prompt` without the chosen answer, where it is a conversation that ends with it."""
    if prompt[-1].role != "assistant" or len(prompt) == 1:
        return prompt
    if prompt[-1].content.strip() != chosen[0].content.strip():
        last = shown(prompt[-1].content)
        raise Malformed(f"has a conversation that ends with the answer {last}, which is not the chosen one")
    return prompt[:-1]


def _split_shared(chosen: Turns, rejected: Turns) -> tuple[Turns, Turns, Turns]:
    """Take the turns that both begin with for the prompt, as TRL does."""
    last = len(chosen) - 1
    shared = tuple(turn.unlearnt() for turn in chosen[:last])
    if (
        not shared
        or len(rejected) != len(chosen)
        or shared != tuple(turn.unlearnt() for turn in rejected[:last])
    ):
        raise Malformed("has no prompt, and chosen and rejected share no turns")
    return shared, chosen[last:], rejected[last:]
