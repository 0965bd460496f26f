"""Groups: whom keys belong to, each an append-only log.

Owns `groups/<group>/<seq>.json`. Invariants: the entry with the highest seq is what the group is; an entry
holds all of it and never changes; the group `default` exists without a log, and may do everything then; a
group is never removed, so no key can lose the bounds that it had.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Never

from registry.entries.rights import (
    DEFAULT_GROUP,
    LIMITS,
    NO_LIMITS,
    Group,
    GroupLimits,
    check_limits,
    check_patterns,
    check_scopes,
    check_weight,
)
from registry.errors import (
    Conflict,
    CorruptStore,
    InvalidName,
    Missing,
    NotFound,
    StorageFailed,
    UsageError,
    WardrobeError,
)
from registry.names import check_adapter_name
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.marks import noted, put_mark
from registry.storage.reserve import urgently

if TYPE_CHECKING:
    from pydantic import JsonValue

GROUPS_MADE, DEFAULT_CHANGED = "groups", "default_group"
"""What `layout.json` says once a group was made, and once `default` was changed."""

_RESTORE = "restore it from a backup"


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """One entry of a log: what the group was from then on, and who made it so; times are UNIX seconds."""

    group: Group
    seq: int
    who: str
    at: float


class GroupStore:
    """The groups of one root; every call reads or writes the disk."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock

    def names(self) -> list[str]:
        """Return the groups that have a log, sorted.

        Raises: StorageFailed.
        """
        return group_names(self._root)

    def get(self, name: str) -> Group:
        """Return what a group is now.

        Raises: InvalidName; NotFound; CorruptStore; StorageFailed.
        """
        found = read_group(self._root, name)
        return _unknown(name) if found is None else found

    def survey(self) -> tuple[list[Group], dict[str, str]]:
        """Return every group by name, and why some cannot be read; `default` is always one or the other.

        Raises: StorageFailed: they cannot be listed.
        """
        found, problems = [], {}
        for name in sorted({DEFAULT_GROUP, *group_names(self._root)}):
            try:
                found.append(self.get(name))
            except NotFound:
                continue  # a folder without an entry: whoever made it was killed
            except WardrobeError as error:
                problems[name] = str(error)
        return found, problems

    def history(self, name: str) -> list[GroupEntry]:
        """Return every change of a group, oldest first; none of a `default` that nobody changed.

        Raises: InvalidName; NotFound; CorruptStore; StorageFailed.
        """
        folder = self._folder(name)
        found = [_read(folder, seq) for seq in disk.entry_numbers(folder)]
        if not found and name != DEFAULT_GROUP:
            _unknown(name)
        return found

    def create(self, group: Group, *, who: str) -> Group:
        """Make a group.

        Raises: InvalidName; UsageError; Conflict: it exists; StorageFailed.
        """
        if group.name == DEFAULT_GROUP:
            raise _exists(group.name)

        def decide(before: Group | None) -> Group:
            if before is not None:
                raise _exists(group.name)
            return group

        return self._append(group.name, decide, who)

    def change(self, name: str, decide: Callable[[Group], Group], *, who: str) -> Group:
        """Make what `decide` returns of the group, by compare-and-swap, on a full disk too.

        `decide` is called again when somebody else was faster; the same group from it changes nothing.

        Raises: NotFound; UsageError; CorruptStore; StorageFailed; whatever `decide` raises.
        """

        def decided(before: Group | None) -> Group:
            return replace(decide(_unknown(name) if before is None else before), name=name)

        return urgently(self._root, lambda: self._append(name, decided, who))

    def _append(self, name: str, decide: Callable[[Group | None], Group], who: str) -> Group:
        made: Group | None = None

        def build(seq: int) -> bytes:
            nonlocal made
            before = read_group(self._root, name)
            made = checked(decide(before))
            if made == before:
                raise _NoChange
            return _encode(GroupEntry(made, seq, who, self._clock()))

        with contextlib.suppress(_NoChange):
            files.append_entry(self._folder(name), build)
        self._leave_marks(name)
        assert made is not None, "built, or an error left this method"
        return made

    def _leave_marks(self, name: str) -> None:
        """Have the root say that groups were made; not before, as a mark alone would shut everybody out."""
        if not disk.entry_numbers(self._folder(name)):
            return
        with contextlib.suppress(StorageFailed):  # the change is made; the next one leaves it
            put_mark(self._root, GROUPS_MADE)
            if name == DEFAULT_GROUP:
                put_mark(self._root, DEFAULT_CHANGED)

    def _folder(self, name: str) -> Path:
        return group_folder(self._root, name)


def groups_folder(root: Path) -> Path:
    """Return where the groups of `root` lie."""
    return root / "groups"


def group_folder(root: Path, name: str) -> Path:
    """Return where the log of a group lies.

    Raises: InvalidName.
    """
    return groups_folder(root) / check_group_name(name)


def check_group_name(name: str) -> str:
    """Return `name` if a group may be called so: as adapters are.

    Raises: InvalidName.
    """
    try:
        return check_adapter_name(name)
    except InvalidName as error:
        raise InvalidName(error.subject, error.fact, error.remedy, param="group") from error


