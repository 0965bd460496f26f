"""The table of operations about groups and what they used.

Owns no rule: what a group may be is `registry.entries`' decision.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import date, timedelta
from typing import Annotated

from pydantic import Field

from registry.api import group_documents as doc
from registry.api.operation import LocalClient, OperationTable
from registry.entries.groups import GroupStore, entry_changes
from registry.entries.keys import KeyStore
from registry.entries.rights import Group
from registry.entries.usage.report import BY, totals
from registry.entries.usage.rows import day_of
from registry.errors import UsageError

LAST_DAYS = 30
"""How many days usage is told of, today included, where nobody says since when."""

groups = OperationTable("groups")


@groups.add("GET", "/groups")
def list_groups(local: LocalClient) -> doc.GroupList:
    """List every group; `default` is always one."""
    found, problems = _store(local).survey()
    keys = _keys(local)
    return doc.GroupList(
        groups=[doc.GroupDocument.of(group, keys[group.name]) for group in found], problems=problems
    )


@groups.add("POST", "/groups", status=201)
def create_group(local: LocalClient, body: doc.NewGroupRequest) -> doc.GroupDocument:
    """Make a group; `wardrobe keys create --group` makes keys that belong to it."""
    made = _store(local).create(body.applied(Group(body.group)), who=local.who)
    return doc.GroupDocument.of(made, _keys(local)[made.name])


@groups.add("GET", "/groups/{group}")
def show_group(local: LocalClient, group: str) -> doc.GroupDocument:
    """Show one group."""
    return doc.GroupDocument.of(_store(local).get(group), _keys(local)[group])


@groups.add("PATCH", "/groups/{group}")
def change_group(local: LocalClient, group: str, body: doc.GroupRequest) -> doc.GroupDocument:
    """Change what a group may do; servers follow within a second."""
    return doc.GroupDocument.of(_store(local).change(group, body.applied, who=local.who), _keys(local)[group])


@groups.add("GET", "/groups/{group}/history")
def show_group_history(local: LocalClient, group: str) -> doc.GroupHistory:
    """Show every change of a group, oldest first."""
    log = _store(local).history(group)
    found = [doc.GroupChange.of(entry, changed) for entry, changed in entry_changes(log)]
    return doc.GroupHistory(group=group, changes=found)


@groups.add("GET", "/usage")
def show_usage(
    local: LocalClient,
    since: Annotated[str | None, Field(description="The first day (UTC), such as 2026-01-31.")] = None,
    until: Annotated[str | None, Field(description="The last day (UTC), included.")] = None,
    by: Annotated[str, Field(description=f"Any of {', '.join(BY)}; several with commas.")] = "group",
    group: Annotated[str | None, Field(description="Of this group only.")] = None,
) -> doc.UsageReport:
    """Show requests and tokens by group, key, adapter or day, and what they cost where there are prices."""
    today = day_of(time.time())
    last = _day(until, "until") if until else today
    first = _day(since, "since") if since else _before(last, LAST_DAYS - 1)
    words = _words(by)
    periods = list(local.registry.catalogue.usage.between(first, last))
    prices = local.registry.catalogue.root.prices()
    return doc.UsageReport(
        since=first,
        until=last,
        by=words,
        totals=totals(periods, words, prices, group=group),
        currency=prices.currency,
        problems={name: text for period in periods for name, text in period.problems.items()},
    )


def _store(local: LocalClient) -> GroupStore:
    return local.registry.catalogue.groups


def _keys(local: LocalClient) -> Counter[str]:
    now = time.time()
    keys = KeyStore(local.registry.root).list()
    return Counter(key.group for key in keys if key.state(now) == "active")


def _day(text: str, param: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise UsageError(param, f"{text[:40]!r} is no day", "write 2026-01-31", param=param) from error


def _before(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def _words(by: str) -> list[str]:
    asked = [word for word in by.split(",") if word]
    if wrong := [word for word in asked if word not in BY]:
        fact = f"{wrong[0][:40]!r} is nothing that usage is counted by"
        raise UsageError("by", fact, f"name some of {', '.join(BY)}", param="by")
    return [word for word in BY if word in asked]
