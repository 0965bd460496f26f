"""The written forms of a row: which one it is, and what it says.

Owns the detection, the import into a `Sample` and the canonical form. A form is known by its keys alone;
keys that no form knows are kept as names (`Sample.extra`). Invariant: a key that looks like a known one,
misspelt, is an error, so that no input is lost to a typing mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from train.dataset.calls import TOOL_KEYS, read_calls, tools_of, with_links
from train.dataset.chat import read_conversation, read_messages, shown, text, written
from train.dataset.forms.mapping import PLAIN, Reading
from train.dataset.records import Form, Kind, Malformed, Message, Sample

Tools = tuple[Mapping[str, Any], ...]
_STAND_IN = "answer"
# What a form must have, in the order of asking, and what it may have besides.
_KEYS: dict[Form, tuple[frozenset[str], frozenset[str]]] = {
    Form.OPENAI_PREFERENCE: (
        frozenset({"input", "preferred_output", "non_preferred_output"}),
        frozenset(),
    ),
    Form.PREFERENCE: (frozenset({"chosen", "rejected"}), frozenset({"prompt"})),
    Form.KTO: (frozenset({"prompt", "completion", "label"}), frozenset()),
    Form.CHAT: (frozenset({"messages"}), frozenset()),
    Form.SHAREGPT: (frozenset({"conversations"}), frozenset({"system"})),
    Form.ALPACA: (frozenset({"instruction", "output"}), frozenset({"input", "system", "history"})),
    Form.PROMPT: (frozenset({"prompt", "completion"}), frozenset({"context", "system"})),
    Form.CALLS: (frozenset({"query", "answers"}), frozenset({"system"})),
    Form.TEXT: (frozenset({"text"}), frozenset()),
}


def detect(row: object, reading: Reading = PLAIN) -> Form:
    """Return the form of a parsed row, whose keys are ours already.

    Raises: Malformed: when its keys fit none.
    """
    if not isinstance(row, dict):
        raise Malformed(f"is {shown(row)}, not a JSON object")
    for form, (needed, allowed) in _KEYS.items():
        if needed <= row.keys() and reading.columns.keys() <= needed | allowed:
            return form
    raise Malformed(f"has the keys {sorted(row)}", "D-FORM")


def read_sample(row: object, reading: Reading = PLAIN) -> Sample:
    """Return what a parsed row says, read as `reading` says.

    Raises: Malformed: when it fits no form, a value has a wrong type, or there is nothing to learn.
    """
    if isinstance(row, dict) and reading.columns:
        row = _renamed(row, reading)
    form = detect(row, reading)
    assert isinstance(row, dict)
    extra = _other_keys(form, row)
    return with_links(_READERS[form](row, extra, tools_of(row)))


def read_prompt(row: object, reading: Reading = PLAIN) -> tuple[Sample, bool]:
    """Return what a row asks, with a stand-in for the answer where it has none; whether it has one.

    Raises: Malformed: as `read_sample`.
    """
    if not isinstance(row, dict):
        return read_sample(row), True
    given = reading.renamed(row) if reading.columns else row
    if _asks_only(given.get("messages")):
        turn = {"role": "assistant", "content": _STAND_IN}
        return read_sample({**given, "messages": [*given["messages"], turn]}), False
    if "prompt" in given and not given.keys() & {"completion", "chosen", "rejected"}:
        return read_sample({**given, "completion": _STAND_IN}), False
    return read_sample(row, reading), True


def canonical(sample: Sample) -> dict[str, object]:
    """Return the one JSON form of a sample that `data split --canonical` writes."""
    if sample.form.kind is Kind.TEXT:
        return {"text": sample.text}
    tools = {"tools": [dict(tool) for tool in sample.tools]} if sample.tools else {}
    if sample.form.kind is Kind.SUPERVISED:
        return {"messages": _written(sample.messages), **tools}
    prompt, answer = _written(sample.prompt), _written(sample.answer)
    if sample.form.kind is Kind.KTO:
        return {"prompt": prompt, "completion": answer, "label": sample.liked, **tools}
    return {"prompt": prompt, "chosen": answer, "rejected": _written(sample.rejected), **tools}


def _other_keys(form: Form, row: Mapping[str, Any]) -> tuple[str, ...]:
    needed, allowed = _KEYS[form]
    others = row.keys() - needed - allowed - set(TOOL_KEYS)
    for key in sorted(others):
        if near := get_close_matches(key.lower(), sorted(allowed - row.keys()), n=1, cutoff=0.8):
            raise Malformed(f"has the key {key!r}, which looks like {near[0]!r}", "D-FORM")
    return tuple(sorted(others))


def _renamed(row: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    given = reading.renamed(row)
    for key, column in reading.columns.items():
        if key not in given and not any(key in allowed for _, allowed in _KEYS.values()):
            raise Malformed(f"has no value in the column {column!r}, which stands for {key}", "D-FORM")
    return given


def _asks_only(messages: object) -> bool:
    return (
        isinstance(messages, Sequence)
        and bool(messages)
        and isinstance(messages[-1], dict)
        and messages[-1].get("role") in {"user", "tool"}
    )


def _chat(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    return Sample(Form.CHAT, _learnable(read_messages(row["messages"])), extra=extra, tools=tools)


def _sharegpt(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    messages = read_conversation(row["conversations"], row.get("system"))
    return Sample(Form.SHAREGPT, _learnable(messages), extra=extra, tools=tools)


def _alpaca(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    question = text(row["instruction"], "instruction")
    if _is_given(row.get("input")):
        question = f"{question}\n\n{text(row['input'], 'input')}"
    if not question.strip():
        raise Malformed('instruction is "", not a text', "D-EMPTY-INPUT")
    answer = Message("assistant", text(row["output"], "output", rule="D-EMPTY"), learn=True)
    turns = (*_system(row), *_history(row.get("history")), Message("user", question, learn=False), answer)
    return Sample(Form.ALPACA, turns, extra=extra, tools=tools)


def _history(history: object) -> tuple[Message, ...]:
    turns: list[Message] = []
    if history is not None and not isinstance(history, list):
        raise Malformed(f"history is {shown(history)}, not a list of pairs")
    for index, pair in enumerate(history or []):
        match pair:
            case [str(question), str(answer)]:
                turns += [Message("user", question, learn=False), Message("assistant", answer, learn=True)]
            case _:
                raise Malformed(f"history[{index}] is {shown(pair)}, not a pair of texts")
    return tuple(turns)


def _prompt(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    turns = (*_system(row), *_question(row), *_answer(row["completion"], "completion"))
    return Sample(Form.PROMPT, _learnable(turns), extra=extra, tools=tools)


def _question(row: Mapping[str, Any]) -> tuple[Message, ...]:
    if isinstance(row["prompt"], list):
        return read_messages(row["prompt"], "prompt", learn=False)
    question = text(row["prompt"], "prompt", rule="D-EMPTY-INPUT")
    if _is_given(row.get("context")):
        question = f"{text(row['context'], 'context')}\n\n{question}"
    return (Message("user", question, learn=False),)


def _answer(value: object, where: str) -> tuple[Message, ...]:
    if isinstance(value, list):
        return read_messages(value, where)
    return (Message("assistant", text(value, where, rule="D-EMPTY"), learn=True),)


def _kto(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    if not isinstance(row["label"], bool):
        raise Malformed(f"label is {shown(row['label'])}, not true or false")
    turns = (*_question(row), *_answer(row["completion"], "completion"))
    return Sample(Form.KTO, _learnable(turns), liked=row["label"], extra=extra, tools=tools)


def _preference(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    chosen, rejected = _answer(row["chosen"], "chosen"), _answer(row["rejected"], "rejected")
    if "prompt" in row and not _repeats_prompt(row["prompt"], chosen, rejected):
        prompt = _question(row)
    else:
        prompt, chosen, rejected = _split_shared(chosen, rejected)
    return Sample(Form.PREFERENCE, _learnable(prompt + chosen), rejected, extra=extra, tools=tools)


def _repeats_prompt(prompt: object, chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> bool:
    # UltraFeedback names the question and has it in both conversations too.
    return isinstance(prompt, str) and all(
        len(one) > 1 and one[-2].content == prompt for one in (chosen, rejected)
    )


def _split_shared(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """Take the turns that both begin with for the prompt, as TRL does."""
    last = len(chosen) - 1
    if not chosen or last != len(rejected) - 1 or chosen[:last] != rejected[:last] or last == 0:
        raise Malformed("has no prompt, and chosen and rejected share no turns")
    prompt = tuple(turn.unlearnt() for turn in chosen[:last])
    return prompt, chosen[last:], rejected[last:]


def _openai_preference(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    given = row["input"]
    if not isinstance(given, dict):
        raise Malformed(f"input is {shown(given)}, not an object with messages")
    prompt = read_messages(given.get("messages"), "input.messages", learn=False)
    chosen = read_messages(row["preferred_output"], "preferred_output")
    rejected = read_messages(row["non_preferred_output"], "non_preferred_output")
    named = tools or tools_of(given)
    return Sample(Form.OPENAI_PREFERENCE, _learnable(prompt + chosen), rejected, extra=extra, tools=named)


def _xlam(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    question = Message("user", text(row["query"], "query", rule="D-EMPTY-INPUT"), learn=False)
    calls = read_calls(row["answers"], "answers")
    if not calls:
        raise Malformed("answers calls nothing", "D-EMPTY")
    turns = (*_system(row), question, Message("assistant", "", learn=True, calls=calls))
    return Sample(Form.CALLS, turns, extra=extra, tools=tools)


def _text(row: Mapping[str, Any], extra: tuple[str, ...], tools: Tools) -> Sample:
    return Sample(Form.TEXT, text=text(row["text"], "text", rule="D-EMPTY"), extra=extra, tools=tools)


def _system(row: Mapping[str, Any]) -> tuple[Message, ...]:
    system = row.get("system")
    return (Message("system", text(system, "system"), learn=False),) if _is_given(system) else ()


def _is_given(value: object) -> bool:
    return value is not None and value != ""


def _learnable(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if not any(message.learn for message in messages):
        raise Malformed("has no assistant message to learn from", "D-UNTRAINED")
    return messages


def _written(messages: tuple[Message, ...]) -> list[dict[str, object]]:
    return [written(message) for message in messages]


_READERS: dict[Form, Callable[[Mapping[str, Any], tuple[str, ...], Tools], Sample]] = {
    Form.CHAT: _chat,
    Form.SHAREGPT: _sharegpt,
    Form.ALPACA: _alpaca,
    Form.PROMPT: _prompt,
    Form.PREFERENCE: _preference,
    Form.OPENAI_PREFERENCE: _openai_preference,
    Form.KTO: _kto,
    Form.CALLS: _xlam,
    Form.TEXT: _text,
}
