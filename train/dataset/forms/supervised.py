"""Rows of answers: conversations, and a question with its answer.

Owns how a system prompt, a context, an input and a history join the turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from train.dataset.forms.calls import read_calls
from train.dataset.forms.cells import read_answer, read_question, read_turns
from train.dataset.forms.chat import shown, text
from train.dataset.forms.keys import FormPlan, KeySlot
from train.dataset.records import Malformed, RowForm, RowMessage

Row = Mapping[str, Any]


def conversation_turns(row: Row, plan: FormPlan) -> tuple[tuple[RowMessage, ...], tuple[str, ...]]:
    """Return the turns of a conversation, and the keys of the plan that were not needed for it.

    The answer may stand in a column of its own where the conversation ends with the user.

    Raises: Malformed.
    """
    key, answer = plan.keys[KeySlot.CONVERSATION], plan.keys.get(KeySlot.ANSWER)
    turns = read_turns(row[key], key)
    unused: tuple[str, ...] = ()
    if answer is not None:
        if turns[-1].role == "assistant":
            unused = (answer,)
        else:
            turns += read_answer(row[answer], answer)
    return with_system(row, plan, turns), unused


def answered_turns(row: Row, plan: FormPlan) -> tuple[RowMessage, ...]:
    """Return a question and its answer as turns.

    Raises: Malformed.
    """
    key = plan.keys[KeySlot.ANSWER]
    if plan.form is RowForm.CALLS:
        calls = read_calls(row[key], key)
        if not calls:
            raise Malformed(f"{key} calls nothing", "D-EMPTY")
        return (*question_turns(row, plan), RowMessage("assistant", "", learn=True, calls=calls))
    return (*question_turns(row, plan), *read_answer(row[key], key))


def question_turns(row: Row, plan: FormPlan) -> tuple[RowMessage, ...]:
    """Return the turns before the answer: system prompt, history, and the question with what belongs to it.

    Raises: Malformed.
    """
    key = plan.keys[KeySlot.QUESTION]
    if plan.bare:
        return read_question(row[key], key)
    context, given = _part(row, plan, KeySlot.CONTEXT), _part(row, plan, KeySlot.INPUT)
    # Alpaca's instruction may be empty where the input is the question.
    asked = given if given and row[key] == "" else row[key]
    turns = read_question(asked, key)
    behind = given if given and asked is not given else ""
    if not context and not behind:
        pass
    elif len(turns) == 1 and turns[0].role == "user":
        turns = (replace(turns[0], content="\n\n".join(filter(None, (context, turns[0].content, behind)))),)
    else:
        raise Malformed(f"has a conversation in {key}, and a context or an input that belongs to no turn")
    return with_system(row, plan, (*_history(row, plan), *turns))


def with_system(row: Row, plan: FormPlan, turns: tuple[RowMessage, ...]) -> tuple[RowMessage, ...]:
    """Return `turns` with the system prompt of the row first, unless they begin with it.

    Raises: Malformed: they begin with another one.
    """
    system = _part(row, plan, KeySlot.SYSTEM)
    if not system or (turns and turns[0].role == "system" and turns[0].content == system):
        return turns
    if turns and turns[0].role in {"system", "developer"}:
        raise Malformed(f"has a system prompt in {plan.keys[KeySlot.SYSTEM]} and another one in its turns")
    return (RowMessage("system", system, learn=False), *turns)


def _part(row: Row, plan: FormPlan, slot: str) -> str:
    if slot not in plan.keys:
        return ""
    key = plan.keys[slot]
    return "" if row.get(key) is None else text(row[key], key)


def _history(row: Row, plan: FormPlan) -> tuple[RowMessage, ...]:
    history = row[plan.keys[KeySlot.HISTORY]] if KeySlot.HISTORY in plan.keys else None
    turns: list[RowMessage] = []
    if history is not None and not isinstance(history, list):
        raise Malformed(f"history is {shown(history)}, not a list of pairs")
    for index, pair in enumerate(history or []):
        match pair:
            case [str(question), str(answer)]:
                turns += [
                    RowMessage("user", question, learn=False),
                    RowMessage("assistant", answer, learn=True),
                ]
            case _:
                raise Malformed(f"history[{index}] is {shown(pair)}, not a pair of texts")
    return tuple(turns)
