"""Who answers by a name that was pointed to another version: the one before, until the new one is ready.

Owns what answered last by every adapter's name and alias. Invariants: nobody waits for a load because
somebody else moved a pointer; what is gone or set aside answers nobody; what answered a while ago stays
loaded, so that the way back is at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from registry.records import Version
from registry.views.view import View
from serve.router.residents.pinned import is_gone, stables
from serve.router.residents.residency import Residency


@dataclass(slots=True, eq=False)
class Pointer:
    """One name: the version that it points to since `moved`, and the one that answers.

    `before` answered until `left`. Times are the residency's clock.
    """

    name: str
    wanted: Version
    answering: Version
    moved: float
    before: Version | None = None
    left: float = -math.inf

    @property
    def followed(self) -> bool:
        """Return whether the version that it points to answers."""
        return self.answering.name == self.wanted.name


@dataclass(frozen=True, slots=True)
class PendingMove:
    """A move that is not followed yet: why the new version could not be loaded, '' while it is loading."""

    name: str
    wanted: str
    answering: str
    failure: str

    @property
    def sentence(self) -> str:
        """Return what an operator is told."""
        return f"{self.name}: {self.failure}; {self.answering} goes on answering in place of {self.wanted}"


class Succession:
    """Follows the pointers of a view over the versions of a residency; one event loop.

    `wait_seconds` bounds how long the one before answers while the new one is loading; one that cannot be
    loaded is waited for without bound. `keep_seconds` is how long the one before stays loaded.
    """

    def __init__(self, residency: Residency, wait_seconds: float, keep_seconds: float) -> None:
        self._residency = residency
        self._wait = wait_seconds
        self._keep = keep_seconds
        self._pointers: dict[str, Pointer] = {}

    def answering(self, view: View, name: str, wanted: Version) -> Version:
        """Return what answers by `name`, which points to `wanted`; begin to load that where it must be."""
        now = self._residency.clock()
        pointer = self._pointers.get(name)
        if pointer is None:
            pointer = self._pointers[name] = Pointer(name, wanted, wanted, now)
        if pointer.wanted.name != wanted.name:
            pointer.wanted, pointer.moved = wanted, now
        if not pointer.followed:
            self._follow(view, pointer, now)
        if pointer.followed or self._is_overdue(pointer, now):
            return wanted
        return pointer.answering

    def observe(self, view: View) -> None:
        """Take note of every stable of a new view, and forget the names of adapters that are gone."""
        for name in [name for name in self._pointers if name.partition("@")[0] not in view.adapters]:
            del self._pointers[name]
        for version in stables(view):
            self.answering(view, version.adapter, version)

    def settle(self, view: View) -> None:
        """Look whether what is pending is ready by now; whoever asks by a name would see it, too."""
        now = self._residency.clock()
        for pointer in self._pointers.values():
            if not pointer.followed:
                self._follow(view, pointer, now)

    def kept(self, view: View) -> list[Version]:
        """Return what is to stay loaded: what answers in another's place, and what answered a while ago."""
        now = self._residency.clock()
        found = []
        for pointer in self._pointers.values():
            if not pointer.followed:
                found.append(pointer.answering)
            elif pointer.before is not None and now - pointer.left < self._keep:
                found.append(pointer.before)
        return [one for one in found if not is_gone(view, one)]

    def pending(self) -> Iterator[PendingMove]:
        """Yield the moves that are not followed yet."""
        for name, pointer in sorted(self._pointers.items()):
            if not pointer.followed:
                failure, _ = self._residency.failure(pointer.wanted.name)
                yield PendingMove(name, pointer.wanted.name, pointer.answering.name, failure)

    def _follow(self, view: View, pointer: Pointer, now: float) -> None:
        wanted, old = self._residency.slot(pointer.wanted), self._residency.slot(pointer.answering)
        if wanted.ready:
            pointer.before, pointer.left = pointer.answering, now
            pointer.answering = pointer.wanted
        elif not old.ready or is_gone(view, pointer.answering):
            pointer.answering = pointer.wanted
        else:
            self._residency.begin(wanted)

    def _is_overdue(self, pointer: Pointer, now: float) -> bool:
        failed = self._residency.slot(pointer.wanted).failure is not None
        return not failed and now - pointer.moved >= self._wait
