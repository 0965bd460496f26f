"""Rollouts: one append-only log per adapter, which holds all its rollouts one after the other.

Owns `rollouts/<adapter>/<seq>.json`. Invariants: the entry with the highest seq is the present state; an
entry never changes; while it is open, it alone decides what `stable` means. The alias entry that follows a
promotion, or its undoing, is decided by `owed`, a pure function of both logs. What a transition may be is
`serve.rollout.decision.machine`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from registry.entries.aliases import AliasTarget, LoggedMove
from registry.errors import CorruptStore, InvalidName, Missing
from registry.names import check_adapter_name
from registry.records import RolloutEntry
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.root import Root

STATES = frozenset({"preloading", "shadow", "ramping", "hold", "paused", "promoted", "rolled_back", "closed"})
FULL_WEIGHT = 10_000
"""All traffic, in basis points."""

_ID = re.compile(r"[0-9a-f]{16}")
_REMEDY = "restore it from a backup"

Decide = Callable[[RolloutEntry | None], RolloutEntry | None]
"""Makes the next entry of the last one, or None when there is nothing to do."""


class Rollouts:
    """The rollout logs of every adapter of a root."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def names(self) -> list[str]:
        """Return the adapters that have a log, sorted."""
        found = []
        for name in disk.names(self._root.path / "rollouts"):
            try:
                found.append(check_adapter_name(name))
            except InvalidName:
                continue  # not ours
        return found

    def log(self, adapter: str) -> list[RolloutEntry]:
        """Return every entry of every rollout of an adapter, oldest first.

        Raises: InvalidName; CorruptStore; StorageFailed.
        """
        folder = self._folder(adapter)
        numbers = disk.entry_numbers(folder)
        # By number, not by listing: an entry that is missing in between is named.
        return [_read(folder, adapter, seq) for seq in range(1, numbers[-1] + 1 if numbers else 1)]

    def last(self, adapter: str, known: RolloutEntry | None = None) -> RolloutEntry | None:
        """Return the present entry, open or not; None where there was never a rollout.

        `known` is an entry that was read before: it is not read again.

        Raises: InvalidName; CorruptStore; StorageFailed.
        """
        folder = self._folder(adapter)
        numbers = disk.entry_numbers(folder)
        if not numbers:
            return None
        return known if known and known.seq == numbers[-1] else _read(folder, adapter, numbers[-1])

    def append(self, adapter: str, decide: Decide) -> RolloutEntry | None:
        """Append the entry that `decide` makes of the last one; None when it decides for none.

        `decide` is called again with the newer last entry when somebody else was faster. The entry gets
        the seq that follows.

        Raises: CorruptStore; StorageFailed; whatever `decide` raises.
        """
        folder = self._folder(adapter)
        made: RolloutEntry | None = None

        def build(seq: int) -> bytes:
            nonlocal made
            made = decide(_read(folder, adapter, seq - 1) if seq > 1 else None)
            if made is None:
                raise _NoEntry
            if made.adapter != adapter or made.seq != seq:
                raise ValueError(f"{adapter}: entry {made.adapter}#{made.seq} cannot follow #{seq - 1}")
            return _encode(made)

        try:
            files.append_entry(folder, build)
        except _NoEntry:
            return None
        return made

    def _folder(self, adapter: str) -> Path:
        return self._root.path / "rollouts" / check_adapter_name(adapter)


def check_rollout_id(rollout: str) -> str:
    """Return `rollout` if it is a rollout's id: 16 hex digits.

    Raises: InvalidName.
    """
    if _ID.fullmatch(rollout) is None:
        raise InvalidName(repr(rollout), "is not a rollout's id", "ids are 16 hex digits", param="rollout")
    return rollout


