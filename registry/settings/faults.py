"""What is wrong with a document of settings, in one wording, however many faults it has.

Owns the way from pydantic's errors to ours. Invariants: a key is named as it stands in the document, never by
a branch of a union; a fault that only follows from a misspelt key is not told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import CONTINUED, UsageError
from registry.settings.bounds import Place
from registry.settings.misspelt import keys_beside, keys_of, remedy_for
from registry.wording import fact_of

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_MOST_TOLD = 10


@dataclass(frozen=True, slots=True)
class SettingFault:
    """One thing that is wrong at `place` of a document, and what to do about it."""

    place: Place
    fact: str
    remedy: str

    @classmethod
    def unknown(cls, place: Place, beside: Iterable[str], every: Iterable[str]) -> SettingFault:
        """Return the fault of a key that nobody reads; `beside` may stand there, `every` is dotted."""
        return cls(place, f"unknown setting {dotted(place)}", remedy_for(place, beside, every))

    @classmethod
    def wrong(cls, place: Place, fact: str, remedy: str) -> SettingFault:
        """Return the fault of a value."""
        return cls(place, f"{dotted(place)}: {fact}" if place else fact, remedy)


def dotted(place: Place) -> str:
    """Return a place as people write it: `steps.0.weight`."""
    return ".".join(map(str, place))


def faults_of(error: ValidationError, value: object, model: type[BaseModel], see: str) -> list[SettingFault]:
    """Return what pydantic finds wrong with `value`, unknown keys first; `see` says where keys are described.

    None as `value` is one that nobody has seen: keys are then called as pydantic does.
    """
    found: dict[Place, SettingFault] = {}
    for one in sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden"):
        place = _in_document(one["loc"], value, keep_last=one["type"] == "missing")
        # Of a union, every branch has its own complaint: the first is told.
        if place in found or (one["type"] == "missing" and _is_meant(place, found.values())):
            continue
        if len(found) >= _MOST_TOLD:
            fault = SettingFault(place, "", "")  # only counted
        elif one["type"] == "extra_forbidden":
            fault = SettingFault.unknown(place, keys_beside(model, one["loc"]), keys_of(model))
        else:
            advice = getattr(one.get("ctx", {}).get("error"), "remedy", None)
            fault = SettingFault.wrong(place, fact_of(one), advice or f"see {see}")
        found[place] = fault
    # A list of which an item is refused is called too short as well.
    inner = {place[:at] for place in found for at in range(len(place))}
    return [fault for place, fault in found.items() if place not in inner]


def refusal(faults: Sequence[SettingFault], where: Callable[[Place], str]) -> UsageError:
    """Return the error that tells `faults`, the first as the error's own; `where` names a place's line."""
    first, *others = faults
    lines = [f"{where(one.place)}: {one.fact}; {one.remedy}" for one in others[: _MOST_TOLD - 1]]
    if more := len(others) - len(lines):
        lines.append(f"and {more} more")
    remedy = CONTINUED.join([first.remedy, *lines])
    return UsageError(where(first.place), first.fact, remedy, param=dotted(first.place) or None)


def _in_document(loc: Sequence[int | str], value: object, *, keep_last: bool) -> Place:
    """Return pydantic's `loc` without the names of types and tags, which stand in no document."""
    if value is None:
        return tuple(loc)
    place: Place = ()
    here: Any = value
    for at, part in enumerate(loc):
        inner: Mapping[Any, Any] = here if isinstance(here, dict) else _numbered(here)
        if part in inner or (keep_last and at == len(loc) - 1):
            place, here = (*place, part), inner.get(part)
    return place


def _numbered(value: object) -> Mapping[int, Any]:
    return dict(enumerate(value)) if isinstance(value, list | tuple) else {}


def _is_meant(missing: Place, found: Iterable[SettingFault]) -> bool:
    return any(one.remedy == f"did you mean {dotted(missing)}?" for one in found)
