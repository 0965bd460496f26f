"""What can end, where things need one another: rules of a grammar, schemas with references (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable


class Needs:
    """Things that end once each of their needs is met; each need by any one of its choices.

    The work is linear in the choices of all needs: what ends tells those that wait for it.
    """

    def __init__(self) -> None:
        self._known: set[Hashable] = set()
        self._open: dict[Hashable, int] = defaultdict(int)
        self._waiting: dict[Hashable, list[list[Hashable]]] = defaultdict(list)

    def add(self, one: Hashable) -> None:
        """Have `one` known; what is known and has no needs ends."""
        self._known.add(one)

    def need(self, one: Hashable, choices: Collection[Hashable]) -> None:
        """Let `one` end only once one of `choices` does."""
        self._known.update(choices, (one,))
        self._open[one] += 1
        owner = [one]  # shared by the choices, and emptied by the first that ends
        for choice in choices:
            self._waiting[choice].append(owner)

    def ending(self) -> set[Hashable]:
        """Return everything that ends; to be called once."""
        found = [one for one in self._known if not self._open[one]]
        ending = set(found)
        while found:
            for owner in self._waiting.pop(found.pop(), ()):
                if owner:
                    one = owner.pop()
                    self._open[one] -= 1
                    if not self._open[one]:
                        ending.add(one)
                        found.append(one)
        return ending
