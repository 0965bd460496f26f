"""Which adapters a replica holds, as Ray is told, so that its router asks a replica that has the one wanted.

Owns what is told: what the replica's heartbeat says (every two seconds), and what it was asked for since, and
so loads now. An adapter is told, not its versions: the arms of a rollout stay together. Nothing here decides
where a request goes, nor which version answers it. Pure but for reading the heartbeat; Ray is not needed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_IN_PATH = re.compile(r"/a/([a-z0-9][a-z0-9._-]{0,62})(?:(?:@|%40)[^/]*)?/v1/")
_MOST_BODY_BYTES = 1024**2  # to read a longer one costs more than a load
_ASKED_SECONDS = 5.0
"""Until then a heartbeat, or the second after it, tells whether what was asked for is there."""


def adapter_of(path: str, body: bytes) -> str:
    """Return the adapter that a request names, '' where it names none: by `/a/NAME`, else by `model`."""
    if found := _IN_PATH.match(path):
        return found[1]
    if not path.startswith("/v1/") or len(body) > _MOST_BODY_BYTES or b'"model"' not in body:
        return ""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return ""  # the replica says what is wrong with it
    model = fields.get("model") if isinstance(fields, Mapping) else None
    name = model.partition("@")[0] if isinstance(model, str) else ""
    return name if _NAME.fullmatch(name) else ""


class KnownAdapters:
    """The adapters of a root: only their requests are for who has them, the base is everywhere."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "adapters"
        self._known: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Return whether `name` is an adapter; one that was seen is not looked for again."""
        if name in self._known:
            return True
        if not name or not (self._folder / name).is_dir():
            return False
        self._known.add(name)
        return True


class ResidentAdapters:
    """What one replica holds: by its heartbeat in `path`, and by what it was asked for since."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._mark: tuple[int, int] | None = None
        self._told: frozenset[str] = frozenset()
        self._asked: dict[str, float] = {}

    def ask(self, adapter: str) -> bool:
        """Take note that the replica was asked for an adapter, and so will have it.

        Return whether that is new.
        """
        new = adapter not in self._asked and adapter not in self._told
        self._asked[adapter] = self._clock()
        return new

    def names(self) -> list[str]:
        """Return the adapters, sorted; what the heartbeat said last counts while it cannot be read."""
        self._read()
        since = self._clock() - _ASKED_SECONDS
        self._asked = {name: at for name, at in self._asked.items() if at > since}
        return sorted(self._told | self._asked.keys())

    def _read(self) -> None:
        try:
            state = self._path.stat()
            mark = state.st_mtime_ns, state.st_ino
            if mark == self._mark:
                return
            resident = json.loads(self._path.read_bytes())["resident"]
            self._told = frozenset(str(name).partition("@")[0] for name in resident)
            self._mark = mark
        except (OSError, ValueError, KeyError, TypeError):
            return  # the root is away, or a later release writes another form
