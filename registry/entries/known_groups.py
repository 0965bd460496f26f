"""The groups of a root in memory, each read again when its folder has changed.

Owns what counts as a group that cannot be told: one whose log is damaged, closed to this user or lost. It is
left out, and whoever belongs to it is not let in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from registry.entries.groups import GROUPS_MADE, groups_folder, is_group_name, read_group
from registry.entries.rights import DEFAULT_GROUP, Group
from registry.errors import CorruptStore, Missing, StorageFailed
from registry.storage import disk
from registry.storage.disk import closed_to_us
from registry.storage.marks import noted

_Stamp = tuple[int, int]


class KnownGroups:
    """See the module. `known` is replaced at a change; a group that stays as it was stays the same object.

    `problems` says of each group that is left out why.
    """

    def __init__(self, root: Path) -> None:
        self.known: Mapping[str, Group] = MappingProxyType({})
        self.problems: Mapping[str, str] = MappingProxyType({})
        self._root = root
        self._folder = groups_folder(root)
        self._made = False
        self._stamps: dict[str, _Stamp] = {}

    def refresh(self) -> bool:
        """Read again the groups whose folders have changed; return whether any is another one now.

        Raises: StorageFailed: that cannot be told, or groups were made and are not there.
        """
        stamps: dict[str, _Stamp] = {}
        problems: dict[str, str] = {}
        folders = self._look()
        found: dict[str, Group] = {}
        for name, status in folders.items():
            stamp = (status.st_ino, status.st_mtime_ns)
            if self._stamps.get(name) == stamp:
                found[name], stamps[name] = self.known[name], stamp
            elif is_group_name(name) and (group := self._read(name, problems)) is not None:
                found[name] = group
                if disk.settled(status):
                    stamps[name] = stamp
        if DEFAULT_GROUP not in folders and (group := self._read(DEFAULT_GROUP, problems)) is not None:
            found[DEFAULT_GROUP] = group
        self._stamps, self.problems = stamps, MappingProxyType(problems)
        if found == self.known:
            return False
        self.known = MappingProxyType({name: _same(group, self.known) for name, group in found.items()})
        return True

    def _look(self) -> Mapping[str, os.stat_result]:
        try:
            found = disk.statuses(self._folder)
        except Missing as error:
            if self._made or noted(self._root, GROUPS_MADE):
                fact = "is not there, though groups were made"
                raise StorageFailed(str(self._folder), fact, "restore it from a backup") from error
            return {}
        self._made = True
        return found

    def _read(self, name: str, problems: dict[str, str]) -> Group | None:
        try:
            return read_group(self._root, name)
        except StorageFailed as error:
            if not (isinstance(error, Missing) or closed_to_us(error)):
                raise
            problems[name] = str(error)
        except CorruptStore as error:
            problems[name] = str(error)
        return None


def _same(group: Group, known: Mapping[str, Group]) -> Group:
    before = known.get(group.name)
    return before if before is not None and before == group else group
