"""What decides a run, as one digest: two runs with the same plan give the same bytes.

Owns the comparison of plans. The paths of the data are not in it, their content is; nor is what only
watches a run (name, note, alias, trackers, how many checkpoints stay).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from registry.api.documents import Document
from registry.validation.canonical import canonical_json, sha256_hex
from train.config import TrainConfig

if TYPE_CHECKING:
    from registry.records import BaseModelInfo


class RunPlan(Document):
    """The resolved settings that decide a run, and the digests of everything it reads."""

    settings: dict[str, JsonValue]
    data: dict[str, str]
    base: str
    start: str | None

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all of it."""
        return sha256_hex(canonical_json(self.model_dump(mode="json")))

    def differences(self, other: RunPlan) -> list[str]:
        """Return in words what differs from `other`, the one that was before; empty if they are one plan."""
        told = list(_differences(dict(_flat(self.settings)), dict(_flat(other.settings))))
        told += [
            f"the content of data file {label} has changed"
            for label in sorted({*self.data, *other.data})
            if self.data.get(label) != other.data.get(label)
        ]
        if self.base != other.base:
            told.append("the base model is another one")
        if self.start != other.start:
            told.append("the version that it starts from is another one")
        return told


def make_plan(
    config: TrainConfig, base: BaseModelInfo, data: Mapping[str, str], start: str | None = None
) -> RunPlan:
    """Return the plan of a run; `data` holds each file's SHA-256 by label, `start` a version's digest."""
    shared = config.data.eval is not None and config.data.eval.share is not None
    held_out: Any = {"path", "split", "columns"} if shared else True
    settings = config.model_dump(
        mode="json",
        by_alias=True,
        exclude={
            "name": True,
            "alias": True,
            "note": True,
            "tracking": True,
            "checkpoints": {"keep", "keep_finished"},
            # A held-out source decides by its content; a share of the rows, by itself.
            "data": {"train": {"__all__": {"path", "split"}}, "eval": held_out, "replay": {"path"}},
        },
    )
    return RunPlan(settings=settings, data=dict(data), base=base.fingerprint, start=start)


def _differences(new: Mapping[str, JsonValue], old: Mapping[str, JsonValue]) -> Iterator[str]:
    for key in sorted({*new, *old}):
        if new.get(key) != old.get(key):
            yield f"{key} is {_shown(new.get(key))}, was {_shown(old.get(key))}"


def _shown(value: JsonValue) -> str:
    return "not set" if value is None else str(value)


def _flat(value: JsonValue, prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{prefix}[{index}]")
    else:
        yield prefix, value