def owed(entry: RolloutEntry | None, stable_log: Sequence[LoggedMove]) -> AliasTarget | None:
    """Return the move of `stable` that a rollout's last entry asks for, None when it was made.

    Promoted: to the canary. Rolled back after that: back to where `stable` was, undoing the promotion.
    Nothing is owed for a closed rollout: its move is made before it is closed.
    """
    if entry is None:
        return None
    why = f"rollout {entry.rollout}#{entry.seq}"
    present = stable_log[-1].version if stable_log else None
    if entry.open:
        if entry.serving != entry.canary or present == entry.canary:
            return None
        return AliasTarget(entry.canary, entry.canary_digest, why)
    if entry.state != "rolled_back" or present != entry.canary:
        return None
    forward = _origin(stable_log)
    if forward is None or not forward.why.startswith(f"rollout {entry.rollout}#"):
        return None
    restores = _restored(entry.stable or None, [move for move in stable_log if move.seq < forward.seq])
    if entry.stable:
        return AliasTarget(entry.stable, entry.stable_digest, why, restores)
    return AliasTarget(None, None, why, restores)


def _origin(log: Sequence[LoggedMove]) -> LoggedMove | None:
    """Return the forward move whose state is the present one."""
    by_seq = {move.seq: move for move in log}
    move = log[-1] if log else None
    while move is not None and move.restores is not None:
        move = by_seq.get(move.restores)
    return move


def _restored(version: int | None, earlier: Sequence[LoggedMove]) -> int:
    """Return the seq of the forward move that brought `version`; 0 is the state before the first move."""
    for move in reversed(earlier):
        if move.version == version:
            return move.seq if move.restores is None else move.restores
    return 0


class _NoEntry(Exception):
    pass


def _encode(entry: RolloutEntry) -> bytes:
    found = {field.name: getattr(entry, field.name) for field in fields(entry)}
    return encode_claim({k: dict(v) if isinstance(v, Mapping) else v for k, v in found.items()})


def _read(folder: Path, adapter: str, seq: int) -> RolloutEntry:
    path = folder / f"{seq}.json"
    try:
        entry = Entry.read(path)
    except Missing as error:
        raise CorruptStore(str(path), "is missing", _REMEDY) from error
    parsed = _parse(entry)
    if (parsed.adapter, parsed.seq) != (adapter, seq):
        raise CorruptStore(str(path), f"holds entry {parsed.adapter}#{parsed.seq}", _REMEDY)
    if parsed.state not in STATES:
        raise CorruptStore(str(path), f"field state is {parsed.state!r}, not one of the eight", _REMEDY)
    if parsed.resumes not in {"", *STATES}:
        raise CorruptStore(str(path), f"field resumes is {parsed.resumes!r}, no state", _REMEDY)
    if _ID.fullmatch(parsed.rollout) is None:
        raise CorruptStore(str(path), f"field rollout is {parsed.rollout!r}, not 16 hex digits", _REMEDY)
    for name in ("weight", "base_weight", "shadow", "held_weight"):
        if not 0 <= getattr(parsed, name) <= FULL_WEIGHT:
            fact = f"field {name} is {getattr(parsed, name)}, not in 0 … {FULL_WEIGHT}"
            raise CorruptStore(str(path), fact, _REMEDY)
    return parsed


def _parse(entry: Entry) -> RolloutEntry:
    return RolloutEntry(
        adapter=entry.text("adapter"),
        rollout=entry.text("rollout"),
        seq=entry.integer("seq"),
        state=entry.text("state"),
        event=entry.text("event"),
        who=entry.text("who"),
        at=entry.number("at"),
        began=entry.number("began"),
        state_since=entry.number("state_since"),
        step_since=entry.number("step_since"),
        stable=entry.integer("stable"),
        canary=entry.integer("canary"),
        stable_digest=entry.text("stable_digest"),
        canary_digest=entry.text("canary_digest"),
        weight=entry.integer("weight"),
        base_weight=entry.integer("base_weight"),
        shadow=entry.integer("shadow"),
        held_weight=entry.integer("held_weight"),
        step=entry.integer("step"),
        resumes=entry.text("resumes"),
        reason=entry.text("reason"),
        sentence=entry.text("sentence"),
        forced=entry.flag("forced"),
        policy=entry.mapping("policy"),
        baseline=entry.mapping("baseline"),
        facts=entry.mapping("facts"),
    )
