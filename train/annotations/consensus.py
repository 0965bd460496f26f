"""From everybody's labels to one: the rules, and the row that training takes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from train.annotations.reading import AnnotatedItem


class ConsensusRule(StrEnum):
    """How labels become one."""

    MAJORITY = "majority"
    PLURALITY = "plurality"
    UNANIMOUS = "unanimous"
    MEDIAN = "median"


@dataclass(frozen=True, slots=True)
class Decision:
    """The label of an item, or None with `why`."""

    label: str | None
    why: str = ""


def decide(labels: Mapping[str, str], rule: ConsensusRule, least: int, order: Sequence[str]) -> Decision:
    """Return the label that `rule` makes of everybody's; `order` is that of the labels, for the median.

    majority: more than half have it; plurality: more than any other; unanimous: all; median: it stands in
    the middle of the order, and of two middle ones both are it.
    """
    if len(labels) < least:
        return Decision(None, f"{len(labels)} of {least} labels")
    counts = Counter(labels.values()).most_common()
    label, most = counts[0]
    tied = len(counts) > 1 and counts[1][1] == most
    match rule:
        case ConsensusRule.MAJORITY:
            return Decision(label) if 2 * most > len(labels) else Decision(None, "no majority")
        case ConsensusRule.PLURALITY:
            return Decision(None, "a tie") if tied else Decision(label)
        case ConsensusRule.UNANIMOUS:
            return Decision(label) if len(counts) == 1 else Decision(None, "not unanimous")
        case ConsensusRule.MEDIAN:
            ranked = sorted(labels.values(), key=order.index)
            low, high = ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]
            return Decision(low) if low == high else Decision(None, f"between {low} and {high}")


def training_row(item: AnnotatedItem, label: str) -> dict[str, Any]:
    """Return the row that teaches `label`, where the item says what is asked; else item and label.

    `prompt` (a text or messages) and `text` become the question, `messages` the turns before the label. An
    item that has a `completion` was rated: true and false make it a rating (KTO).
    """
    content, named = item.content, {"id": item.id}
    about: dict[str, Any] = {key: content[key] for key in ("system", "context") if key in content}
    if "completion" in content:
        if label in {"true", "false"} and "prompt" in content:
            rated = {"prompt": content["prompt"], "completion": content["completion"]}
            return {**named, **rated, "label": label == "true"}
        return {"item": item.id, **content, "label": label}
    if isinstance(messages := content.get("messages"), list):
        return {**named, "messages": [*messages, {"role": "assistant", "content": label}]}
    question = content.get("prompt", content.get("text"))
    if question is None:
        return {"item": item.id, "label": label}
    return {**named, **about, "prompt": question, "completion": label}
