"""How each caller's requests go through: what exists for it, and what is done to its requests.

Owns what is made once per key and change of the groups, so that a request costs one look-up. Invariant: while
no group was ever made or changed, nothing is filtered, salted or refused that was not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from msgspec import Raw

from registry.entries.keyring import Caller, KeyRing
from registry.entries.rights import DEFAULT_GROUP, Group
from serve.engine.steps.tags import PRIORITY as PRIORITY_HEADER
from serve.errors import BadBody
from serve.groups.salting import GroupSalt
from serve.groups.sight import EVERYTHING, Sight
from serve.rollout.recording.sources import Source
from serve.router.endpoints.response_id import BASE_SUBJECT, read_claim
from serve.router.targets import Targets

PRIORITY = "priority"
_NO_PRIORITY = frozenset({b"null", b"0"})

_CALLERS = 10_000
"""Callers that are known at once; each is one key at one time."""

_AS_MADE = Group(DEFAULT_GROUP)


@dataclass(frozen=True, slots=True, eq=False)
class CallerAccess:
    """What a caller may reach: `targets`, `sight` of its group; `salt` where groups share the prefix cache.

    `guarded`: its requests are to be looked at by `pass_through`. `source`: whose evidence they are, None of
    a group that gives none.
    """

    caller: Caller
    sight: Sight
    targets: Targets
    salt: GroupSalt | None
    may_prioritise: bool
    guarded: bool
    source: Source | None

    def pass_through(self, fields: dict[str, Raw], headers: Mapping[bytes, bytes]) -> None:
        """Salt a request, and pass where its client sets no priority that it may not set.

        Raises: BadBody.
        """
        if not self.may_prioritise:
            own = fields.get(PRIORITY)
            if (own is not None and bytes(own) not in _NO_PRIORITY) or PRIORITY_HEADER in headers:
                fact = f"may not be set by clients of the group `{self.caller.group.name}`"
                raise BadBody(PRIORITY, fact, "leave it out", param=PRIORITY)
        if self.salt is not None:
            self.salt.season(fields)

    def sees_answer(self, response_id: str) -> bool:
        """Return whether what wrote the answer with this id exists for the caller; True for a foreign id."""
        claim = read_claim(response_id)
        if claim is None:
            return True
        if f"{claim.version}.{claim.arm}" == BASE_SUBJECT:
            return self.sight.base
        return self.sight.sees_version(claim.adapter, int(claim.version.rpartition("@")[2]))


class AccessRules:
    """The access of all callers of one router; `key` gives the secret of salts.

    `prioritises` says that the operator has chosen vLLM's order by priority: without groups clients set it.
    """

    __slots__ = ("_groups", "_in_use", "_key", "_keys", "_known", "_prioritises", "_sights", "_targets")

    def __init__(
        self, keys: KeyRing, targets: Targets, key: Callable[[], bytes], *, prioritises: bool = False
    ) -> None:
        self._prioritises = prioritises
        self._keys = keys
        self._targets = targets
        self._key = key
        self._groups: Mapping[str, Group] = MappingProxyType({})
        self._in_use = False
        self._known: dict[Caller, CallerAccess] = {}
        self._sights: dict[tuple[tuple[str, ...], bool], tuple[Sight, Targets]] = {}

    @property
    def hides(self) -> bool:
        """Return whether something may be hidden from somebody."""
        return any(not one.unrestricted for one in self._keys.groups.values())

    def of(self, caller: Caller) -> CallerAccess:
        """Return a caller's access."""
        if self._keys.groups is not self._groups:
            self._renew()
        access = self._known.get(caller)
        if access is None:
            if len(self._known) >= _CALLERS:
                self._known.clear()
            access = self._known[caller] = self._make(caller)
        return access

    def looks(self, caller: Caller) -> Sight:
        """Return what a caller sees that only looks: everything where its scopes say so."""
        return EVERYTHING if caller.sees_all else self.of(caller).sight

    def _renew(self) -> None:
        self._groups = groups = self._keys.groups
        self._in_use = len(groups) > 1 or groups.get(DEFAULT_GROUP) != _AS_MADE
        self._known = {}
        kept = {(one.adapters, one.base) for one in groups.values()}
        self._sights = {key: value for key, value in self._sights.items() if key in kept}

    def _make(self, caller: Caller) -> CallerAccess:
        group = caller.group
        sight, targets = self._look(group)
        # A default group alone has nobody to be told apart from.
        salt = GroupSalt(self._key(), group.name) if self._groups.keys() - {DEFAULT_GROUP} else None
        may_prioritise = group.priority or (self._prioritises and not self._in_use)
        guarded = salt is not None or not may_prioritise
        return CallerAccess(caller, sight, targets, salt, may_prioritise, guarded, Source.of(caller))

    def _look(self, group: Group) -> tuple[Sight, Targets]:
        if group.unrestricted:
            return EVERYTHING, self._targets
        key = group.adapters, group.base
        found = self._sights.get(key)
        if found is None:
            sight = Sight(group)
            found = self._sights[key] = sight, self._targets.seen_by(sight)
        return found
