"""Alias moves and deletions, which may race with each other.

Owns the rules that join aliases, tombstones and quarantine. Invariant: both look again after their write
and step back when the other was there, so an alias never ends on a version that was deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from registry.aliases import Target, undo_target
from registry.catalogue import Catalogue
from registry.errors import Conflict, CorruptStore, InvalidName, NotFound
from registry.names import CANARY, STABLE, check_alias_name
from registry.records import AliasMove, Version
from registry.settlement import refuse_open, require_servable, settle


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

    Raises: InvalidName; NotFound; Quarantined; Conflict: the version was deleted at the same time, or the
    alias is `stable` and a rollout is open.
    """
    check_settable(alias)
    version = require_servable(catalogue, adapter, number)
    _leave_to_rollout(catalogue, adapter, alias)
    present: AliasMove | None = None

    def decide(log: Sequence[AliasMove]) -> Target | None:
        nonlocal present
        present = log[-1] if log and log[-1].version == number else None
        return None if present else Target(number, version.digest, why)

    move = catalogue.aliases.append(adapter, alias, decide, who)
    if move is None:
        assert present is not None
        return present
    _step_back_if_raced(catalogue, move, who)
    catalogue.mark(adapter)
    return move


def unset(catalogue: Catalogue, adapter: str, alias: str, *, who: str) -> AliasMove:
    """Remove an alias.

    Raises: InvalidName; NotFound: there is no such alias; Conflict: it is `stable` and a rollout is open.
    """
    catalogue.require(adapter)
    _leave_to_rollout(catalogue, adapter, check_settable(alias))

    def decide(log: Sequence[AliasMove]) -> Target | None:
        return Target(None, None, "alias removed") if log and log[-1].version is not None else None

    move = catalogue.aliases.append(adapter, alias, decide, who)
    if move is None:
        raise NotFound(f"{adapter}@{alias}", "there is no such alias", param="alias")
    _step_back_if_raced(catalogue, move, who)
    catalogue.mark(adapter)
    return move


def roll_back(catalogue: Catalogue, adapter: str, *, who: str) -> AliasMove:
    """Undo the last forward move of `stable`, skipping deleted and quarantined versions.

    Raises: NotFound: no such adapter; Conflict: there is nothing to go back to, or a rollout is open.
    """
    catalogue.require(adapter)
    _leave_to_rollout(catalogue, adapter, STABLE)

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
    _step_back_if_raced(catalogue, move, who)
    catalogue.mark(adapter)
    return move


def delete(catalogue: Catalogue, adapter: str, number: int, *, who: str) -> None:
    """Put a tombstone on a live version.

    Raises: InvalidName; NotFound; Conflict: an alias points to it, or an open rollout uses it.
    """
    catalogue.require(adapter)
    if number not in catalogue.live(adapter):
        catalogue.require_version(adapter, number)
    settle(catalogue, adapter)
    _refuse_used(catalogue, adapter, number)
    if not catalogue.tombstones.put(adapter, number, _readable(catalogue, adapter, number), who):
        raise Conflict(f"{adapter}@{number}", "was deleted by somebody else just now")
    try:
        _refuse_used(catalogue, adapter, number)
    except Conflict:
        catalogue.tombstones.take_back(adapter, number)
        raise
    finally:
        catalogue.mark(adapter)


def _leave_to_rollout(catalogue: Catalogue, adapter: str, alias: str) -> None:
    if alias == STABLE:
        refuse_open(catalogue, adapter)
        settle(catalogue, adapter)


def _step_back_if_raced(catalogue: Catalogue, move: AliasMove, who: str) -> None:
    try:
        _refuse_raced(catalogue, move)
    except Conflict as conflict:
        _step_back(catalogue, move, who, f"{conflict.subject}: {conflict.fact}")
        raise


def _refuse_raced(catalogue: Catalogue, move: AliasMove) -> None:
    if move.version is not None and catalogue.tombstones.exists(move.adapter, move.version):
        subject = f"{move.adapter}@{move.version}"
        raise Conflict(subject, "was deleted at the same time", "choose another version")
    if move.alias == STABLE:
        rollout = catalogue.rollouts.last(move.adapter)
        # One that stands on this very move began after it.
        if rollout is not None and (rollout.stable or None) != move.version:
            refuse_open(catalogue, move.adapter)


def _step_back(catalogue: Catalogue, move: AliasMove, who: str, why: str) -> None:

    def decide(log: Sequence[AliasMove]) -> Target | None:
        if log[-1].seq != move.seq:
            return None
        if len(log) < 2:
            return Target(None, None, why, 0)
        earlier = log[-2]
        restores = earlier.seq if earlier.restores is None else earlier.restores
        return Target(earlier.version, earlier.digest, why, restores)

    catalogue.aliases.append(move.adapter, move.alias, decide, who)
    catalogue.mark(move.adapter)


def _refuse_used(catalogue: Catalogue, adapter: str, number: int) -> None:
    refuse_open(catalogue, adapter, number)
    users = sorted(a for a, n in catalogue.aliases.pointers(adapter).items() if n == number)
    if users:
        fact = f"alias {', '.join(users)} points to it"
        raise Conflict(f"{adapter}@{number}", fact, "move the alias to another version first")


def _readable(catalogue: Catalogue, adapter: str, number: int) -> Version | None:
    try:
        return catalogue.versions.read(adapter, number)
    except CorruptStore:
        return None  # a version whose manifest is broken can be deleted like any other
