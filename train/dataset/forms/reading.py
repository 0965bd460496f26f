"""From a parsed row to what it says.

Owns the order: columns are renamed, the ways to read the keys are tried, ratings and media are looked for.
Invariants: two ways that say different things are an error; what says of itself that it is bad is never
supervised; a row with media is refused unless a person has accepted that its text alone is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from train.dataset.forms import media, rated
from train.dataset.forms.calls import tools_of, with_links
from train.dataset.forms.cells import read_turns
from train.dataset.forms.chat import shown, text
from train.dataset.forms.hints import ambiguous
from train.dataset.forms.keys import NAMES, FormPlan, KeySlot, plans_of, questions_of
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.dataset.forms.preference import pair_of
from train.dataset.forms.supervised import answered_turns, conversation_turns, question_turns, with_system
from train.dataset.records import CanonicalRow, Malformed, RowForm, RowKind, RowMessage

Row = Mapping[str, Any]
_STAND_IN = RowMessage("assistant", "answer", learn=True)
_ASKING = ("user", "tool")


def read_sample(row: object, reading: RowMapping = PLAIN) -> CanonicalRow:
    """Return what a parsed row says, read as `reading` says.

    Raises: Malformed: when it fits no form or several, a value has a wrong type, there is nothing to learn,
        it says that its answer is bad, or it holds media that nobody accepted.
    """
    return understand(row, reading)[1]


def understand(row: object, reading: RowMapping = PLAIN) -> tuple[FormPlan, CanonicalRow]:
    """Return the way in which a parsed row is read, and what it says.

    Raises: Malformed: as `read_sample`.
    """
    given, left_out = _given(row, reading)

    def read(plan: FormPlan) -> CanonicalRow:
        sample = _finished(given, plan, _read(given, plan, reading))
        return _checked(given, sample, reading, left_out)

    return _agreed(given, _plans(given, reading), read)


def read_prompt(row: object, reading: RowMapping = PLAIN) -> tuple[CanonicalRow, bool]:
    """Return what a row asks, with a stand-in for the answer where it has none; whether it has one.

    Raises: Malformed: as `read_sample`.
    """
    given, left_out = _given(row, reading)
    plans = [plan for plan in questions_of(_keys(given), _mapped(given, reading)) if _asks(given, plan)]
    if not plans:
        return read_sample(row, reading), True

    def read(plan: FormPlan) -> CanonicalRow:
        sample = _finished(given, plan, _question(given, plan))
        return _checked(given, sample, reading, left_out)

    return _agreed(given, plans, read)[1], False


def _given(row: object, reading: RowMapping) -> tuple[Row, tuple[str, ...]]:
    """Return the row with our keys, and what of its messages was left out on request."""
    if not isinstance(row, dict):
        raise Malformed(f"is {shown(row)}, not a JSON object")
    given: Row = reading.renamed(row) if reading.columns else row
    for key in reading.needed - given.keys() if reading.columns else ():
        column = reading.columns[key]
        raise Malformed(f"has no value in the column {column!r}, which stands for {key}", "D-FORM")
    if media.RULE not in reading.accept or not (parts := media.parts_of(given)):
        return given, ()
    return {key: media.without_parts(value) for key, value in given.items()}, parts


def _plans(given: Row, reading: RowMapping) -> Sequence[FormPlan]:
    keys, mapped = _keys(given), _mapped(given, reading)
    try:
        return plans_of(keys, mapped)
    except Malformed:
        if len(keys) == len(given):
            raise
        # What is null is named as such where the keys alone would do.
        return plans_of(tuple(given), mapped)


def _keys(given: Row) -> tuple[str, ...]:
    # A table has every column in every row; what it does not hold is null.
    if None in given.values():
        return tuple(key for key, value in given.items() if value is not None)
    return tuple(given)


def _mapped(given: Row, reading: RowMapping) -> frozenset[str]:
    return frozenset(reading.columns.keys() & given.keys()) if reading.columns else frozenset()


def _agreed(
    given: Row, plans: Sequence[FormPlan], read: Callable[[FormPlan], CanonicalRow]
) -> tuple[FormPlan, CanonicalRow]:
    """Return what the ways of `plans` that can be read all say."""
    if len(plans) == 1:
        try:
            return plans[0], read(plans[0])
        except Malformed as fault:
            raise media.instead_of(fault, given) from fault
    found: list[tuple[FormPlan, CanonicalRow]] = []
    faults: list[Malformed] = []
    for plan in plans:
        try:
            found.append((plan, read(plan)))
        except Malformed as fault:
            faults.append(fault)
    if not found:
        raise media.instead_of(faults[0], given)
    others = [plan for plan, sample in found[1:] if _said(sample) != _said(found[0][1])]
    if others:
        ways = (found[0][0], *others)
        raise ambiguous([_described(plan) for plan in ways], [_mapping(plan) for plan in ways])
    return found[0]


def _read(given: Row, plan: FormPlan, reading: RowMapping) -> CanonicalRow:
    if plan.kind is RowKind.TEXT:
        written = text(given[plan.keys[KeySlot.TEXT]], plan.keys[KeySlot.TEXT], rule="D-EMPTY")
        return CanonicalRow(plan.form, text=written, extra=plan.extra)
    if plan.kind is RowKind.PREFERENCE:
        prompt, chosen, rejected = pair_of(given, plan)
        return CanonicalRow(plan.form, _learnable(prompt + chosen), rejected, extra=plan.extra)
    unused: tuple[str, ...] = ()
    if KeySlot.CONVERSATION in plan.keys:
        turns, unused = conversation_turns(given, plan)
    else:
        turns = answered_turns(given, plan)
    return _rated(given, plan, _learnable(turns), (*plan.extra, *unused), reading)


def _rated(
    given: Row, plan: FormPlan, turns: tuple[RowMessage, ...], extra: tuple[str, ...], reading: RowMapping
) -> CanonicalRow:
    """Return a rated row where the row says how good its answer is, else a supervised one."""
    key = plan.keys.get(KeySlot.LABEL)
    if rated.RULE in reading.accept:
        extra, key = (*extra, *filter(None, (key,))), None
    liked = None if key is None else rated.label_of(given[key], turns[-1].content)
    if key is not None and liked is None:
        if "label" in reading.columns:
            raise Malformed(f"{key} is {shown(given[key])}, not true or false")
        extra = (*extra, key)
    if liked is None and extra and rated.RULE not in reading.accept:
        if vote := rated.vote_of(given, extra):
            liked, extra = vote[1], tuple(one for one in extra if one != vote[0])
        else:
            rated.refuse_bad(given, extra)
    form = plan.form if liked is None else RowForm.KTO
    notes = rated.unread(given, extra) if liked is None and extra and rated.RULE not in reading.accept else ()
    return CanonicalRow(form, turns, liked=liked, extra=tuple(sorted(extra)), notes=notes)


def _question(given: Row, plan: FormPlan) -> CanonicalRow:
    if KeySlot.CONVERSATION in plan.keys:
        key = plan.keys[KeySlot.CONVERSATION]
        turns = with_system(given, plan, read_turns(given[key], key, learn=False))
    else:
        turns = question_turns(given, plan)
    return CanonicalRow(plan.form, (*turns, _STAND_IN), extra=plan.extra)


def _asks(given: Row, plan: FormPlan) -> bool:
    """Tell whether a row of `plan` asks only: a conversation, that its last turn is not an answer."""
    key = plan.keys.get(KeySlot.CONVERSATION)
    if key is None:
        return True
    try:
        return read_turns(given[key], key, learn=False)[-1].role in _ASKING
    except Malformed:
        return False


def _finished(given: Row, plan: FormPlan, sample: CanonicalRow) -> CanonicalRow:
    """Return `sample` with its tools, and its calls linked to their results."""
    asked = given.get(plan.keys[KeySlot.QUESTION]) if KeySlot.QUESTION in plan.keys else None
    holder = given if plan.tools else asked if isinstance(asked, dict) else None
    if holder is not None and (tools := tools_of(holder)):
        sample = replace(sample, tools=tools)
    return with_links(sample)


def _checked(
    given: Row, sample: CanonicalRow, reading: RowMapping, left_out: tuple[str, ...]
) -> CanonicalRow:
    """Return `sample`, refused or noted where its row holds media."""
    held = media.media_of(given, sample.extra) if sample.extra else ()
    mark = None if held or sample.form.kind is RowKind.TEXT else media.placeholder_in(sample.texts)
    if not held and not left_out and mark is None:
        return sample
    fault = media.fault((*left_out, *held) or (f"the placeholder {mark}",))
    if media.RULE not in reading.accept:
        raise fault
    return replace(sample, notes=((media.RULE, str(fault)), *sample.notes))


def _learnable(messages: tuple[RowMessage, ...]) -> tuple[RowMessage, ...]:
    if not any(message.learn for message in messages):
        raise Malformed("has no assistant message to learn from", "D-UNTRAINED")
    return messages


def _said(sample: CanonicalRow) -> tuple[object, ...]:
    turns = (*sample.messages, *sample.rejected)
    return ([(turn.role, turn.content.strip()) for turn in turns], sample.liked, sample.text)


def _described(plan: FormPlan) -> str:
    return "/".join(plan.keys.values())


def _mapping(plan: FormPlan) -> str:
    return ",".join(f"{NAMES[slot][0]}={key}" for slot, key in plan.keys.items())
