"""Alias moves and deletions, which may race with each other.

Owns the rules that join aliases, tombstones and quarantine. Invariant: both look again after their write
and step back when the other was there, so an alias never ends on a version that was deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from registry.changes.settlement import refuse_open, require_servable, settle
from registry.entries.aliases import AliasTarget, LoggedMove, undo_target
from registry.errors import Conflict, CorruptStore, InvalidName
from registry.names import CANARY, STABLE, check_alias_name
from registry.records import AliasMove, Version
from registry.validation import requirements
from registry.validation.requirements import Requirement, UnmetRequirement
from registry.views.catalogue import Catalogue

if TYPE_CHECKING:
    from pydantic import JsonValue


FORCE_OPTIONS = "--force --why TEXT"
"""How a person forces a move of `stable`, on the command line."""


def check_settable(alias: str) -> str:
    """Return `alias` if a person may set it.

    Raises: InvalidName: for `canary`, which only a rollout moves.
    """
    if alias == CANARY:
        raise InvalidName(
            repr(alias), "is moved by rollouts only", "use another alias or start a rollout", param="alias"
        )
    return check_alias_name(alias)


def point(
    catalogue: Catalogue,
    adapter: str,
    alias: str,
    number: int,
    *,
    who: str,
    why: str,
    force: str = "",
    also: Iterable[Requirement] = (),
) -> AliasMove:
    """Point `alias` to a live version; where it points there already, return the move that did it.

    `stable` is moved only to a version that meets what the root requires, and `also`; or with `force`,
    the reason for doing it all the same, which is recorded in the log and with the version.

    Raises: InvalidName; NotFound; Quarantined; Unproved; Conflict: the version was deleted at the same
    time, or the alias is `stable` and a rollout is open.
    """
    check_settable(alias)
    version = require_servable(catalogue, adapter, number)
    _leave_to_rollout(catalogue, adapter, alias)
    present: AliasMove | None = None
    forced: list[UnmetRequirement] = []

    def decide(log: Sequence[LoggedMove]) -> AliasTarget | None:
        nonlocal present
        present = log[-1] if log and log[-1].version == number else None
        if present is not None:
            return None
        replaced = log[-1].version if log else None
        # Inside the compare-and-swap: what is replaced is part of what a gate must have been held against.
        forced[:] = find_lacks(catalogue, version, replaced, also) if alias == STABLE else []
        if not forced:
            return AliasTarget(number, version.digest, why)
        if not force:
            raise requirements.refusal(version, forced, force=FORCE_OPTIONS)
        return AliasTarget(
            number, version.digest, f"{why}, forced past {requirements.names(forced)}: {force}"
        )

    move = catalogue.aliases.append(adapter, alias, decide, who)
    if move is None:
        assert present is not None
        return present
    if forced:
        record_force(catalogue, version, forced, action=why, why=force, who=who)
    _step_back_if_raced(catalogue, move, who)
    catalogue.mark(adapter)
    return move


def find_lacks(
    catalogue: Catalogue, version: Version, replaces: int | None, also: Iterable[Requirement] = ()
) -> list[UnmetRequirement]:
    """Return what a version lacks of what the root requires, and `also`, to replace `replaces`.

    Raises: UsageError: the root's settings name a requirement that does not exist; CorruptStore.
    """
    required = (*catalogue.root.required(), *also)
    attestations = catalogue.attestations.read(version.adapter, version.number) if required else []
    return requirements.lacks(version, attestations, required, replaces)


def record_force(
    catalogue: Catalogue,
    version: Version,
    found: Sequence[UnmetRequirement],
    *,
    action: str,
    why: str,
    who: str,
) -> None:
    """Attest to a version that somebody made it `stable`, or began to, past what it lacks."""
    body: dict[str, JsonValue] = {
        "format": "wardrobe.force/1",
        "action": action,
        "why": why,
        "digest": version.digest,
        "past": {lack.requirement: lack.sentence for lack in found},
    }
    catalogue.attestations.add(version.adapter, version.number, requirements.FORCE, body, who)
    catalogue.mark(version.adapter)


def unset(catalogue: Catalogue, adapter: str, alias: str, *, who: str) -> AliasMove:
    """Remove an alias.

    Raises: InvalidName; NotFound: there is no such alias; Conflict: it is `stable` and a rollout is open.
    """
    catalogue.require(adapter)
    _leave_to_rollout(catalogue, adapter, check_settable(alias))

    def decide(log: Sequence[LoggedMove]) -> AliasTarget | None:
        return AliasTarget(None, None, "alias removed") if log and log[-1].version is not None else None

    move = catalogue.aliases.append(adapter, alias, decide, who)
    if move is None:
        raise catalogue.require_view(adapter).no_alias(f"{adapter}@{alias}", alias)
    _step_back_if_raced(catalogue, move, who)
    catalogue.mark(adapter)
    return move


def roll_back(catalogue: Catalogue, adapter: str, *, who: str) -> AliasMove:
    """Undo the last forward move of `stable`, skipping deleted and quarantined versions.

    Raises: NotFound: no such adapter; Conflict: there is nothing to go back to, or a rollout is open.
    """
    catalogue.require(adapter)
    _leave_to_rollout(catalogue, adapter, STABLE)

    def decide(log: Sequence[LoggedMove]) -> AliasTarget:
        barred = {*catalogue.tombstones.numbers(adapter), *catalogue.quarantine.reasons(adapter)}
        target = undo_target(log, set(catalogue.versions.numbers(adapter)) - barred)
        if target is None:
            raise Conflict(
                f"{adapter}@{STABLE}",
                "has no earlier version that is neither deleted nor quarantined",
                f"promote another one: `wardrobe promote {adapter}@N`",
            )
        return AliasTarget(target.version, target.digest, "rollback", target.seq)

    move = catalogue.aliases.append(adapter, STABLE, decide, who)
    assert move is not None
    _step_back_if_raced(catalogue, move, who)
    catalogue.mark(adapter)
    return move


def delete(catalogue: Catalogue, adapter: str, number: int, *, who: str) -> None:
    """Put a tombstone on a live version.

    Raises: InvalidName; NotFound; Conflict: an alias points to it, an open rollout uses it, or it answers by
    the name of a tuned model.
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

    def decide(log: Sequence[LoggedMove]) -> AliasTarget | None:
        if log[-1].seq != move.seq:
            return None
        if len(log) < 2:
            return AliasTarget(None, None, why, 0)
        earlier = log[-2]
        restores = earlier.seq if earlier.restores is None else earlier.restores
        return AliasTarget(earlier.version, earlier.digest, why, restores)

    catalogue.aliases.append(move.adapter, move.alias, decide, who)
    catalogue.mark(move.adapter)


def _refuse_used(catalogue: Catalogue, adapter: str, number: int) -> None:
    refuse_open(catalogue, adapter, number)
    users = sorted(a for a, n in catalogue.aliases.pointers(adapter).items() if n == number)
    if users:
        fact = f"alias {', '.join(users)} points to it"
        raise Conflict(f"{adapter}@{number}", fact, "move the alias to another version first")
    tuned = catalogue.tuned.leading_to(adapter, number)
    if tuned:
        fact = f"it answers by the name {', '.join(tuned)}"
        raise Conflict(f"{adapter}@{number}", fact, "delete that model first: `wardrobe delete ft:…`")


def _readable(catalogue: Catalogue, adapter: str, number: int) -> Version | None:
    try:
        return catalogue.versions.read(adapter, number)
    except CorruptStore:
        return None  # a version whose manifest is broken can be deleted like any other
