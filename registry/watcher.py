"""The watcher: keeps a view of the registry up to date from a thread of its own.

Owns when the disk is read again. Invariants: a change by any process is seen within the polling interval (by
one of this machine within milliseconds, where the kernel tells of it), or within the sweep's period where its
writer died before it could leave a mark; nothing that is found on the disk ends the watching, and what is
wrong with one adapter hides no change of another.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from registry.background import Background
from registry.entries.openai.tuned import TunedModel
from registry.errors import Missing
from registry.storage import anchor, disk
from registry.storage.bell import Bell
from registry.store import Registry
from registry.views.view import EMPTY, AdapterView, View

_logger = logging.getLogger(__name__)


class Watcher:
    """Keeps `view` up to date from a thread of its own.

    Every `interval_seconds`, and when the kernel tells of a change, it looks at one directory for marks of
    changes; and it reads all adapters anew within `sweep_seconds`, a few at a time, for writers that died
    before their mark. An adapter that cannot be read keeps its last view and is named in `problems`.
    `last_success` is the `time.monotonic()` of the last look that could read the root.
    """

    def __init__(
        self,
        registry: Registry,
        interval_seconds: float = 0.25,
        *,
        sweep_seconds: float = 30.0,
        background: Background | None = None,
    ) -> None:
        self.view: View = EMPTY
        self.problems: Mapping[str, str] = MappingProxyType({})
        self.last_success = -math.inf
        self._catalogue = registry.catalogue
        self._root = registry.root
        self._changes = registry.root / "changes"
        self._interval_seconds = interval_seconds
        self._sweep_seconds = max(sweep_seconds, interval_seconds)
        self._subscribers: list[Callable[[View], None]] = []
        self._marks: dict[str, _Mark] = {}
        self._folder = _Folder(self._changes)
        self._tuned_folder = _Folder(registry.catalogue.tuned.folder)
        self._tuned_problems: Mapping[str, str] = MappingProxyType({})
        self._problems: Mapping[str, str] = {}
        self._announced = EMPTY.generation
        self._sweep: Iterator[str] = iter(())
        self._sweep_size = 0
        self._swept = -math.inf
        self._lock = threading.Lock()
        self._background = background or Background()
        self._work = self._background.work("watcher", self._turn, interval_seconds)
        self._bell = Bell(self._changes)

    def subscribe(self, callback: Callable[[View], None]) -> None:
        """Have `callback(view)` called after each change, from the thread that found it."""
        self._subscribers.append(callback)

    def start(self) -> None:
        """Read everything, then watch from a thread.

        Raises: StorageFailed: the root cannot be read.
        """
        self.refresh()
        self._bell.arm()
        self._background.thread(self._work, self._bell)

    def stop(self) -> None:
        """End the thread, and those of the background that it was given; `view` stays as it is."""
        self._background.stop()

    def refresh(self) -> None:
        """Read now what changed, and everything the first time; blocks for the disk.

        Raises: StorageFailed: the root cannot be read.
        """
        with self._lock:
            first = not self._folder.seen
            tuned = self._look_at_tuned(always=True)
            marked = self._look(always=True)
            view = self._reread(self._catalogue.known() if first else marked, tuned)
        self._announce(view)

    def _turn(self) -> None:
        self._bell.arm()  # before the look, so that no change falls between the two
        try:
            with self._lock:
                tuned = self._look_at_tuned(always=False)
                view = self._reread([*self._look(always=False), *self._next_of_sweep()], tuned)
        except Exception as error:
            # The root may be back at the next look; until then `last_success` tells how old `view` is.
            self.problems = MappingProxyType({"": str(error)})
            raise
        self._announce(view)

    def _look(self, *, always: bool) -> list[str]:
        """Return the adapters with a new mark.

        Raises: StorageFailed.
        """
        # An empty mount point must not look like a root without adapters.
        anchor.confirm(self._root)
        try:
            return self._list_marks(always=always)
        except Missing:
            return []  # a backup leaves out empty folders

    def _list_marks(self, *, always: bool) -> list[str]:
        if not self._folder.look() and not always:
            return []
        found = {}
        for name in disk.names(self._changes):
            try:
                found[name] = _mark(disk.status(self._changes / name))
            except Missing:
                continue  # replaced by a newer one between the listing and the look
        marked = [name for name, mark in found.items() if self._marks.get(name) != mark]
        self._marks = found
        return marked

    def _next_of_sweep(self) -> list[str]:
        # By the clock, not by the turns, which changes make more frequent.
        now = time.monotonic()
        passed = min(now - self._swept, self._sweep_seconds)
        if passed < self._interval_seconds:
            return []
        self._swept = now
        count = math.ceil(self._sweep_size * passed / self._sweep_seconds) or 1
        names = list(itertools.islice(self._sweep, count))
        if not names:
            known = sorted({*self._catalogue.known(), *self.view.adapters})
            self._sweep, self._sweep_size = iter(known), len(known)
        return names

    def _look_at_tuned(self, *, always: bool) -> Mapping[str, TunedModel]:
        """Return the tuned models; looked at before the marks, so that each one's version is seen as well."""
        try:
            if not self._tuned_folder.look() and not always:
                return self.view.tuned
        except Missing:
            pass  # no model was ever tuned here, or a backup left out the folder
        found, self._tuned_problems = self._catalogue.tuned.survey()
        return found

    def _reread(self, names: Iterable[str], tuned: Mapping[str, TunedModel]) -> View:
        adapters = dict(self.view.adapters)
        problems = {name: text for name, text in self._problems.items() if name}
        changed = False
        for name in dict.fromkeys(names):
            before = adapters.get(name)
            try:
                after = self._catalogue.view(name, before)
            except Exception as error:  # noqa: BLE001 - whatever lies there is that adapter's problem alone
                problems[name] = str(error) or type(error).__name__
                continue
            problems.pop(name, None)
            if after != before:
                changed = True
                _put(adapters, name, after)
            time.sleep(0)  # give way to the event loop between two adapters
        self._problems = problems
        self.problems = MappingProxyType({**problems, **self._tuned_problems})
        self.last_success = time.monotonic()
        if changed or tuned != self.view.tuned:
            self.view = View(self.view.generation + 1, MappingProxyType(adapters), tuned)
        return self.view

    def _announce(self, view: View) -> None:
        if view.generation == self._announced:
            return
        self._announced = view.generation
        for callback in self._subscribers:
            try:
                callback(view)
            except Exception:
                # One subscriber's fault must not blind the others, nor end the thread.
                _logger.exception("a subscriber of the registry's watcher failed")


_Mark = tuple[int, int]
_SETTLED_SECONDS = 5.0
"""Ticks of file systems' clocks are shorter: 10 ms on local disks, 1 s on old NFS servers, 2 s on FAT."""


class _Folder:
    """When a folder last changed, by its own time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: _Mark | None = None
        self._changed = -math.inf

    @property
    def seen(self) -> bool:
        """Return whether it was looked at, and was there."""
        return self._mark is not None

    def look(self) -> bool:
        """Return whether it may have changed since the last look.

        Raises: Missing; StorageFailed.
        """
        mark, now = _mark(disk.status(self._path)), time.monotonic()
        if mark != self._mark:
            self._mark, self._changed = mark, now
        # A second change within one tick of the file system's clock leaves the folder's time as it is.
        return now - self._changed <= _SETTLED_SECONDS


def _mark(status: os.stat_result) -> _Mark:
    return status.st_mtime_ns, status.st_ino


def _put(adapters: dict[str, AdapterView], name: str, view: AdapterView | None) -> None:
    if view is None:
        adapters.pop(name, None)
    else:
        adapters[name] = view
