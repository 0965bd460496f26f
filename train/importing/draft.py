"""A foreign config on its way into ours: what is taken over, what changes, what is lost, and why.

Owns the bookkeeping that makes nothing vanish: whoever translates takes keys out of the foreign config;
every key that nobody took is named with a reason. Keys that are empty or false ask for nothing and are passed
over. Knows no trainer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, PlainSerializer

from registry.errors import UsageError
from train.importing.places import Folders

_EMPTY: tuple[object, ...] = (None, False, "", [], {}, "none", "None", "no", "null")


# In quotes, they are texts to YAML and switches to whoever wrote them.
_SWITCHES = {"true": True, "false": False}


class Weight(StrEnum):
    """What a note says about the result: it is another one, something of it is missing, or it is the same."""

    CHANGED = "changed"
    LOST = "lost"
    SAME = "same"


class Unusable(Exception):
    """A value that ours cannot hold and no default stands in for; the text says why."""


@dataclass(frozen=True, slots=True)
class Instead:
    """What ours gets for a value that it does not have (None: its default), and why."""

    value: Any
    reason: str


Convert = Callable[[Any], Any]
"""From a foreign value to ours, or to `Instead`.

Raises: Unusable: it is not a value of this key at all.
"""


def _plain(value: object) -> JsonValue:
    # YAML reads dates as dates; JSON has none.
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {str(key): _plain(one) for key, one in value.items()} if isinstance(value, dict) else str(value)


ForeignValue = Annotated[Any, PlainSerializer(_plain)]
"""A value as the foreign config has it; a document shows what is not JSON as text."""


@dataclass(frozen=True, slots=True)
class Note:
    """One key of the foreign config, its value there, and what becomes of it."""

    key: str
    value: ForeignValue
    reason: str
    weight: Annotated[Weight, Field(exclude=True)]


@dataclass(frozen=True, slots=True)
class Taken:
    """One key of the foreign config that ours says too; `ours` is the dotted key where there is one."""

    key: str
    value: ForeignValue
    ours: str


@dataclass(frozen=True, slots=True)
class KeyRule:
    """Where a foreign key goes: our dotted key, and how its value changes."""

    key: str
    convert: Convert = lambda value: value


@dataclass(slots=True)
class Draft:
    """The foreign config `source` (of the file `path`), and our config as far as it is made.

    `folders` says where paths count from. `layers` tells how many layers the root's base has, None where no
    root is known. `method` is what the caller says that the config is for, where the config does not.
    """

    path: Path
    source: dict[str, Any]
    folders: Folders
    layers: Callable[[], int | None] = lambda: None
    method: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    seen: list[Taken] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def take(self, key: str, default: Any = None, *, ours: str = "") -> Any:
        """Return the value of a foreign key, which then counts as translated, into `ours` if that is one."""
        self.asked.add(key)
        value = self.source.pop(key, None)
        if isinstance(value, str) and value.lower() in _SWITCHES:
            value = _SWITCHES[value.lower()]
        if not is_empty(value):
            self.seen.append(Taken(key, value, ours))
        return default if value is None else value

    def set(self, key: str, value: Any) -> None:
        """Set our dotted key."""
        place = self.config
        *sections, last = key.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value

    def get(self, key: str, default: Any = None) -> Any:
        """Return what our dotted key is set to."""
        place: Any = self.config
        for part in key.split("."):
            if not isinstance(place, dict) or part not in place:
                return default
            place = place[part]
        return place

    def change(self, key: str, value: Any, reason: str) -> None:
        """Say that ours does something else than the foreign key asks for."""
        self._note(key, value, reason, Weight.CHANGED)

    def lose(self, key: str, value: Any, reason: str) -> None:
        """Say that the result lacks what the foreign key asks for, unless that is what is done here."""
        if _is_done_here(key, value):
            self.ignore(key, value, "is done here as well")
        else:
            self._note(key, value, reason, Weight.LOST)

    def ignore(self, key: str, value: Any, reason: str) -> None:
        """Say that the foreign key has no counterpart and that nothing that is learnt depends on it."""
        self._note(key, value, reason, Weight.SAME)

    def follow(self, rules: Mapping[str, KeyRule]) -> None:
        """Translate every key of `rules` that the source has."""
        self.asked |= rules.keys()
        for key, rule in rules.items():
            value = self.source.get(key)
            if value is None or value == "":
                self.source.pop(key, None)
                continue
            self.put(rule.key, self.take(key, ours=rule.key), key, rule.convert)

    def put(self, ours: str, value: Any, key: str, convert: Convert) -> None:
        """Set our dotted key to the converted value of the foreign `key`; a note says where it is another.

        Raises: Unusable: naming the key.
        """
        try:
            found = convert(value)
        except Unusable as error:
            raise Unusable(f"{key}: {value!r} {error}") from error
        if isinstance(found, Instead):
            self.change(key, value, found.reason)
            found = found.value
        if found is not None:
            self.set(ours, found)

    def finish(self, lost: Mapping[str, str], same: Mapping[str, str], unknown: str) -> None:
        """Name all that is left; reasons are by a key or, with a `*` at the end, by its beginning."""
        for key in sorted(self.source):
            value = self.source[key]
            if reason := _reason(key, lost):
                self.lose(key, value, reason)
            elif reason := _reason(key, same):
                self.ignore(key, value, reason)
            else:
                near = get_close_matches(key, self.asked | lost.keys() | same.keys(), n=1, cutoff=0.85)
                self.lose(key, value, f"{unknown}; did you mean {near[0]}?" if near else unknown)
        self.source.clear()

    def refuse(self, key: str, value: Any, remedy: str) -> UsageError:
        """Return the error for what no config of ours can say."""
        return UsageError(str(self.path), f"{key}: {shown(value)} cannot be imported", remedy, param=key)

    @property
    def taken(self) -> tuple[Taken, ...]:
        """Return the keys that ours says too and that no note names."""
        named = {re.split(r"[.\[]", note.key)[0] for note in self.notes}
        return tuple(one for one in self.seen if one.key not in named)

    def _note(self, key: str, value: Any, reason: str, weight: Weight) -> None:
        note = Note(key, value, reason, weight)
        if not is_empty(value) and note not in self.notes:
            self.notes.append(note)


def _is_done_here(key: str, value: Any) -> bool:
    """Tell whether the key asks for what training does anyway: answers are learnt, each with its end."""
    name: str = re.split(r"[.\]]", key)[-1]
    if name == "roles_to_train":
        return isinstance(value, list) and bool(value) and set(value) <= {"assistant", "gpt", "model"}
    if name in {"train_on_eos", "train_on_eot"}:
        return bool(value == "turn")
    # A token that only fills up is not a part of what is learnt.
    return name == "special_tokens" and isinstance(value, dict) and set(value) == {"pad_token"}


def is_empty(value: Any) -> bool:
    """Tell whether a value asks for nothing; 0 is a number."""
    return any(value is empty or (type(value) is type(empty) and value == empty) for empty in _EMPTY)


def shown(value: object, width: int = 60) -> str:
    """Return a value on one line of at most `width` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


