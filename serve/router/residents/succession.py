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
from registry.views.view import EMPTY, View
from serve.router.residents.pinned import is_gone, stable_of
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
        return self.answering is self.wanted or self.answering.name == self.wanted.name


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
    loaded is waited for without bound. `keep_seconds` is how long the one before stays loaded. What is asked
    of it again and again costs by the pointers that moved, not by the adapters that there are.
    """

    def __init__(self, residency: Residency, wait_seconds: float, keep_seconds: float) -> None:
        self._residency = residency
        self._wait = wait_seconds
        self._keep = keep_seconds
        self._pointers: dict[str, Pointer] = {}
        self._aliases: set[str] = set()
        self._moved: dict[str, Pointer] = {}
        self._silent: dict[str, str] = {}
        self._seen: View = EMPTY

    def answering(self, view: View, name: str, wanted: Version) -> tuple[Version, bool]:
        """Return what answers by `name`, which points to `wanted`, and whether that lasts with the view.

        What must be loaded for it is begun.
        """
        now = self._residency.clock()
        pointer = self._pointers.get(name)
        if pointer is None:
            pointer = self._pointers[name] = Pointer(name, wanted, wanted, now)
            if "@" in name:
                self._aliases.add(name)
        if pointer.wanted is not wanted and pointer.wanted.name != wanted.name:
            pointer.wanted, pointer.moved = wanted, now
            self._moved[name] = pointer
        if not pointer.followed:
            self._follow(view, pointer, now)
        if pointer.followed or self._must_wait(view, pointer, now):
            return wanted, pointer.followed
        return pointer.answering, False

    def stand_in(self, view: View, name: str) -> Version | None:
        """Return what answers by a name that points to what may not be served; None if nothing does."""
        pointer = self._pointers.get(name)
        if pointer is None or pointer.followed or is_gone(view, pointer.answering):
            return None
        return pointer.answering

    def observe(self, view: View) -> None:
        """Take note of every stable that a new view has changed, and forget the names that are gone."""
        changed, self._seen = view.changed_since(self._seen), view
        for name in [name for name in (*changed, *self._aliases) if not _is_there(view, name)]:
            self._forget(name)
        for name in sorted(changed):
            version = stable_of(view, name)
            if version is not None:
                self.answering(view, name, version)
            self._note_silence(view, name)

    def silent(self) -> list[str]:
        """Return the adapters that nothing answers for by their name, with the version, in sentences."""
        return [f"{name}: {fact}" for name, fact in sorted(self._silent.items())]

    def _note_silence(self, view: View, name: str) -> None:
        adapter = view.adapters.get(name)
        number = None if adapter is None or adapter.rollout else adapter.aliases.get("stable")
        if adapter is None or number not in adapter.quarantined or self.stand_in(view, name) is not None:
            self._silent.pop(name, None)
        else:
            fact = f"{name}@{number} is in quarantine and nothing answers in its place"
            self._silent[name] = f"{fact}; `wardrobe rollback {name}`, or promote another version"

    def settle(self, view: View) -> None:
        """Look whether what is pending is ready by now; whoever asks by a name would see it, too."""
        now = self._residency.clock()
        for name, pointer in list(self._moved.items()):
            if not pointer.followed:
                self._follow(view, pointer, now)
            elif pointer.before is None or now - pointer.left >= self._keep:
                del self._moved[name]

    def kept(self, view: View) -> list[Version]:
        """Return what is to stay loaded: what answers in another's place, and what answered a while ago."""
        now = self._residency.clock()
        found = []
        for pointer in self._moved.values():
            if not pointer.followed:
                found.append(pointer.answering)
            elif pointer.before is not None and now - pointer.left < self._keep:
                found.append(pointer.before)
        return [one for one in found if not is_gone(view, one)]

    def pending(self, view: View) -> Iterator[PendingMove]:
        """Yield the moves that are not followed yet."""
        for name, pointer in sorted(self._moved.items()):
            if not pointer.followed:
                wanted = pointer.wanted
                failure, _ = self._residency.failure(wanted.name)
                if is_gone(view, wanted):
                    failure = f"{wanted.name} is deleted or in quarantine"
                yield PendingMove(name, wanted.name, pointer.answering.name, failure)

    def _follow(self, view: View, pointer: Pointer, now: float) -> None:
        wanted, old = self._residency.slot(pointer.wanted), self._residency.slot(pointer.answering)
        if wanted.ready:
            self._release(pointer)
            pointer.before, pointer.left = pointer.answering, now
            pointer.answering = pointer.wanted
        elif is_gone(view, pointer.answering):
            self._release(pointer)
            pointer.answering = pointer.wanted
        else:
            old.standing_in = True
            if not is_gone(view, pointer.wanted):
                self._residency.begin(wanted)
            if not old.ready and self._cannot_be(view, pointer):
                self._residency.begin(old)  # it had to make room for what could not be loaded then

    def _forget(self, name: str) -> None:
        self._aliases.discard(name)
        self._moved.pop(name, None)
        pointer = self._pointers.pop(name, None)
        if pointer is not None:
            self._release(pointer)

    def _release(self, pointer: Pointer) -> None:
        self._residency.slot(pointer.answering).standing_in = False

    def _cannot_be(self, view: View, pointer: Pointer) -> bool:
        """Return whether the version that is wanted could not be loaded, or may not be."""
        return is_gone(view, pointer.wanted) or self._residency.slot(pointer.wanted).failure is not None

    def _must_wait(self, view: View, pointer: Pointer, now: float) -> bool:
        """Return whether a request waits for the wanted version: nothing else is there, or it takes long."""
        if self._cannot_be(view, pointer):
            return False
        return not self._residency.slot(pointer.answering).ready or now - pointer.moved >= self._wait


def _is_there(view: View, name: str) -> bool:
    adapter, _, alias = name.partition("@")
    known = view.adapters.get(adapter)
    return known is not None and (not alias or alias in known.aliases)
