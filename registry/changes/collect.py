"""Garbage collection: deleted versions and abandoned work go to the trash, the trash is emptied a day later.

Owns `trash/<date>/`. Invariants: what anything still uses is never moved; everything is read before
anything is moved, so a root that cannot be read stops the whole collection; after each move the reasons
to keep it are read again, and it is put back if there is one. `at_once` moves to a hidden name beside it,
which needs no room, and removes it there. What the servers write and nobody keeps is
`registry.changes.retention`'s.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from registry.changes import retention
from registry.changes.settlement import settle
from registry.errors import DiskFull, Missing, Occupied
from registry.records import GcReport
from registry.spelling import spelled
from registry.storage import disk, files, reserve
from registry.views.catalogue import Catalogue, Standing

DAY_SECONDS = 86_400.0
# A replica that hangs may come back with what it holds; after a day it has to load anew.
HANGING_SECONDS = DAY_SECONDS
# A delete that is at work looks for aliases within milliseconds of its tombstone.
INTERRUPTED_SECONDS = 3_600.0
_TRASHED_VERSION = re.compile(r"([0-9]+)\.([a-z0-9][a-z0-9._-]{0,62})@([1-9][0-9]{0,8})\.[0-9a-f]{8}")
_TRASHED = re.compile(r"([0-9]+)\..+")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a collection will do, decided before it does anything."""

    versions: list[tuple[str, int]] = field(default_factory=list)
    abandoned: list[Path] = field(default_factory=list)
    expired: list[Path] = field(default_factory=list)
    rescued: list[tuple[Path, str, int]] = field(default_factory=list)
    interrupted: list[tuple[str, int]] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


def collect(
    catalogue: Catalogue, *, apply: bool, at_once: bool = False, now: float | None = None
) -> GcReport:
    """Move what nothing uses to the trash and empty what lay there for a day; a dry run unless `apply`.

    `at_once` removes instead of trashing, and all of the trash: no room is needed, and all of it is freed.
    `now` is UNIX seconds, default the clock.

    Raises: CorruptStore, StorageFailed: a reason to keep something could not be read; nothing was moved.
    """
    at = catalogue.clock() if now is None else now
    for adapter in catalogue.rollouts.names() if apply else ():
        with contextlib.suppress(DiskFull):  # it stays owed, and frees nothing
            settle(catalogue, adapter)
    plan = _plan(catalogue, at, at_once=at_once)
    trashed: list[str] = []
    emptied: list[str] = []
    for item, adapter, number in plan.rescued:
        _put_back(catalogue, item, adapter, number, apply=apply)
    for adapter, number in plan.interrupted if apply else ():
        catalogue.tombstones.take_back(adapter, number)
        catalogue.mark(adapter)
    for adapter, number in plan.versions:
        if not apply or _take(catalogue, adapter, number, at, at_once=at_once):
            (emptied if at_once else trashed).append(f"{adapter}@{number}")
    root = catalogue.root.path
    for path in plan.abandoned:
        (emptied if at_once else trashed).append(str(path.relative_to(root)))
        if apply and at_once:
            files.remove_tree(path)
        elif apply:
            with contextlib.suppress(Missing):  # another collector was faster
                _trash(root, path, path.name.strip("."), at)
    for path in plan.expired:
        emptied.append(str(path.relative_to(root)))
        if apply:
            files.remove_tree(path)
            files.remove_empty(path.parent)
    emptied += [str(path.relative_to(root)) for path in retention.outlived(catalogue, at)]
    if apply:
        retention.tidy(catalogue, at)
        keep_ready(catalogue)
    trashed, emptied = [spelled(name) for name in trashed], [spelled(name) for name in emptied]
    return GcReport(apply, tuple(trashed), tuple(emptied), dict(sorted(plan.kept.items())))


def keep_ready(catalogue: Catalogue) -> None:
    """Make ready what taking something away needs on a full disk, as far as there is room.

    Raises: StorageFailed: the adapters cannot be listed.
    """
    reserve.fill(catalogue.root.path)
    found, _ = catalogue.each(catalogue.versions.numbers)
    for adapter in (name for name, numbers in found.items() if numbers):
        reserve.make_folders(catalogue.root.adapter(adapter))


def reason_to_keep(catalogue: Catalogue, adapter: str, number: int, now: float) -> str | None:
    """Say what still uses a deleted version, None when nothing does.

    Raises: CorruptStore, StorageFailed: when that cannot be told.
    """
    user = _user(catalogue.standing(adapter), number)
    if user is not None:
        return user
    for beat in catalogue.replicas.within(HANGING_SECONDS, now):
        if f"{adapter}@{number}" in beat.resident:
            return f"resident in replica {beat.replica}"
    return None


