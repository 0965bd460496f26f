"""Aliases: moving pointers to versions, each an append-only log.

Owns `aliases/<alias>/<seq>.json`. Invariants: the entry with the highest seq is the present pointer; an
entry never changes; the log is the production history. What a rollback goes back to is decided by
`undo_target`, a pure function of the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import CorruptStore, InvalidName, Missing
from registry.names import check_alias_name
from registry.records import AliasMove
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.root import Root


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """Where an alias shall point: `version` None removes it; `restores` as in `LoggedMove`."""

    version: int | None
    digest: str | None
    why: str
    restores: int | None = None


@dataclass(frozen=True, slots=True)
class LoggedMove(AliasMove):
    """An entry of a log.

    `restores` is the seq of the earlier entry whose state a rollback brought back (0: from before the first),
    None for a forward move.
    """

    restores: int | None = None


class Aliases:
    """The alias logs of every adapter of a root."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock

    def names(self, adapter: str) -> list[str]:
        """Return the aliases that have a log, sorted."""
        found = []
        for name in disk.names(self._root.adapter(adapter) / "aliases"):
            try:
                found.append(check_alias_name(name))
            except InvalidName:
                continue  # not ours: an editor's backup, a file manager's index
        return found

    def log(self, adapter: str, alias: str) -> list[LoggedMove]:
        """Return every move of an alias, oldest first.

        Raises: CorruptStore; StorageFailed.
        """
        folder = self._root.alias(adapter, alias)
        return [_read(folder, adapter, alias, seq) for seq in disk.entry_numbers(folder)]

    def last(self, adapter: str, alias: str) -> LoggedMove | None:
        """Return the present move of an alias, None where it was never set.

        Raises: CorruptStore; StorageFailed.
        """
        folder = self._root.alias(adapter, alias)
        numbers = disk.entry_numbers(folder)
        return _read(folder, adapter, alias, numbers[-1]) if numbers else None

    def pointers(self, adapter: str) -> dict[str, int]:
        """Return the version that each alias points to now; removed aliases are left out.

        Raises: CorruptStore; StorageFailed.
        """
        moves = {alias: self.last(adapter, alias) for alias in self.names(adapter)}
        return {
            alias: move.version
            for alias, move in moves.items()
            if move is not None and move.version is not None
        }

    def append(
        self, adapter: str, alias: str, decide: Callable[[list[LoggedMove]], AliasTarget | None], who: str
    ) -> LoggedMove | None:
        """Append the move that `decide` makes of the log; None when it decides for none.

        `decide` is called again with the longer log when somebody else was faster.

        Raises: CorruptStore; StorageFailed; whatever `decide` raises.
        """
        made: LoggedMove | None = None

        def build(seq: int) -> bytes:
            nonlocal made
            log = self.log(adapter, alias)
            target = decide([move for move in log if move.seq < seq])
            if target is None:
                raise _NoMove
            made = LoggedMove(
                adapter=adapter,
                alias=alias,
                seq=seq,
                version=target.version,
                digest=target.digest,
                who=who,
                why=target.why,
                at=self._clock(),
                restores=target.restores,
            )
            return _encode(made)

        try:
            files.append_entry(self._root.alias(adapter, alias), build)
        except _NoMove:
            return None
        return made


def undo_target(log: Sequence[LoggedMove], usable: Collection[int]) -> LoggedMove | None:
    """Return the move whose state a rollback brings back, None when there is nothing to go back to.

    Forward moves form a stack; a rollback pops. Versions not in `usable` (deleted, quarantined) are
    skipped, and so is the version that the alias points to already.
    """
    stack: list[LoggedMove] = []
    for move in log:
        depth = next((n for n, earlier in enumerate(stack, 1) if earlier.seq == move.restores), None)
        if move.restores == 0:
            stack.clear()
        elif depth is not None:
            del stack[depth:]
        elif not stack or stack[-1].version != move.version:
            stack.append(move)
    current = log[-1].version if log else None
    for move in reversed(stack[:-1]):
        if move.version is not None and move.version != current and move.version in usable:
            return move
    return None


class _NoMove(Exception):
    pass


def _encode(move: LoggedMove) -> bytes:
    return encode_claim(
        {
            "seq": move.seq,
            "version": move.version,
            "digest": move.digest,
            "who": move.who,
            "why": move.why,
            "at": move.at,
            "restores": move.restores,
        }
    )


def _read(folder: Path, adapter: str, alias: str, seq: int) -> LoggedMove:
    try:
        entry = Entry.read(folder / f"{seq}.json")
    except Missing as error:
        raise CorruptStore(
            str(folder / f"{seq}.json"), "vanished while it was read", "restore it from a backup"
        ) from error
    if entry.integer("seq") != seq:
        raise CorruptStore(str(entry.path), f"holds entry {entry.integer('seq')}", "restore it from a backup")
    return LoggedMove(
        adapter=adapter,
        alias=alias,
        seq=seq,
        version=entry.optional_integer("version"),
        digest=entry.optional_text("digest"),
        who=entry.text("who"),
        why=entry.text("why"),
        at=entry.number("at"),
        restores=entry.optional_integer("restores"),
    )
