"""Who is connected and who goes, without a socket and with a clock of its own."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve.connections.census import FEWEST_CONNECTIONS, RESERVED_DESCRIPTORS, Census, Wait, place_of
from serve.connections.metrics import ConnectionMetrics
from serve.errors import TooManyConnections
from serve.settings import ConnectionLimits


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Guest:
    """A visitor that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def expire(self, wait: Wait) -> None:
        self.told.append(wait)

    def drop(self) -> None:
        self.told.append("dropped")


def make(descriptors: int = 100_000, **limits: Any) -> tuple[Census, Clock]:
    clock = Clock()
    return Census(ConnectionLimits(**limits), clock, descriptors=descriptors), clock


def enter(census: Census, address: str = "192.0.2.1", *, wait: Wait | None = None) -> Guest:
    """Let a guest in; it is at work unless it is waited for."""
    guest = Guest()
    census.enter(guest, address)
    census.waits[Wait.HEAD].pop(guest)
    if wait is not None:
        census.waits[wait][guest] = census.now()
    return guest


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [(Wait.HEAD, 10), (Wait.IDLE, 75), (Wait.WRITE, 60), (Wait.LEFTOVER, 10), (Wait.CLOSING, 2)],
)
def test_each_wait_ends_at_its_own_time_and_once(wait: Wait, seconds: float) -> None:
    census, clock = make()
    first = enter(census, wait=wait)
    clock.seconds += seconds / 2
    second = enter(census, wait=wait)
    clock.seconds += seconds / 2 - 0.01
    census.sweep()
    assert first.told == []
    clock.seconds += 0.02
    census.sweep()
    census.sweep()
    assert (first.told, second.told) == ([wait], [])
    assert census.ended == {wait: 1}


def test_who_goes_to_make_room_is_who_waits_longest_and_never_who_works() -> None:
    census, clock = make(total=4)
    working = enter(census)
    guests = {}
    for wait in (Wait.HEAD, Wait.IDLE, Wait.CLOSING):
        clock.seconds += 1
        guests[wait] = enter(census, wait=wait)
    for wait in (Wait.CLOSING, Wait.IDLE, Wait.HEAD):
        enter(census)
        assert guests[wait].told == ["dropped"]
    with pytest.raises(
        TooManyConnections, match=r"server: holds 4 .*; end some, or raise connections\.total"
    ):
        enter(census)
    assert (working.told, census.open) == ([], 4)


def test_an_address_makes_room_among_its_own() -> None:
    census, _ = make(per_address=2)
    other = enter(census, "192.0.2.9", wait=Wait.IDLE)
    own = enter(census, wait=Wait.IDLE)
    enter(census)
    enter(census)
    assert (own.told, other.told) == (["dropped"], [])
    with pytest.raises(TooManyConnections, match=r"connections\.per_address"):
        enter(census)
    assert enter(census, "192.0.2.2").told == []


def test_who_has_left_counts_no_more_and_may_leave_twice() -> None:
    census, _ = make(per_address=1)
    guest = enter(census, wait=Wait.IDLE)
    census.waits[Wait.WRITE][guest] = 1.0
    census.leave(guest)
    census.leave(guest)
    assert (census.open, any(census.waits.values())) == (0, False)
    enter(census)


def test_an_address_is_a_network_in_ipv6_and_itself_in_ipv4() -> None:
    assert place_of("2001:db8::1") == place_of("2001:db8::2:3:4") != place_of("2001:db8:0:1::1")
    assert place_of("::ffff:192.0.2.1") == place_of("192.0.2.1") != place_of("192.0.2.2")
    assert place_of("fe80::1%eth0") == place_of("fe80::2")
    assert place_of("no address") == "no address"


def test_trusted_proxies_and_sockets_without_an_address_have_no_limit_of_their_own() -> None:
    census, _ = make(per_address=1, trusted_proxies=["192.0.2.0/24", "2001:db8::5"])
    for address in ("192.0.2.1", "192.0.2.1", "2001:db8::5", "2001:db8::5", "", ""):
        enter(census, address)
    enter(census, "2001:db8::6")
    with pytest.raises(TooManyConnections):
        enter(census, "2001:db8::7")
    enter(census, "strange")
    with pytest.raises(TooManyConnections):
        enter(census, "strange")


def test_connections_leave_descriptors_to_the_rest_of_the_process() -> None:
    assert make(descriptors=1_024)[0].total == 1_024 - RESERVED_DESCRIPTORS
    assert make(descriptors=10)[0].total == FEWEST_CONNECTIONS
    assert make(descriptors=-1)[0].total == make()[0].total == 4_096


def test_a_scrape_shows_what_connections_are_waited_for() -> None:
    census, _ = make(total=16)
    enter(census)
    stalled = enter(census)
    census.waits[Wait.WRITE][stalled] = 1.0
    enter(census, wait=Wait.IDLE)
    families = {family.name: family for family in ConnectionMetrics(census).collect()}
    shown = {one.labels["state"]: one.value for one in families["wardrobe_connections"].samples}
    assert shown == {"busy": 2, "idle": 1, "write": 1, "head": 0, "leftover": 0, "closing": 0}
    assert families["wardrobe_connections_limit"].samples[0].value == 16


def test_a_proxy_is_an_address_or_a_network() -> None:
    with pytest.raises(ValidationError, match="proxy"):
        ConnectionLimits(trusted_proxies=("proxy.example",))
