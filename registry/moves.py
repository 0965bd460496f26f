"""Alias moves and deletions, which may race with each other.

Owns the rules that join aliases, tombstones and quarantine. Invariant: both look again after their write
and step back when the other was there, so an alias never ends on a version that was deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from registry.aliases import Target, undo_target
from registry.catalogue import Catalogue
from registry.errors import Conflict, CorruptStore, InvalidName, NotFound, Quarantined
from registry.names import CANARY, STABLE, check_alias_name
from registry.records import AliasMove, Version


def check_settable(alias: str) -> str:
    """Return `alias` if a person may set it.

    Raises: InvalidName: for `canary`, which only a rollout moves.
    """
    if alias == CANARY:
        raise InvalidName(
            repr(alias), "is moved by rollouts only", "use another alias or start a rollout", param="alias"
        )
    return check_alias_name(alias)


def point(catalogue: Catalogue, adapter: str, alias: str, number: int, *, who: str, why: str) -> AliasMove:
    """Point `alias` to a live version; where it points there already, return the move that did it.

    Raises: InvalidName; NotFound; Quarantined; Conflict: the version was deleted at the same time.
    """
    check_settable(alias)
    version = _require_servable(catalogue, adapter, number)
    present: AliasMove | None = None

    def decide(log: Sequence[AliasMove]) -> Target | None:
        nonlocal present
        present = log[-1] if log and log[-1].version == number else None
        return None if present else Target(number, version.digest, why)

    move = catalogue.aliases.append(adapter, alias, decide, who)
    if move is None:
        assert present is not None
        return present
    _step_back_if_deleted(catalogue, move, who)
    catalogue.mark(adapter)
    return move


def unset(catalogue: Catalogue, adapter: str, alias: str, *, who: str) -> AliasMove:
    """Remove an alias.

    Raises: InvalidName; NotFound: there is no such alias.
    """
    catalogue.require(adapter)

    def decide(log: Sequence[AliasMove]) -> Target | None:
        return Target(None, None, "alias removed") if log and log[-1].version is not None else None

    move = catalogue.aliases.append(adapter, check_settable(alias), decide, who)
    if move is None:
        raise NotFound(f"{adapter}@{alias}", "there is no such alias", param="alias")
    catalogue.mark(adapter)
    return move


def roll_back(catalogue: Catalogue, adapter: str, *, who: str) -> AliasMove:
    """Undo the last forward move of `stable`, skipping deleted and quarantined versions.

    Raises: NotFound: no such adapter; Conflict: there is nothing to go back to.
    """
    catalogue.require(adapter)

    def decide(log: Sequence[AliasMove]) -> Target:
        barred = {*catalogue.tombstones.numbers(adapter), *catalogue.quarantine.reasons(adapter)}
        target = undo_target(log, set(catalogue.versions.numbers(adapter)) - barred)
        if target is None:
            raise Conflict(
                f"{adapter}@{STABLE}",
                "has no earlier version that is neither deleted nor quarantined",
                f"promote another one: `wardrobe promote {adapter}@N`",
            )
        return Target(target.version, target.digest, "rollback", target.seq)

    move = catalogue.aliases.append(adapter, STABLE, decide, who)
    assert move is not None
    _step_back_if_deleted(catalogue, move, who)
    catalogue.mark(adapter)
    return move


def delete(catalogue: Catalogue, adapter: str, number: int, *, who: str) -> None:
    """Put a tombstone on a live version.

    Raises: InvalidName; NotFound; Conflict: an alias points to it.
    """
    catalogue.require(adapter)
    if number not in catalogue.live(adapter):
        catalogue.require_version(adapter, number)
    _refuse_aliased(catalogue, adapter, number)
    if not catalogue.tombstones.put(adapter, number, _readable(catalogue, adapter, number), who):
        raise Conflict(f"{adapter}@{number}", "was deleted by somebody else just now")
    try:
        _refuse_aliased(catalogue, adapter, number)
    except Conflict:
        catalogue.tombstones.take_back(adapter, number)
        raise
    finally:
        catalogue.mark(adapter)


def _require_servable(catalogue: Catalogue, adapter: str, number: int) -> Version:
    version = catalogue.require_version(adapter, number)
    if catalogue.tombstones.exists(adapter, number):
        # Void, because another alias points to it: a delete is at work, or was killed at work.
        remedy = "try again; `wardrobe gc --apply` forgets a delete that was interrupted an hour ago"
        raise Conflict(version.name, "is being deleted", remedy)
    order = catalogue.quarantine.read(adapter, number)
    if order is not None:
        raise Quarantined(version.name, f"is quarantined ({order.reason})", "choose another version")
    return version


def _step_back_if_deleted(catalogue: Catalogue, move: AliasMove, who: str) -> None:
    if move.version is None or not catalogue.tombstones.exists(move.adapter, move.version):
        return

    def decide(log: Sequence[AliasMove]) -> Target | None:
        if log[-1].seq != move.seq:
            return None
        earlier = log[-2] if len(log) > 1 else None
        why = f"{move.adapter}@{move.version} was deleted at the same time"
        if earlier is None:
            return Target(None, None, why)
        return Target(earlier.version, earlier.digest, why, earlier.restores or earlier.seq)

    catalogue.aliases.append(move.adapter, move.alias, decide, who)
    catalogue.mark(move.adapter)
    raise Conflict(f"{move.adapter}@{move.version}", "was deleted at the same time", "choose another version")


def _refuse_aliased(catalogue: Catalogue, adapter: str, number: int) -> None:
    users = sorted(a for a, n in catalogue.aliases.pointers(adapter).items() if n == number)
    if users:
        fact = f"alias {', '.join(users)} points to it"
        raise Conflict(f"{adapter}@{number}", fact, "move the alias to another version first")


def _readable(catalogue: Catalogue, adapter: str, number: int) -> Version | None:
    try:
        return catalogue.versions.read(adapter, number)
    except CorruptStore:
        return None  # a version whose manifest is broken can be deleted like any other
