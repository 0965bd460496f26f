"""Settlement: where rollouts meet aliases, deletions and each other.

Owns the appending of a rollout's entry and of the `stable` move that follows it. Invariants: an adapter
has at most one open rollout; one that begins, and an alias move or a delete at the same time, look again
after their write and step back when the other was there; `stable` is settled before a rollout is closed
and before the next one begins, so nothing is owed by any but the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from registry.entries.aliases import AliasTarget, LoggedMove
from registry.entries.rollouts import Decide, check_rollout_id, owed
from registry.errors import Conflict, Quarantined, StorageFailed
from registry.names import STABLE
from registry.records import AliasMove, RolloutEntry, Version
from registry.views.catalogue import Catalogue


def append(catalogue: Catalogue, adapter: str, decide: Decide) -> RolloutEntry | None:
    """Append what `decide` makes of the last entry, tell watchers, and settle `stable`.

    None when `decide` decides for none; `stable` is settled all the same.

    Raises: Conflict: a rollout is open already, is closed for good, or a version of one that begins was
    deleted, moved or quarantined; NotFound; CorruptStore; StorageFailed; whatever `decide` raises.
    """
    began = False

    def checked(last: RolloutEntry | None) -> RolloutEntry | None:
        nonlocal began
        entry = decide(last)
        if entry is None:
            return None
        began = last is None or last.rollout != entry.rollout
        _refuse_break(last, entry)
        if last is not None and (began or entry.state == "closed"):
            settle(catalogue, adapter)
        if began:
            _refuse_unfit(catalogue, entry)
        return entry

    made = catalogue.rollouts.append(adapter, checked)
    if made is not None:
        catalogue.mark(adapter)
        if began:
            _withdraw_if_unfit(catalogue, made)
    # The entry stands and decides what `stable` means; a disk too full for the alias does not undo that.
    with contextlib.suppress(StorageFailed):
        settle(catalogue, adapter)
    return made


def settle(catalogue: Catalogue, adapter: str) -> AliasMove | None:
    """Make the move of `stable` that the last rollout asks for; None when nothing is owed.

    Raises: CorruptStore; StorageFailed.
    """
    last = catalogue.rollouts.last(adapter)
    if last is None or last.state == "closed":
        return None
    settled: AliasMove | None = None
    # Again until nothing is owed: the rollout may have moved on while the alias was written.
    while (move := _settle_once(catalogue, adapter, last.who)) is not None:
        settled = move
    if settled is not None:
        catalogue.mark(adapter)
    return settled


def refuse_open(catalogue: Catalogue, adapter: str, number: int | None = None) -> None:
    """Refuse a change to `stable`, or to version `number`, that an open rollout decides.

    Raises: Conflict: names the rollout.
    """
    entry = catalogue.rollouts.last(adapter)
    if entry is None or not entry.open or number not in {None, entry.canary, entry.stable}:
        return
    subject = f"{adapter}@{STABLE if number is None else number}"
    control = f"{adapter}@{entry.stable}" if entry.stable else "the base model"
    fact = f"rollout {entry.rollout} of {adapter}@{entry.canary} against {control} is open ({entry.state})"
    raise Conflict(subject, fact, f"wait until it has ended, or `wardrobe rollout abort {adapter}`")


def require_servable(catalogue: Catalogue, adapter: str, number: int) -> Version:
    """Return a live version that is neither being deleted nor quarantined.

    Raises: NotFound; Conflict; Quarantined.
    """
    version = catalogue.require_version(adapter, number)
    if catalogue.tombstones.exists(adapter, number):
        # Void, because something else uses it: a delete is at work, or was killed at work.
        remedy = "try again; `wardrobe gc --apply` forgets a delete that was interrupted an hour ago"
        raise Conflict(version.name, "is being deleted", remedy)
    order = catalogue.quarantine.read(adapter, number)
    if order is not None:
        fact = f"is quarantined ({order.reason})"
        raise Quarantined(version.name, fact, "choose another version", param="version")
    return version


def _settle_once(catalogue: Catalogue, adapter: str, who: str) -> AliasMove | None:
    def decide(log: Sequence[LoggedMove]) -> AliasTarget | None:
        # Read after the log was: an entry that is newer than the alias is seen here.
        return owed(catalogue.rollouts.last(adapter), log)

    return catalogue.aliases.append(adapter, STABLE, decide, who)


def _refuse_break(last: RolloutEntry | None, entry: RolloutEntry) -> None:
    """Refuse an entry that does not go on with the open rollout, or that goes on with an ended one."""
    check_rollout_id(entry.rollout)
    if last is None:
        return
    if last.open and last.rollout != entry.rollout:
        fact = f"rollout {last.rollout} of {last.adapter}@{last.canary} is open ({last.state})"
        remedy = f"wait until it has ended, or `wardrobe rollout abort {last.adapter}`"
        raise Conflict(f"{entry.adapter}@{entry.canary}", fact, remedy)
    if not last.open and last.rollout == entry.rollout:
        raise Conflict(entry.adapter, f"rollout {last.rollout} has ended ({last.state})", "start a new one")


def _refuse_unfit(catalogue: Catalogue, entry: RolloutEntry) -> None:
    require_servable(catalogue, entry.adapter, entry.canary)
    if entry.stable:
        require_servable(catalogue, entry.adapter, entry.stable)
    fact = _moved(catalogue, entry)
    if fact:
        raise Conflict(f"{entry.adapter}@{entry.canary}", fact, "start the rollout again")


def _moved(catalogue: Catalogue, entry: RolloutEntry) -> str:
    present = catalogue.aliases.last(entry.adapter, STABLE)
    version = present.version if present else None
    if version == (entry.stable or None):
        return ""
    control = f"{entry.adapter}@{entry.stable}" if entry.stable else "the base model"
    found = f"{entry.adapter}@{version}" if version else "no version"
    return f"the rollout is against {control}, but {STABLE} points to {found}"


def _withdraw_if_unfit(catalogue: Catalogue, entry: RolloutEntry) -> None:
    """End a rollout whose versions were deleted, or whose `stable` was moved, while it began."""
    fact = _moved(catalogue, entry)
    for number in (entry.canary, entry.stable):
        if number and catalogue.tombstones.exists(entry.adapter, number):
            fact = f"{entry.adapter}@{number} was deleted at the same time"
    if not fact:
        return

    def decide(last: RolloutEntry | None) -> RolloutEntry | None:
        if last is None or not last.open or last.rollout != entry.rollout:
            return None
        return _withdrawn(last, fact, catalogue.clock())

    catalogue.rollouts.append(entry.adapter, decide)
    catalogue.mark(entry.adapter)
    raise Conflict(f"{entry.adapter}@{entry.canary}", fact, "start the rollout again")


def _withdrawn(last: RolloutEntry, fact: str, now: float) -> RolloutEntry:
    return replace(
        last,
        seq=last.seq + 1,
        state="rolled_back",
        event="supersede",
        at=now,
        state_since=now,
        weight=0,
        base_weight=0,
        shadow=0,
        held_weight=0,
        resumes="",
        reason="withdrawn",
        sentence=f"The rollout was withdrawn as it began: {fact}.",
        facts={},
    )
