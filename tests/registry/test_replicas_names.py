"""One name, one server: of two that beat under it, the one that started later is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from registry.entries.replicas import LIVE_SECONDS
from registry.errors import Conflict
from registry.records import Heartbeat
from registry.store import Registry
from tests.fakes.store import make_registry


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def server(word: str, *, started: float, port: int = 8000) -> Heartbeat:
    return Heartbeat("me", f"http://127.0.0.1:{port}", "sha256:0", (), 4, "ready", started, port, word)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


def test_a_second_server_of_one_name_is_refused_while_the_first_lives(registry: Registry) -> None:
    registry.beat(server("a", started=1.0, port=8100))
    with pytest.raises(Conflict, match=r"another server that lives, at http://127.0.0.1:8100 .* --replica"):
        registry.beat(server("b", started=2.0, port=8200))
    registry.beat(server("a", started=1.0, port=8100))
    assert [beat.url for beat, _ in registry.replicas()] == ["http://127.0.0.1:8100"]


def test_an_engine_that_was_restarted_by_the_same_server_goes_on(registry: Registry) -> None:
    registry.beat(server("a", started=1.0))
    registry.beat(replace(server("a", started=9.0), pid=77))
    assert [beat.pid for beat, _ in registry.replicas()] == [77]


def test_the_name_of_a_server_that_died_is_free_after_ten_seconds(tmp_path: Path) -> None:
    made = make_registry(tmp_path)
    made.beat(server("a", started=1.0))
    changed = made.catalogue.replicas.changed("me")
    assert changed is not None
    clock = Clock(changed + LIVE_SECONDS - 1)
    registry = Registry(made.catalogue.root, clock=clock)
    with pytest.raises(Conflict):
        registry.beat(server("b", started=2.0))
    clock.now += 2
    registry.beat(server("b", started=2.0))


def test_of_two_that_began_at_once_exactly_one_is_refused(registry: Registry) -> None:
    one, two = server("a", started=1.0), server("b", started=1.0)
    registry.beat(one)
    with pytest.raises(Conflict):
        registry.beat(two)
    registry.remove_replica("me")
    registry.beat(two)
    registry.beat(one)  # the other one will find out at its next beat
    with pytest.raises(Conflict):
        registry.beat(two)


def test_servers_of_an_earlier_release_are_told_apart_by_their_process(registry: Registry) -> None:
    registry.beat(server("", started=1.0, port=8100))
    with pytest.raises(Conflict):
        registry.beat(server("", started=2.0, port=8200))


def test_a_damaged_heartbeat_is_named_and_the_others_are_shown(registry: Registry) -> None:
    registry.beat(server("a", started=1.0))
    (registry.root / "replicas" / "odd.json").write_bytes(b"{")
    assert [beat.replica for beat, _ in registry.replicas()] == ["me"]
    assert list(registry.replica_problems()) == ["odd"]
