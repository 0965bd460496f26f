"""The groups of a root in memory, each read again when its folder has changed.

Owns what counts as a group that cannot be told: one whose log is damaged, closed to this user or lost. It is
left out, and whoever belongs to it is not let in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from registry.entries.groups import (
    DEFAULT_CHANGED,
    GROUPS_MADE,
    group_folder,
    group_names,
    groups_folder,
    read_group,
)
from registry.entries.rights import DEFAULT_GROUP, Group
from registry.errors import CorruptStore, Missing, StorageFailed
from registry.storage import disk
from registry.storage.disk import closed_to_us
from registry.storage.marks import noted

_Stamp = tuple[int, int]


class KnownGroups:
    """See the module. `known` is replaced at a change; a group that stays as it was stays the same object."""

    def __init__(self, root: Path) -> None:
        self.known: Mapping[str, Group] = MappingProxyType({})
        self._root = root
        self._folder = groups_folder(root)
        self._made = False
        self._names: tuple[str, ...] = (DEFAULT_GROUP,)
        self._stamp: _Stamp | None = None
        self._stamps: dict[str, _Stamp] = {}

    def refresh(self) -> bool:
        """Read again the groups whose folders have changed; return whether any is another one now.

        Raises: StorageFailed: that cannot be told, or groups were made and are not there.
        """
        self._list()
        stamps: dict[str, _Stamp] = {}
        found = {name: group for name in self._names if (group := self._look(name, stamps)) is not None}
        self._stamps = stamps
        if found == self.known:
            return False
        self.known = MappingProxyType({name: _same(group, self.known) for name, group in found.items()})
        return True

    def _list(self) -> None:
        """Take the names anew where the folder has changed."""
        try:
            found = disk.status(self._folder)
        except Missing as error:
            if self._made or noted(self._root, GROUPS_MADE):
                fact = "is not there, though groups were made"
                raise StorageFailed(str(self._folder), fact, "restore it from a backup") from error
            return
        self._made = True
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp != self._stamp:
            names = set(group_names(self._root))
            if not noted(self._root, DEFAULT_CHANGED):
                names.add(DEFAULT_GROUP)  # it needs no log
            self._names = tuple(sorted(names))
            self._stamp = stamp if disk.settled(found) else None

    def _look(self, name: str, stamps: dict[str, _Stamp]) -> Group | None:
        """Return one group, None where it cannot be told; note the stamp of what need not be read again."""
        try:
            stamp = _stamp(group_folder(self._root, name))
            unchanged = stamp is not None and self._stamps.get(name) == stamp
            group = self.known[name] if unchanged else read_group(self._root, name)
        except (CorruptStore, Missing):
            return None
        except StorageFailed as error:
            if not closed_to_us(error):
                raise
            return None
        if stamp is not None and group is not None:
            stamps[name] = stamp
        return group


def _stamp(folder: Path) -> _Stamp | None:
    """Return what changes with the folder, None where it is not there, or changed just now."""
    try:
        status = disk.status(folder)
    except Missing:
        return None
    return (status.st_ino, status.st_mtime_ns) if disk.settled(status) else None


def _same(group: Group, known: Mapping[str, Group]) -> Group:
    before = known.get(group.name)
    return before if before is not None and before == group else group
