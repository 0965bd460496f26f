"""What exists for a group: the registry's view without what its keys may not see (pure).

Owns the filter that every door looks through: names, lists, texts of errors. Invariants: what a group may not
see is as absent as what never was; a group that may see all looks at the very same view; nothing is copied
when the view changes, so a filter costs by the names that are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fnmatch import translate
from types import MappingProxyType
from typing import TypeVar

from registry.entries.openai.tuned import TunedModel
from registry.entries.rights import Group
from registry.names import CANARY, STABLE
from registry.views.view import EMPTY, AdapterView, View

_Entry = TypeVar("_Entry")
_REMEMBERED = 100_000
"""Names whose answer is kept; it depends on the patterns alone."""


class Sight:
    """What adapters exist for a group, and whether the base model does; safe to use from any thread."""

    __slots__ = ("_exact", "_known", "_pattern", "_seen", "base", "everything", "patterns")

    def __init__(self, group: Group) -> None:
        self.patterns = group.adapters
        self.base = group.base
        self.everything = group.unrestricted
        self._exact = frozenset(one for one in group.adapters if "*" not in one)
        # One expression for all patterns: a thousand of them cost a name little more than one.
        patterns = "|".join(translate(one) for one in group.adapters if "*" in one)
        self._pattern = re.compile(patterns) if patterns else None
        self._known: dict[str, bool] = {}
        self._seen: tuple[View, View] = EMPTY, self._filtered(EMPTY)

    def sees(self, adapter: str) -> bool:
        """Return whether an adapter of this name would exist for the group."""
        known = self._known.get(adapter)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[adapter] = self._matches(adapter)
        return known

    def sees_version(self, adapter: str, number: int) -> bool:
        """Return whether what wrote an answer exists for the group; number 0 is the base as an arm."""
        return (number != 0 or self.base) and self.sees(adapter)

    def view(self, view: View) -> View:
        """Return what exists of a view; the same object for the same view."""
        if self.everything:
            return view
        whole, part = self._seen
        if whole is not view:
            part = self._filtered(view)
            self._seen = view, part
        return part

    def _matches(self, adapter: str) -> bool:
        if adapter in self._exact:
            return True
        return self._pattern is not None and self._pattern.match(adapter) is not None

    def _filtered(self, view: View) -> View:
        if self.everything:
            return view
        shown = _as_it_is if self.base else _without_base
        adapters = SeenOnly(view.adapters, self.sees, _adapter, shown)
        return View(view.generation, adapters, SeenOnly(view.tuned, self.sees, _tuned, _as_it_is))


class SeenOnly(Mapping[str, _Entry]):
    """What of a mapping exists for a group: entries whose adapter, by `owner`, does, each as `shown`."""

    __slots__ = ("_every", "_owner", "_sees", "_shown")

    def __init__(
        self,
        every: Mapping[str, _Entry],
        sees: Callable[[str], bool],
        owner: Callable[[_Entry], str],
        shown: Callable[[_Entry], _Entry],
    ) -> None:
        self._every = every
        self._sees = sees
        self._owner = owner
        self._shown = shown

    def __getitem__(self, name: str) -> _Entry:
        """Return an entry. Raises: KeyError: also for one that does not exist for the group alone."""
        one = self._every[name]
        if not self._sees(self._owner(one)):
            raise KeyError(name)
        return self._shown(one)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return (name for name, one in self._every.items() if self._sees(self._owner(one)))

    def __len__(self) -> int:
        """Return how many there are; counts them."""
        return sum(1 for _ in self)


def _as_it_is(one: _Entry) -> _Entry:
    return one


def _adapter(one: AdapterView) -> str:
    return one.name


def _tuned(one: TunedModel) -> str:
    return one.adapter


def _without_base(adapter: AdapterView) -> AdapterView:
    """Return an adapter as it is for who may not ask the base.

    Where the base is the control of its rollout, its name answers as one without stable, until the rollout
    has given all traffic to the version; by name the version can be asked as before.
    """
    entry = adapter.rollout
    if entry is None or entry.stable:
        return adapter
    pointed = {**adapter.aliases, CANARY: entry.canary}
    pointed.pop(STABLE, None)
    if entry.serving:
        pointed[STABLE] = entry.serving
    return replace(adapter, aliases=MappingProxyType(pointed), rollout=None)


EVERYTHING = Sight(Group("everything"))
"""The sight of who sees everything."""
