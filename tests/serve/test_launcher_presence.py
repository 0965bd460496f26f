"""A server is known in its root from the first second on, and while its engine is started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.records import Heartbeat
from registry.store import Registry
from serve.launcher.presence import Presence
from tests.fakes.launched import launched, wait
from tests.fakes.served import make_root


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_root(tmp_path)


def beats(registry: Registry) -> dict[str, Heartbeat]:
    return {beat.replica: beat for beat, live in registry.replicas() if live}


def test_a_server_that_starts_beats_until_it_ends(registry: Registry, tmp_path: Path) -> None:
    with launched(tmp_path / "logs", "hang", ROOT=str(registry.root), REPLICA="r1") as launcher:
        wait(lambda: "r1" in beats(registry), "a heartbeat")
        found = beats(registry)["r1"]
        assert (found.state, found.resident, found.pid) == ("starting", (), launcher.process.pid)
        launcher.process.terminate()
        assert launcher.process.wait(10) == 0
    assert beats(registry) == {}


def test_a_second_server_of_one_name_ends_while_the_first_still_starts(
    registry: Registry, tmp_path: Path
) -> None:
    root = str(registry.root)
    with launched(tmp_path / "one", "hang", ROOT=root, REPLICA="r1") as first:
        wait(lambda: "r1" in beats(registry), "a heartbeat")
        with launched(tmp_path / "two", "hang", ROOT=root, REPLICA="r1") as second:
            second.wait_for("is the name of another server that lives")
            assert second.process.wait(10) == 1
        assert beats(registry)["r1"].pid == first.process.pid


def test_an_engine_of_the_same_server_takes_the_heartbeat_over(registry: Registry) -> None:
    presence = Presence(registry, "r1", "http://x", "word", clock=lambda: 5.0)
    assert presence.beat() == ""
    engine = Heartbeat("r1", "http://x", registry.base.fingerprint, ("a@1",), 8, "ready", 9.0, 7, "word")
    registry.beat(engine)
    assert beats(registry)["r1"].state == "ready"
    assert presence.beat() == ""
    presence.leave()
    assert beats(registry) == {}


def test_a_server_that_was_refused_leaves_the_others_heartbeat_alone(registry: Registry) -> None:
    first = Presence(registry, "r1", "http://x", "one", clock=lambda: 5.0)
    second = Presence(registry, "r1", "http://y", "two", clock=lambda: 6.0)
    assert first.beat() == ""
    assert "is the name of another server that lives, at http://x" in second.beat()
    second.leave()
    assert beats(registry)["r1"].server == "one"


def test_a_root_that_takes_no_writes_keeps_no_server_from_starting(
    registry: Registry, tmp_path: Path
) -> None:
    (registry.root / "replicas").rmdir()
    (registry.root / "replicas").touch()
    with launched(tmp_path / "logs", ROOT=str(registry.root), REPLICA="r1") as launcher:
        launcher.wait_for("all is well")
