"""The responses that a replica keeps: in memory, within a count, a size and an age.

vLLM's own store never forgets (vllm#22137) and is off. Owns what is kept and who may see it: a key sees its
own only, and of these what its group may still ask. Where room is short, the oldest of whoever holds most
goes first, so one key cannot push out all others. One event loop: no locks. Invariant: what is kept never
exceeds the limits.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from serve.responses.items import identity_of
from serve.settings import ResponseSettings

Sees = Callable[[str], bool]
"""Says of a response's id whether what wrote it exists for who asks."""

_OVERHEAD_BYTES = 512
"""What an entry costs beside its bytes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One response: what came before it, what was asked and what was answered, item by item.

    `answer` is the response as it was given; `previous` the id of the response before it; `expires` is on the
    store's clock.
    """

    id: str
    answer: bytes
    history: tuple[bytes, ...]
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]
    previous: str | None
    expires: float

    @property
    def items(self) -> tuple[bytes, ...]:
        """Return the conversation up to and with this response."""
        return (*self.history, *self.inputs, *self.outputs)

    @property
    def size_bytes(self) -> int:
        """Return what it counts against the limit; what it shares with earlier responses counts again."""
        return _OVERHEAD_BYTES + len(self.answer) + sum(map(len, self.items))


@dataclass(slots=True)
class _Shelf:
    """One key's: `places` says in which response an output item is."""

    entries: OrderedDict[str, Kept] = field(default_factory=OrderedDict)
    places: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0


class _Answer(msgspec.Struct):
    id: str
    output: list[Raw]


_decode = msgspec.json.Decoder(_Answer).decode


class ResponseStore:
    """Keeps responses under `limits`, by the key (`owner`) that asked."""

    def __init__(self, limits: ResponseSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}
        self.count = 0
        self.size_bytes = 0

    @property
    def enabled(self) -> bool:
        """Return False where nothing is ever kept."""
        return self._limits.max_bytes > 0 and self._limits.max_count > 0

    def find(self, owner: str, response_id: str, sees: Sees = lambda _: True) -> Kept | None:
        """Return a response of `owner`, None where it is not kept (any more), or may not be seen."""
        shelf = self._shelves.get(owner) if sees(response_id) else None
        kept = shelf.entries.get(response_id) if shelf is not None else None
        if kept is not None and kept.expires <= self._clock():
            self.remove(owner, response_id)
            return None
        return kept

    def find_item(self, owner: str, item_id: str, sees: Sees = lambda _: True) -> bytes | None:
        """Return an output item of a response that `owner` was given, None where it is not kept."""
        shelf = self._shelves.get(owner)
        place = shelf.places.get(item_id) if shelf is not None else None
        kept = self.find(owner, place, sees) if place is not None else None
        items = kept.outputs if kept is not None else ()
        return next((item for item in items if identity_of(item) == item_id), None)

    def keep(
        self,
        owner: str,
        answer: bytes,
        history: tuple[bytes, ...],
        inputs: tuple[bytes, ...],
        previous: str | None,
    ) -> None:
        """Keep a response; one that is larger than all the room is not kept."""
        try:
            found = _decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # no whole response: there is nothing to go on from
        expires = self._clock() + self._limits.keep_seconds
        outputs = tuple(bytes(one) for one in found.output)
        kept = Kept(found.id, answer, history, inputs, outputs, previous, expires)
        if kept.size_bytes > self._limits.max_bytes:
            return
        self._put(owner, kept)

    def remove(self, owner: str, response_id: str) -> bool:
        """Forget a response of `owner`; False where there was none."""
        shelf = self._shelves.get(owner)
        kept = shelf.entries.pop(response_id, None) if shelf is not None else None
        if shelf is None or kept is None:
            return False
        for item_id in _identities(kept):
            shelf.places.pop(item_id, None)
        shelf.size_bytes -= kept.size_bytes
        self.size_bytes -= kept.size_bytes
        self.count -= 1
        if not shelf.entries:
            del self._shelves[owner]
        return True

    def _put(self, owner: str, kept: Kept) -> None:
        self._forget_expired()
        self.remove(owner, kept.id)
        shelf = self._shelves.setdefault(owner, _Shelf())
        shelf.entries[kept.id] = kept
        shelf.places.update(dict.fromkeys(_identities(kept), kept.id))
        shelf.size_bytes += kept.size_bytes
        self.size_bytes += kept.size_bytes
        self.count += 1
        while self.size_bytes > self._limits.max_bytes or self.count > self._limits.max_count:
            largest = max(self._shelves, key=lambda name: self._shelves[name].size_bytes)
            self.remove(largest, next(iter(self._shelves[largest].entries)))

    def _forget_expired(self) -> None:
        now = self._clock()
        for owner, shelf in list(self._shelves.items()):
            # They were kept in this order, all for the same time.
            while shelf.entries and (first := next(iter(shelf.entries.values()))).expires <= now:
                self.remove(owner, first.id)


def _identities(kept: Kept) -> list[str]:
    return [found for item in kept.outputs if (found := identity_of(item)) is not None]
