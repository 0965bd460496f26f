"""The documents of groups and of usage, and the bodies that make and change a group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import Field

from registry.api.documents import Document, Request
from registry.entries.groups import GroupEntry
from registry.entries.rights import LIMITS, Group, GroupLimits, check_limits, check_scopes
from registry.entries.usage.report import UsageTotal


class GroupDocument(Document):
    """One group; `keys` are its active ones. A limit of null is none."""

    group: str
    adapters: list[str]
    base: bool
    scopes: list[str]
    limits: GroupLimits
    weight: float
    evidence: bool
    priority: bool
    keys: int

    @classmethod
    def of(cls, group: Group, keys: int) -> GroupDocument:
        """Return the document of a group."""
        return cls(
            group=group.name,
            adapters=list(group.adapters),
            base=group.base,
            scopes=sorted(group.scopes),
            limits=group.limits,
            weight=group.weight,
            evidence=group.evidence,
            priority=group.priority,
            keys=keys,
        )


class GroupList(Document):
    """Every group by name; `problems` says which cannot be read: nobody gets in with their keys."""

    groups: list[GroupDocument]
    problems: dict[str, str] = Field(default={})


class GroupChange(Document):
    """One change of a group; `changed` says what it made anew, in words."""

    seq: int
    at: float
    who: str
    changed: dict[str, str]

    @classmethod
    def of(cls, entry: GroupEntry, changed: Mapping[str, str]) -> GroupChange:
        """Return the document of an entry of its log."""
        return cls(seq=entry.seq, at=entry.at, who=entry.who, changed=dict(changed))


class GroupHistory(Document):
    """Every change of one group, oldest first."""

    group: str
    changes: list[GroupChange]


class GroupRequest(Request):
    """What a group shall be; what is not given stays as it is.

    `adapters` are patterns of names; `limits` name those to change, null takes one away.
    """

    adapters: list[str] | None = None
    base: bool | None = None
    scopes: list[str] | None = None
    limits: dict[str, int | None] = Field(default={}, description=f"Any of {', '.join(LIMITS)}.")
    weight: float | None = None
    evidence: bool | None = None
    priority: bool | None = None

    def applied(self, group: Group) -> Group:
        """Return `group` with these changes.

        Raises: UsageError: a scope or a limit that does not exist.
        """
        given = self.model_dump(exclude_none=True, exclude={"adapters", "scopes", "limits", "group"})
        if self.adapters is not None:
            given["adapters"] = tuple(self.adapters)
        if self.scopes is not None:
            given["scopes"] = check_scopes(self.scopes)
        limits = {name: getattr(group.limits, name) for name in LIMITS} | self.limits
        return replace(group, **given, limits=check_limits(limits))


class NewGroupRequest(GroupRequest):
    """A group to make; what is not given is as in a group that may do everything."""

    group: str


class UsageReport(Document):
    """What was used from `since` to `until` (days in UTC, both included), by what was asked.

    `currency` is empty where the root has no prices. `problems` are files that cannot be read, and whose
    numbers are missing.
    """

    since: str
    until: str
    by: list[str]
    totals: list[UsageTotal]
    currency: str = ""
    problems: dict[str, str] = Field(default={})
