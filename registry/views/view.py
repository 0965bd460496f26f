"""The view: the whole registry in memory, for the hot path.

Owns the snapshot and how a model name is resolved in it; `registry.watcher` keeps one up to date.
Invariants: a `View` never changes, a newer one takes its place; reading one touches no disk and no lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from registry.entries.openai.tuned import TunedModel
from registry.errors import NotFound, Quarantined
from registry.names import CANARY, STABLE, ModelRef
from registry.records import RolloutEntry, Version

_LISTED = 20


@dataclass(frozen=True, slots=True)
class AdapterView:
    """One adapter: its live versions, present aliases, quarantine reasons, and which versions are proved.

    A live version whose manifest cannot be read is in `quarantined` and not in `versions`. `rollout` is the
    present entry of the open rollout, if one is open; it alone decides what `stable` and `canary` are.
    """

    name: str
    versions: Mapping[int, Version]
    aliases: Mapping[str, int]
    quarantined: Mapping[int, str]
    proved: frozenset[int]
    rollout: RolloutEntry | None = None

    def resolve(self, ref: ModelRef) -> Version:
        """Return the version that `ref`, a name of this adapter, means now.

        Raises: NotFound: lists what exists; Quarantined.
        """
        number = ref.version
        if number is None:
            alias = ref.alias or STABLE
            number = self._pointed(alias)
            if not number:
                raise self.no_alias(ref, ref.alias)
        reason = self.quarantined.get(number)
        if reason is not None:
            fact = f"{self.name}@{number} is quarantined ({reason})"
            others = _join(str(one) for one in sorted(self.versions.keys() - self.quarantined.keys()))
            raise Quarantined(str(ref), fact, f"choose another version: {others}", param="model")
        version = self.versions.get(number)
        if version is None:
            raise self.no_version(number, str(ref))
        return version

    def _pointed(self, alias: str) -> int | None:
        if self.rollout is not None and alias == STABLE:
            return self.rollout.serving
        if self.rollout is not None and alias == CANARY:
            return self.rollout.canary
        return self.aliases.get(alias)

    def no_version(self, number: int, subject: str = "", *, deleted: bool = False) -> NotFound:
        """Return the error that version `number` does not exist, or no more."""
        name = f"{self.name}@{number}"
        fact = f"{name} was deleted" if deleted else f"there is no {name}"
        return NotFound(subject or name, fact, f"versions: {self._numbers()}", param="version")

    def no_alias(self, ref: ModelRef | str, alias: str | None) -> NotFound:
        """Return the error that `ref` names an alias that is not there; None: it names the adapter alone."""
        if alias == CANARY:
            fact, remedy = "no rollout is open", f"ask for {self.name} or one of its versions"
        elif alias is None:
            fact = f"has no {STABLE} version"
            remedy = f"promote one (`wardrobe promote {self.name}@N`) or ask for {self.name}@N"
        else:
            fact, remedy = f"there is no alias {alias}", f"aliases: {_join(sorted(self.aliases))}"
        return NotFound(str(ref), fact, f"{remedy}; versions: {self._numbers()}", param="alias")

    def _numbers(self) -> str:
        return _join(str(number) for number in sorted(self.versions))


@dataclass(frozen=True, slots=True)
class View:
    """A snapshot of every adapter and of the names of tuned models; `generation` grows with every change."""

    generation: int
    adapters: Mapping[str, AdapterView]
    tuned: Mapping[str, TunedModel] = field(default_factory=lambda: MappingProxyType({}))

    def changed_since(self, before: View) -> set[str]:
        """Return the adapters that are new, gone or not as they were in `before`."""
        now, then = self.adapters, before.adapters
        changed = {name for name, one in now.items() if then.get(name) is not one}
        return changed if len(now) - len(changed) == len(then) else changed | (then.keys() - now.keys())

    def resolve(self, ref: ModelRef) -> Version:
        """Return the version that `ref` means in this snapshot.

        Raises: NotFound: lists what exists; Quarantined.
        """
        adapter = self.adapters.get(ref.adapter)
        if adapter is None:
            raise no_adapter(ref, self.adapters)
        return adapter.resolve(ref)

    def follow(self, model: TunedModel) -> Version:
        """Return the version that answers by the name of a tuned model.

        Raises: NotFound: it was deleted, or is not the one that got the name; Quarantined.
        """
        version = self.resolve(ModelRef(model.adapter, version=model.version))
        if version.digest != model.digest:
            fact = f"was given to another {model.target} than the one that is here"
            raise NotFound(model.name, fact, "restore the root whole, or delete this name", param="model")
        return version


EMPTY = View(0, MappingProxyType({}))


def no_adapter(ref: ModelRef | str, known: Iterable[str]) -> NotFound:
    """Return the error that an adapter does not exist; `known` are those that do."""
    fact = "there is no such adapter"
    return NotFound(str(ref), fact, f"adapters: {_join(sorted(known))}", param="name")


def _join(names: Iterable[str]) -> str:
    found = list(names)
    if len(found) > _LISTED:
        return f"{', '.join(found[:_LISTED])} and {len(found) - _LISTED} more"
    return ", ".join(found) or "none"
