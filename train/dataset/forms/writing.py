"""The one JSON form of each kind of row, which `data split --canonical` writes."""

from __future__ import annotations

from train.dataset.forms.chat import written
from train.dataset.records import CanonicalRow, RowKind, RowMessage


def canonical(sample: CanonicalRow) -> dict[str, object]:
    """Return the one JSON form of a sample that `data split --canonical` writes."""
    if sample.form.kind is RowKind.TEXT:
        return {"text": sample.text}
    tools = {"tools": [dict(tool) for tool in sample.tools]} if sample.tools else {}
    if sample.form.kind is RowKind.SUPERVISED:
        return {"messages": _written(sample.messages), **tools}
    prompt, answer = _written(sample.prompt), _written(sample.answer)
    if sample.form.kind is RowKind.KTO:
        return {"prompt": prompt, "completion": answer, "label": sample.liked, **tools}
    return {"prompt": prompt, "chosen": answer, "rejected": _written(sample.rejected), **tools}


def _written(messages: tuple[RowMessage, ...]) -> list[dict[str, object]]:
    return [written(message) for message in messages]
