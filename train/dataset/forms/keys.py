"""The keys that people write, and which form a row's keys are.

Owns the table of names: a slot (the question, the answer, the chosen answer, …) has several names in the
world. A form is known by its slots alone. Case, blanks and hyphens in a name do not count (`System Prompt`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import product
from typing import Final

from train.dataset.forms.calls import TOOL_KEYS
from train.dataset.forms.hints import keys_fault
from train.dataset.records import Malformed, RowForm, RowKind

_TOOLS = frozenset(TOOL_KEYS)


class KeySlot:
    """What a key of a row holds. Texts and no Enum, whose hash costs more than reading a row."""

    CONVERSATION: Final = "conversation"
    QUESTION: Final = "question"
    INPUT: Final = "input"
    CONTEXT: Final = "context"
    SYSTEM: Final = "system"
    HISTORY: Final = "history"
    ANSWER: Final = "answer"
    CHOSEN: Final = "chosen"
    REJECTED: Final = "rejected"
    LABEL: Final = "label"
    TEXT: Final = "text"


# Our own name of a slot comes first.
NAMES: dict[str, tuple[str, ...]] = {
    KeySlot.CONVERSATION: (
        "messages", "conversations", "conversation", "items", "dialogue", "dialog",
    ),
    KeySlot.QUESTION: (
        "prompt", "question", "query", "instruction", "problem", "input", "inputs", "user", "human",
    ),
    KeySlot.INPUT: ("input",),
    KeySlot.CONTEXT: ("context",),
    KeySlot.SYSTEM: ("system", "system_prompt", "system_message", "system_instruction"),
    KeySlot.HISTORY: ("history",),
    KeySlot.ANSWER: (
        "completion", "response", "answer", "answers", "output", "outputs", "target", "targets", "solution",
        "reply", "assistant", "ideal",
    ),
    KeySlot.CHOSEN: (
        "chosen", "accepted", "preferred", "preferred_output", "chosen_messages", "chosen_response",
        "chosen_answer", "response_j", "response_chosen", "preferred_response",
    ),
    KeySlot.REJECTED: (
        "rejected", "dispreferred", "non_preferred_output", "rejected_messages", "rejected_response",
        "rejected_answer", "response_k", "response_rejected", "rejected_output",
    ),
    KeySlot.LABEL: ("label", "kto_tag"),
    KeySlot.TEXT: ("text",),
}  # fmt: skip
_OPTIONAL = (KeySlot.SYSTEM, KeySlot.CONTEXT, KeySlot.INPUT, KeySlot.HISTORY)
_SLOTS_OF: dict[str, tuple[str, ...]] = {
    name: tuple(slot for slot, names in NAMES.items() if name in names)
    for names in NAMES.values()
    for name in names
}
# Names that people also give to other things: a user's id, a target of another task.
_WEAK = frozenset({"user", "human", "assistant", "reply", "target", "targets", "answers", "outputs", "items"})
_MISSPELT = 0.8
Found = dict[str, list[str]]
Way = tuple[RowForm, dict[str, str]]


@dataclass(frozen=True, slots=True)
class FormPlan:
    """One way to read a row: its form, and the row's key of each slot; `bare` is one without optional ones.

    `kind` is the form's, `extra` are the keys that the form does not know, `tools` those about tools.
    """

    form: RowForm
    kind: RowKind
    bare: bool
    keys: Mapping[str, str]
    extra: tuple[str, ...]
    tools: tuple[str, ...]


@lru_cache(maxsize=512)
def plans_of(keys: tuple[str, ...], mapped: frozenset[str] = frozenset()) -> tuple[FormPlan, ...]:
    """Return every way to read a row with these `keys`; those in `mapped` must be read.

    Raises: Malformed: there is none, a key looks like one that is missing, or the row is part of another.
    """
    by_slot = _by_slot(keys)
    if {"role", "text", "parent_id"} <= set(keys):
        fact = "is one message of a tree: it has text, role and parent_id"
        raise Malformed(fact, "D-FORM", "join each path of the tree to a row of messages")
    for group in (_pairs(by_slot), _answered(by_slot, keys), _texts(by_slot)):
        if ways := [(form, found) for form, found in group if mapped - _TOOLS <= set(found.values())]:
            return tuple(_plan(form, found, keys) for form, found in ways)
    raise keys_fault(keys)


@lru_cache(maxsize=512)
def questions_of(keys: tuple[str, ...], mapped: frozenset[str] = frozenset()) -> tuple[FormPlan, ...]:
    """Return every way to read a row with these `keys` as a question that nothing answers."""
    by_slot = _by_slot(keys)
    if by_slot.keys() & {KeySlot.ANSWER, KeySlot.CHOSEN, KeySlot.REJECTED}:
        return ()
    optional = _optional(by_slot)
    found: list[Way] = [
        (RowForm.CHAT, {KeySlot.CONVERSATION: key, **_only(optional, KeySlot.SYSTEM)})
        for key in by_slot.get(KeySlot.CONVERSATION, ())
    ]
    found += [
        (RowForm.PROMPT, {KeySlot.QUESTION: key, **_without(optional, key)}) for key in _questions(by_slot)
    ]
    return tuple(_plan(form, ways, keys) for form, ways in found if mapped - _TOOLS <= set(ways.values()))


def known(name: str) -> bool:
    """Tell whether some form has the key `name`."""
    return _plain(name) in _SLOTS_OF


def _by_slot(keys: tuple[str, ...]) -> Found:
    """Return the keys of each slot; names that may mean something else only where no other is there."""
    found: Found = {}
    for key in keys:
        for slot in _SLOTS_OF.get(_plain(key), ()):
            found.setdefault(slot, []).append(key)
    for slot, names in found.items():
        found[slot] = [name for name in names if _plain(name) not in _WEAK] or names
    return found


def _answered(by_slot: Found, keys: tuple[str, ...]) -> Iterator[Way]:
    optional, answers = _optional(by_slot), by_slot.get(KeySlot.ANSWER, [])
    rated = {KeySlot.LABEL: by_slot[KeySlot.LABEL][0]} if KeySlot.LABEL in by_slot else {}
    # A conversation that ends with the user may have its answer in a column of its own.
    last = {KeySlot.ANSWER: answers[0]} if len(answers) == 1 and not _questions(by_slot) else {}
    for key in by_slot.get(KeySlot.CONVERSATION, ()):
        form = RowForm.CHAT if _plain(key) == "messages" else RowForm.SHAREGPT
        yield form, {KeySlot.CONVERSATION: key, **_only(optional, KeySlot.SYSTEM), **last, **rated}
    for question, answer in product(_questions(by_slot), answers):
        alpaca = _plain(question) == "instruction" and KeySlot.CONTEXT not in by_slot
        called = (_plain(question), _plain(answer)) == ("query", "answers") and not _TOOLS.isdisjoint(keys)
        found = {KeySlot.QUESTION: question, KeySlot.ANSWER: answer, **_without(optional, question), **rated}
        yield (RowForm.CALLS if called else RowForm.ALPACA if alpaca else RowForm.PROMPT), found


def _texts(by_slot: Found) -> Iterator[Way]:
    for key in by_slot.get(KeySlot.TEXT, ()):
        yield RowForm.TEXT, {KeySlot.TEXT: key}


def _pairs(by_slot: Found) -> Iterator[Way]:
    chosen, rejected = by_slot.get(KeySlot.CHOSEN, []), by_slot.get(KeySlot.REJECTED, [])
    if rejected and not chosen:
        # The answer of a row that has a worse one beside it; a conversation ends with it.
        chosen = by_slot.get(KeySlot.ANSWER, []) or by_slot.get(KeySlot.CONVERSATION, [])
    for good, bad in product(chosen, rejected):
        form = RowForm.OPENAI_PREFERENCE if _plain(good) == "preferred_output" else RowForm.PREFERENCE
        for asked in _asked(by_slot, good):
            yield form, {**asked, KeySlot.CHOSEN: good, KeySlot.REJECTED: bad}


def _asked(by_slot: Found, good: str) -> Iterator[dict[str, str]]:
    optional, conversations = _optional(by_slot), by_slot.get(KeySlot.CONVERSATION, [])
    if good in conversations:
        yield _only(optional, KeySlot.SYSTEM)
    elif conversations:
        yield from ({KeySlot.CONVERSATION: key, **_only(optional, KeySlot.SYSTEM)} for key in conversations)
    elif questions := _questions(by_slot):
        yield from ({KeySlot.QUESTION: key, **_without(optional, key)} for key in questions)
    else:
        yield _only(optional, KeySlot.SYSTEM)


def _questions(by_slot: Found) -> list[str]:
    """Return the keys that ask; an `input` beside an instruction is what that is about."""
    found = by_slot.get(KeySlot.QUESTION, [])
    if any(_plain(key) == "instruction" for key in found):
        found = [key for key in found if _plain(key) not in {"input", "inputs"}]
    return found


def _plan(form: RowForm, found: dict[str, str], keys: tuple[str, ...]) -> FormPlan:
    others = sorted(set(keys) - set(found.values()))
    absent = [NAMES[slot][0] for slot in _OPTIONAL if slot not in found]
    for key in others:
        near = get_close_matches(_plain(key), absent, n=1, cutoff=_MISSPELT)
        if near and key not in TOOL_KEYS and abs(len(near[0]) - len(key)) <= 1:
            raise Malformed(f"has the key {key!r}, which looks like {near[0]!r}", "D-FORM")
    tools = tuple(key for key in others if key in TOOL_KEYS)
    return FormPlan(
        form,
        form.kind,
        not found.keys() & set(_OPTIONAL),
        found,
        tuple(key for key in others if key not in TOOL_KEYS),
        tools,
    )


def _optional(by_slot: Found) -> dict[str, str]:
    return {slot: by_slot[slot][0] for slot in _OPTIONAL if slot in by_slot}


def _without(optional: Mapping[str, str], key: str) -> dict[str, str]:
    return {slot: name for slot, name in optional.items() if name != key}


def _only(optional: Mapping[str, str], slot: str) -> dict[str, str]:
    return {slot: optional[slot]} if slot in optional else {}


@lru_cache(maxsize=4096)
def _plain(key: str) -> str:
    return key.strip().lower().replace(" ", "_").replace("-", "_")