def _user(standing: Standing, number: int) -> str | None:
    rollout = standing.rollout
    if rollout is not None and rollout.open and number in {rollout.canary, rollout.stable}:
        return f"rollout {rollout.rollout} is open"
    alias = next((alias for alias, pointed in sorted(standing.pointers.items()) if pointed == number), None)
    if alias is None and number in standing.used:
        return "an alias points to it"  # one that a rollout overrules
    return f"alias {alias} points to it" if alias else None


def _plan(catalogue: Catalogue, now: float, *, at_once: bool) -> _Plan:
    plan = _Plan()
    for adapter in catalogue.known():
        folders = set(catalogue.versions.numbers(adapter))
        for number in catalogue.tombstones.numbers(adapter):
            if number in folders:
                reason = reason_to_keep(catalogue, adapter, number, now)
                if reason is None:
                    plan.versions.append((adapter, number))
                    continue
                plan.kept[f"{adapter}@{number}"] = reason
                if _is_interrupted(catalogue, adapter, number, now):
                    plan.interrupted.append((adapter, number))
    plan.abandoned.extend(_abandoned(catalogue.root.path, now))
    _plan_trash(catalogue, plan, now - (0.0 if at_once else DAY_SECONDS))
    return plan


def _is_interrupted(catalogue: Catalogue, adapter: str, number: int, now: float) -> bool:
    """Tell a delete that was killed before it could take its tombstone back."""
    tombstone = catalogue.tombstones.read(adapter, number)
    used = number in catalogue.standing(adapter).used
    return tombstone is not None and used and now - tombstone.at >= INTERRUPTED_SECONDS


def _plan_trash(catalogue: Catalogue, plan: _Plan, before: float) -> None:
    for item in _trash_items(catalogue.root.path):
        version = _TRASHED_VERSION.fullmatch(item.name)
        if version is not None:
            adapter, number = version[2], int(version[3])
            user = _user(catalogue.standing(adapter), number)
            if user is not None:
                plan.rescued.append((item, adapter, number))
                plan.kept[f"{adapter}@{number}"] = f"{user}; put back from the trash"
                continue
        dated = _TRASHED.fullmatch(item.name)
        if dated is not None and int(dated[1]) <= before:
            plan.expired.append(item)


def _trash_items(root: Path) -> Iterator[Path]:
    for date in disk.names(root / "trash"):
        for name in disk.names(root / "trash" / date):
            yield root / "trash" / date / name


def _take(catalogue: Catalogue, adapter: str, number: int, now: float, *, at_once: bool) -> bool:
    """Take a deleted version out of its place: to the trash, or away; False when something kept it."""
    folder = catalogue.root.version(adapter, number)
    try:
        if at_once:
            item = folder.with_name(f".{number}.{uuid.uuid4().hex}.tmp")
            files.move(folder, item)
        else:
            item = _trash(catalogue.root.path, folder, f"{adapter}@{number}", now)
    except Missing:
        return False  # another collector was faster
    if reason_to_keep(catalogue, adapter, number, now) is not None:
        _put_back(catalogue, item, adapter, number, apply=True)
        return False
    if at_once:
        files.remove_tree(item)
    catalogue.mark(adapter)
    return True


def _trash(root: Path, path: Path, name: str, now: float) -> Path:
    date = time.strftime("%Y-%m-%d", time.gmtime(now))
    item = root / "trash" / date / f"{int(now)}.{name}.{uuid.uuid4().hex[:8]}"
    files.make_directory(item.parent)
    files.move(path, item)
    return item


def _put_back(catalogue: Catalogue, item: Path, adapter: str, number: int, *, apply: bool) -> None:
    if apply:
        with contextlib.suppress(Occupied, Missing):
            files.publish_directory(item, catalogue.root.version(adapter, number))
        catalogue.mark(adapter)


def _abandoned(root: Path, now: float) -> Iterator[Path]:
    """Find work that was begun more than a day ago and never finished."""
    for folder, inner, names in os.walk(root):
        here = Path(folder)
        if here == root / "staging":
            yield from _older(here, (*names, *inner), now)
            inner.clear()
            continue
        yield from _older(here, [name for name in (*names, *inner) if _is_temporary(name)], now)
        if here == root:
            inner[:] = [name for name in inner if name != "trash"]
        elif here.name == "versions" and here.parent.parent == root / "adapters":
            inner.clear()
        else:
            inner[:] = [name for name in inner if not _is_temporary(name)]


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _older(folder: Path, names: Iterable[str], now: float) -> Iterator[Path]:
    for name in names:
        with contextlib.suppress(Missing):
            path = folder / name
            if now - disk.status(path).st_mtime >= DAY_SECONDS:
                yield path
