"""The watcher: keeps a view of the registry up to date from a thread of its own.

Owns when the disk is read again. Invariant: a change by any process is seen within the polling interval,
or within the sweep's period where its writer died before it could leave a mark.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from registry import disk
from registry.errors import StorageFailed, WardrobeError
from registry.store import Registry
from registry.view import EMPTY, AdapterView, View

_logger = logging.getLogger(__name__)


class Watcher:
    """Keeps `view` up to date from a thread of its own.

    Every `interval_seconds` it looks at one directory for marks of changes; and it reads all adapters
    anew within `sweep_seconds`, a few at each look, for writers that died before their mark. An adapter
    that cannot be read keeps its last view and is named in `problems`. `last_success` is the
    `time.monotonic()` of the last look that could read the root.
    """

    def __init__(
        self, registry: Registry, interval_seconds: float = 0.25, *, sweep_seconds: float = 30.0
    ) -> None:
        self.view: View = EMPTY
        self.problems: Mapping[str, str] = MappingProxyType({})
        self.last_success = -math.inf
        self._catalogue = registry.catalogue
        self._changes = registry.root / "changes"
        self._interval_seconds = interval_seconds
        self._looks_per_sweep = max(1.0, sweep_seconds / interval_seconds)
        self._subscribers: list[Callable[[View], None]] = []
        self._marks: dict[str, _Mark] = {}
        self._folder_mark: _Mark | None = None
        self._announced = EMPTY.generation
        self._sweep: Iterator[str] = iter(())
        self._sweep_size = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def subscribe(self, callback: Callable[[View], None]) -> None:
        """Have `callback(view)` called after each change, from the thread that found it."""
        self._subscribers.append(callback)

    def start(self) -> None:
        """Read everything, then watch from a thread.

        Raises: StorageFailed: the root cannot be read.
        """
        self.refresh()
        self._thread = threading.Thread(target=self._run, name="wardrobe-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; `view` stays as it is."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> None:
        """Read now what changed, and everything the first time; blocks for the disk.

        Raises: StorageFailed: the root cannot be read.
        """
        with self._lock:
            first = self._folder_mark is None
            marked = self._look(always=True)
            view = self._reread(self._catalogue.known() if first else marked)
        self._announce(view)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            try:
                with self._lock:
                    view = self._reread([*self._look(always=False), *self._next_of_sweep()])
            except WardrobeError as error:
                # The root may be back at the next look; until then `last_success` tells how old `view` is.
                self.problems = MappingProxyType({"": str(error)})
            else:
                self._announce(view)

    def _look(self, *, always: bool) -> list[str]:
        """Return the adapters with a new mark.

        Raises: StorageFailed.
        """
        try:
            with disk.explained(self._changes):
                return self._list_marks(always=always)
        except FileNotFoundError as error:
            raise StorageFailed(str(self._changes), "is missing", "check that the root is mounted") from error

    def _list_marks(self, *, always: bool) -> list[str]:
        mark = _mark(self._changes.stat())
        if mark == self._folder_mark and not always:
            return []
        # A second change within one tick of the file system's clock leaves the folder's time as it is, so
        # the look after a change lists the folder again.
        self._folder_mark = mark if self._folder_mark == mark else _UNSETTLED
        found = {}
        with os.scandir(self._changes) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):
                        found[entry.name] = _mark(entry.stat(follow_symlinks=False))
        marked = [name for name, mark in found.items() if self._marks.get(name) != mark]
        self._marks = found
        return marked

    def _next_of_sweep(self) -> list[str]:
        count = math.ceil(self._sweep_size / self._looks_per_sweep) or 1
        names = list(itertools.islice(self._sweep, count))
        if not names:
            known = sorted({*self._catalogue.known(), *self.view.adapters})
            self._sweep, self._sweep_size = iter(known), len(known)
        return names

    def _reread(self, names: Iterable[str]) -> View:
        adapters = dict(self.view.adapters)
        problems = {name: problem for name, problem in self.problems.items() if name}
        changed = False
        for name in dict.fromkeys(names):
            before = adapters.get(name)
            try:
                after = self._catalogue.view(name, before)
            except WardrobeError as error:
                problems[name] = str(error)
                continue
            problems.pop(name, None)
            if after != before:
                changed = True
                _put(adapters, name, after)
            time.sleep(0)  # give way to the event loop between two adapters
        self.problems = MappingProxyType(problems)
        self.last_success = time.monotonic()
        if changed:
            self.view = View(self.view.generation + 1, MappingProxyType(adapters))
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
_UNSETTLED: _Mark = (-1, -1)


def _mark(status: os.stat_result) -> _Mark:
    return status.st_mtime_ns, status.st_ino


def _put(adapters: dict[str, AdapterView], name: str, view: AdapterView | None) -> None:
    if view is None:
        adapters.pop(name, None)
    else:
        adapters[name] = view
