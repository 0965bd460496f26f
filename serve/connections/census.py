"""Who is connected, who is being waited for, and since when; who must go when a place is needed.

It owns the counts and the deadlines of every connection of one listening socket, and no socket: a
`Visitor` does what it is told. A connection is at work, or is waited for in exactly one table (`WRITE`
beside the others). Each table is in the order of time, so a sweep looks at its oldest entries alone, and
a request on a kept connection costs two operations on a dictionary. Invariant: a connection with a request
in flight never goes to make room.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol

from serve.errors import TooManyConnections
from serve.settings import ConnectionLimits

RESERVED_DESCRIPTORS = 256
"""Kept from connections, for files of the root, the engine's sockets and the logs."""

FEWEST_CONNECTIONS = 16
"""What is left to connections where descriptors are scarcer still."""

LEFTOVER_SECONDS = 10.0
"""How long the rest of a body is read, and thrown away, once its request has been answered."""

CLOSING_SECONDS = 2.0
"""How long a closed connection may take to fetch its last answer."""

_SWEEP_SECONDS = 1.0
_IPV6_SITE = 64  # the smallest network that anybody is given, so the smallest that can be somebody


class Wait(StrEnum):
    """What a connection is waited for (a closed set of metric labels)."""

    HEAD = "head"  # a whole head: of the first request, or of one that has begun
    IDLE = "idle"  # the next request
    LEFTOVER = "leftover"  # the end of a body whose request has been answered
    WRITE = "write"  # the client, to take some of its answer
    CLOSING = "closing"  # the client, to take all of it


class Visitor(Protocol):
    """A connection, as the census knows it."""

    def expire(self, wait: Wait) -> None:
        """End: `wait` has lasted too long."""
        ...

    def drop(self) -> None:
        """End at once and without a word: the place is needed."""
        ...


class Census:
    """The connections of one socket; one event loop.

    `descriptors` is the process's limit on open files: where it is lower than `limits.total` needs, it
    decides.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        clock: Callable[[], float] | None = None,
        *,
        descriptors: int | None = None,
    ) -> None:
        self.limits = limits
        self.total = _affordable(limits.total, descriptors)
        self.refused: Counter[str] = Counter()
        self.ended: Counter[Wait] = Counter()
        self.open = 0
        self.waits: dict[Wait, dict[Visitor, float]] = {wait: {} for wait in Wait}
        self._seconds = {
            Wait.HEAD: limits.head_seconds,
            Wait.IDLE: limits.idle_seconds,
            Wait.LEFTOVER: LEFTOVER_SECONDS,
            Wait.WRITE: limits.write_seconds,
            Wait.CLOSING: CLOSING_SECONDS,
        }
        self._trusted = tuple(ip_network(one, strict=False) for one in limits.trusted_proxies)
        self._places: dict[Visitor, str] = {}
        self._by_place: Counter[str] = Counter()
        self._clock = clock
        self._sweeping: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return this clock's seconds; without a clock of its own it is the running loop's."""
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()

    def enter(self, visitor: Visitor, address: str) -> None:
        """Take in a connection from `address` ('' where it has none), which is waited for at once.

        Raises: TooManyConnections: nobody could go to make room; the visitor was not taken in.
        """
        place = "" if not address or self._is_trusted(address) else place_of(address)
        most = self.limits.per_address
        if place and most is not None and self._by_place[place] >= most and not self._make_room(place):
            raise self._full("address", most, "per_address")
        if self.open >= self.total and not self._make_room(""):
            raise self._full("server", self.total, "total")
        self.open += 1
        self._places[visitor] = place
        if place:
            self._by_place[place] += 1
        self.waits[Wait.HEAD][visitor] = self.now()
        self._keep_sweeping()

    def leave(self, visitor: Visitor) -> None:
        """Forget a connection that was lost; one that never entered is not an error."""
        place = self._places.pop(visitor, None)
        if place is None:
            return
        self.open -= 1
        for table in self.waits.values():
            table.pop(visitor, None)
        if place:
            self._by_place[place] -= 1
            if not self._by_place[place]:
                del self._by_place[place]

    def sweep(self) -> None:
        """End every wait that has lasted too long."""
        now = self.now()
        for wait, table in self.waits.items():
            while table:
                visitor, since = next(iter(table.items()))
                if now - since < self._seconds[wait]:
                    break
                del table[visitor]
                self.ended[wait] += 1
                visitor.expire(wait)

    def _make_room(self, place: str) -> bool:
        """End the connection that has waited longest between two requests, else for its head.

        `place` narrows it to one address's, '' does not.
        """
        for wait in (Wait.CLOSING, Wait.IDLE, Wait.HEAD):
            for visitor in self.waits[wait]:
                if not place or self._places[visitor] == place:
                    self.ended[wait] += 1
                    self.leave(visitor)
                    visitor.drop()
                    return True
        return False

    def _full(self, whose: str, most: int, setting: str) -> TooManyConnections:
        self.refused[TooManyConnections.code] += 1
        return TooManyConnections(
            whose,
            f"holds {most} connections with requests in flight, as many as are allowed",
            f"end some, or raise connections.{setting}",
        )

    def _is_trusted(self, address: str) -> bool:
        if not self._trusted:
            return False
        found = parse_address(address)
        return found is not None and any(found in network for network in self._trusted)

    def _keep_sweeping(self) -> None:
        if self._sweeping is None and self._clock is None:
            seconds = min(_SWEEP_SECONDS, *(limit / 4 for limit in self._seconds.values()))
            self._sweeping = asyncio.get_running_loop().call_later(seconds, self._sweep_again)

    def _sweep_again(self) -> None:
        self._sweeping = None
        if self.open:
            self._keep_sweeping()
            self.sweep()


def place_of(address: str) -> str:
    """Return whom connections from `address` count for: an IPv6 address for its network of 64 bits."""
    return _place(address)


@lru_cache(maxsize=4096)
def _place(address: str) -> str:
    found = parse_address(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found), _IPV6_SITE), strict=False))
    return str(found) if found is not None else address


def parse_address(address: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address of a text, one that is mapped to IPv6 as itself, or None for none."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _affordable(wanted: int, descriptors: int | None) -> int:
    """Return how many connections fit beside what else the process opens."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if descriptors is None else descriptors
    if most == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(most - RESERVED_DESCRIPTORS, FEWEST_CONNECTIONS))