def is_group_name(name: str) -> bool:
    """Return whether a group may be called so."""
    try:
        check_group_name(name)
    except InvalidName:
        return False
    return True


def group_names(root: Path) -> list[str]:
    """Return the groups that have a log, sorted; other names are passed over.

    Raises: StorageFailed.
    """
    return [name for name in disk.names(groups_folder(root)) if is_group_name(name)]


def read_group(root: Path, name: str) -> Group | None:
    """Return what a group is now, None where there is none of that name; `default` needs no log.

    Raises: InvalidName; CorruptStore: also a `default` that was changed and has no log; StorageFailed.
    """
    folder = group_folder(root, name)
    numbers = disk.entry_numbers(folder)
    if numbers:
        return _read(folder, numbers[-1]).group
    if name != DEFAULT_GROUP:
        return None
    if noted(root, DEFAULT_CHANGED):
        raise CorruptStore(str(folder), "is lost, though the group was changed", _RESTORE)
    return Group(name)


def entry_changes(log: Iterable[GroupEntry]) -> Iterator[tuple[GroupEntry, dict[str, str]]]:
    """Yield each entry of a log with what it made anew, in words; the first: beside a group that may all."""
    before: Group | None = None
    for entry in log:
        old, new = _words(before or Group(entry.group.name)), _words(entry.group)
        yield entry, {name: text for name, text in new.items() if old[name] != text}
        before = entry.group


def checked(group: Group) -> Group:
    """Return `group` in its plain form: patterns without doubles, a weight that is a float.

    Raises: InvalidName; UsageError.
    """
    check_group_name(group.name)
    if not group.scopes:
        raise UsageError("scopes", "none is given", "name at least one", param="scopes")
    return replace(
        group,
        adapters=check_patterns(group.adapters),
        limits=check_limits({name: getattr(group.limits, name) for name in LIMITS}),
        weight=check_weight(group.weight),
    )


class _NoChange(Exception):
    pass


def _unknown(name: str) -> Never:
    remedy = "see `wardrobe groups list`, or make it with `wardrobe groups create`"
    raise NotFound(f"group {name!r}", "does not exist", remedy, param="group")


def _exists(name: str) -> Conflict:
    remedy = f"change it with `wardrobe groups set {name}`, or choose another name"
    return Conflict(f"group {name!r}", "exists already", remedy, param="group")


def _words(group: Group) -> Mapping[str, str]:
    limits = {name.replace("_", " "): "none" for name in LIMITS}
    limits |= {name.replace("_", " "): str(value) for name, value in group.limits.named().items()}
    return {
        "adapters": ", ".join(group.adapters) or "none",
        "base": _yes(group.base),
        "scopes": ", ".join(sorted(group.scopes)),
        "weight": f"{group.weight:g}",
        "evidence": _yes(group.evidence),
        "may set priority": _yes(group.priority),
        **limits,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def encode_limits(limits: GroupLimits) -> dict[str, JsonValue]:
    """Return limits as a JSON object of those that there are."""
    return {**limits.named()}


def read_limits(entry: Entry) -> GroupLimits:
    """Return the field `limits` of a document; one of an older release has none.

    Raises: CorruptStore; UsageError.
    """
    if "limits" not in entry.fields:
        return NO_LIMITS
    inner = Entry(entry.path, entry.mapping("limits"))
    return check_limits({name: inner.optional_integer(name) for name in inner.fields})


def _encode(entry: GroupEntry) -> bytes:
    group = entry.group
    return encode_claim(
        {
            "seq": entry.seq,
            "group": group.name,
            "adapters": [*group.adapters],
            "base": group.base,
            "scopes": [*sorted(group.scopes)],
            "limits": encode_limits(group.limits),
            "weight": group.weight,
            "evidence": group.evidence,
            "priority": group.priority,
            "who": entry.who,
            "at": entry.at,
        }
    )


def _read(folder: Path, seq: int) -> GroupEntry:
    path = folder / f"{seq}.json"
    try:
        return _parse(Entry.read(path), folder.name, seq)
    except Missing as error:
        raise CorruptStore(str(path), "vanished while it was read", _RESTORE) from error
    except (UsageError, CorruptStore) as error:
        raise CorruptStore(str(path), f"is not a group ({error.fact})", _RESTORE) from error


def _parse(entry: Entry, name: str, seq: int) -> GroupEntry:
    if (entry.text("group"), entry.integer("seq")) != (name, seq):
        fact = f"holds entry {entry.integer('seq')} of group {entry.text('group')!r}"
        raise CorruptStore(str(entry.path), fact)
    group = Group(
        name=name,
        adapters=entry.texts("adapters"),
        base=entry.flag("base"),
        scopes=check_scopes(entry.texts("scopes")),
        limits=read_limits(entry),
        weight=entry.number("weight"),
        evidence=entry.flag("evidence"),
        priority=entry.flag("priority"),
    )
    return GroupEntry(checked(group), seq, entry.text("who"), entry.number("at"))