def number(value: Any) -> float:
    """Read a number; YAML takes `2e-4` for text.

    Raises: Unusable.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise Unusable("is not a number")
    return found


def whole(value: Any) -> int:
    """Read a whole number of at least 1.

    Raises: Unusable.
    """
    found = number(value)
    if found != int(found) or found < 1:
        raise Unusable("is not a whole number of at least 1, which ours must be")
    return int(found)


def positive(value: Any) -> float | Instead:
    """Read a number that our settings want above 0; for another the default is taken."""
    found = number(value)
    if found <= 0:
        return Instead(None, "is not above 0, which ours must be; the default is taken")
    return value if isinstance(value, int) else found


def switch(value: Any) -> bool:
    """Read a switch; other words than off and no (`offload`, `unsloth`) turn it on."""
    return bool(value) and str(value).lower() not in {"off", "no", "none", "0"}


def names(value: Any) -> list[str]:
    """Read names: a list, or text with commas."""
    found: Sequence[Any] = value.split(",") if isinstance(value, str) else list(value)
    return [str(name).strip() for name in found if str(name).strip()]


def adapter_name(text: str, fallback: str) -> str:
    """Return a name that an adapter can have, made of `text` or else of `fallback`."""
    for candidate in (text, fallback, "imported"):
        last = re.sub(r"[^a-z0-9._-]+", "-", candidate.rstrip("/").rpartition("/")[2].lower())
        if found := last.strip("._-")[:63]:
            return found
    return "imported"


def _reason(key: str, reasons: Mapping[str, str]) -> str | None:
    if key in reasons:
        return reasons[key]
    return next(
        (why for name, why in reasons.items() if name.endswith("*") and key.startswith(name[:-1])), None
    )
