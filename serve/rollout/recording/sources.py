"""Whose evidence it is: which group and key sent a request, and how much of one source is taken.

Owns the rule of shares. A unit or rating of a source is taken while the source holds at most `share` of what
was taken at this weight by this replica, and `allowance` more:

    mine + 1 <= share / (1 - share) * others + allowance

first among groups, then among the keys of the group. Invariant: the rule looks at who asks and at counts of
what was taken before, over all arms; never at an arm, an outcome, a time or a score. So what is taken falls
into arms as the hash throws it, and every test stays valid (`serve/rollout/statistics/derivations.md` 12).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from registry.entries.keyring import ANONYMOUS, Caller
from registry.entries.rights import DEFAULT_GROUP
from serve.rollout.policy import EvidenceShares

UNITS_ALLOWANCE = 10
"""Units that are taken of a source whatever the others send: fewer than any step asks for."""

RATINGS_ALLOWANCE = 3
"""Ratings likewise: too few to prove anything, at any alpha up to a half."""


class Source(NamedTuple):
    """Who sent a request: the name of a group and the id of one of its keys."""

    group: str
    key: str

    @property
    def label(self) -> str:
        """Return `group/key`, as documents name it."""
        return f"{self.group}/{self.key}"

    @classmethod
    def of(cls, caller: Caller) -> Source | None:
        """Return the source that a caller is, None where its group gives no evidence."""
        group = caller.group
        return cls(group.name, caller.who) if group.evidence else None

    @classmethod
    def read(cls, label: str) -> Source:
        """Return the source that a label names."""
        group, _, key = label.partition("/")
        return cls(group, key)


NOBODY_ELSE = Source(DEFAULT_GROUP, ANONYMOUS)
"""Whose every request is where keys are not in use."""


class EvidenceGivers:
    """Who gives evidence of one rollout: the groups that may, and the keys that have been seen.

    `several_groups`: more than one group does, or may and has a key to do so with.
    """

    __slots__ = ("_groups", "_keys", "_met", "several_groups")

    def __init__(self) -> None:
        self._groups: set[str] = set()
        self._met: set[Source] = set()
        self._keys: Counter[str] = Counter()
        self.several_groups = False

    def expect(self, givers: frozenset[str]) -> None:
        """Take note of the groups that may give evidence from now on, beside those that were seen."""
        self._groups = {*givers, *self._keys}
        self.several_groups = len(self._groups) > 1

    def meet(self, source: Source) -> None:
        """Take note that a source sent something."""
        if source not in self._met:
            self._met.add(source)
            self._keys[source.group] += 1
            self._groups.add(source.group)
            self.several_groups = len(self._groups) > 1

    def several_keys(self, group: str) -> bool:
        """Return whether more than one key of a group was seen."""
        return self._keys[group] > 1

    def name_of(self, source: Source) -> str:
        """Return a source's name among the others: its group's, or in the only group its key's label."""
        return source.group if self.several_groups else source.label


class SharedRoom:
    """What was taken of each source: units, or ratings, over all arms."""

    __slots__ = ("_allowance", "_crowd", "_groups", "_keys", "_shares", "_total")

    def __init__(self, shares: EvidenceShares, crowd: EvidenceGivers, allowance: int) -> None:
        self._shares = shares
        self._crowd = crowd
        self._allowance = allowance
        self._groups: Counter[str] = Counter()
        self._keys: Counter[Source] = Counter()
        self._total = 0

    def take(self, source: Source) -> bool:
        """Take one more of a source, unless it is over its share; return whether it was taken."""
        self._crowd.meet(source)
        group = source.group
        mine, own = self._groups[group], self._keys[source]
        if self._crowd.several_groups and self._over(self._shares.group_share, mine, self._total):
            return False
        if self._crowd.several_keys(group) and self._over(self._shares.key_share, own, mine):
            return False
        self._groups[group] = mine + 1
        self._keys[source] = own + 1
        self._total += 1
        return True

    def _over(self, share: float, mine: int, total: int) -> bool:
        """Return whether a source that holds `mine` of `total` may not have one more."""
        if share >= 1:
            return False
        return (mine + 1 - self._allowance) * (1 - share) > share * (total - mine)


class Room:
    """What one replica took at one weight; `left_out` are units that were not, as many as are remembered."""

    __slots__ = ("left_out", "ratings", "units")

    def __init__(self, shares: EvidenceShares, crowd: EvidenceGivers) -> None:
        self.units = SharedRoom(shares, crowd, UNITS_ALLOWANCE)
        self.ratings = SharedRoom(shares, crowd, RATINGS_ALLOWANCE)
        self.left_out: set[str] = set()
