from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

import pytest

from registry.errors import NotFound, Quarantined, StorageFailed
from registry.names import parse_model
from registry.store import Registry
from registry.views.view import View
from registry.watcher import Watcher
from tests.fakes.store import put


@pytest.fixture
def watcher(registry: Registry) -> Iterator[Watcher]:
    put(registry, seed=1)
    put(registry, seed=2)
    found = Watcher(registry, 0.02, sweep_seconds=0.2)
    found.start()
    yield found
    found.stop()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_view_answers_as_the_registry_does(registry: Registry) -> None:
    for seed in (1, 2, 3):
        put(registry, seed=seed)
    registry.set_alias("support", "beta", 2, who="tester")
    registry.quarantine("support", 3, "it harms", who="tester")
    watcher = Watcher(registry)
    watcher.refresh()
    for model in ("support", "support@2", "support@beta"):
        assert watcher.view.resolve(parse_model(model)) == registry.resolve(parse_model(model))
    for model in ("support@3", "support@9", "support@gamma", "support@canary", "nope"):
        with pytest.raises((NotFound, Quarantined)) as by_view:
            watcher.view.resolve(parse_model(model))
        with pytest.raises((NotFound, Quarantined)) as by_registry:
            registry.resolve(parse_model(model))
        assert str(by_view.value) == str(by_registry.value)


def test_a_view_tells_what_is_new_gone_or_otherwise_than_before(registry: Registry) -> None:
    for name in ("kept", "moved", "gone"):
        put(registry, name, seed=1)
    watcher = Watcher(registry)
    watcher.refresh()
    before = watcher.view
    put(registry, "new", seed=2)
    registry.set_alias("moved", "beta", 1, who="tester")
    watcher.refresh()
    without = {name: one for name, one in watcher.view.adapters.items() if name != "gone"}
    assert View(9, without).changed_since(before) == {"new", "moved", "gone"}
    assert watcher.view.changed_since(watcher.view) == set()


def test_start_reads_everything_before_it_returns(watcher: Watcher) -> None:
    assert watcher.view.generation == 1
    assert set(watcher.view.adapters["support"].versions) == {1, 2}


def test_a_change_by_another_process_is_seen(watcher: Watcher, registry: Registry) -> None:
    code = (
        "import sys; from pathlib import Path; from registry import Registry;"
        "Registry.open(Path(sys.argv[1])).promote('support', 2, who='another process')"
    )
    subprocess.run([sys.executable, "-c", code, str(registry.root)], check=True)
    wait_until(lambda: watcher.view.adapters["support"].aliases == {"stable": 2})


def test_every_kind_of_change_makes_a_new_view(watcher: Watcher, registry: Registry) -> None:
    seen = watcher.view
    for change in (
        lambda: put(registry, seed=3),
        lambda: put(registry, "other", seed=1),
        lambda: registry.set_alias("support", "beta", 2, who="tester"),
        lambda: registry.attest("support", 2, "proof", {"passed": True}, who="tester"),
        lambda: registry.quarantine("support", 3, "it harms", who="tester"),
        lambda: registry.remove_alias("support", "beta", who="tester"),
        lambda: registry.delete("support", 2, who="tester"),
    ):
        change()
        watcher.refresh()
        assert watcher.view.generation > seen.generation
        assert watcher.view.adapters != seen.adapters
        seen = watcher.view
    assert set(seen.adapters["support"].versions) == {1, 3}
    assert dict(seen.adapters["support"].quarantined) == {3: "it harms"}


def test_a_version_is_proved_by_a_proof_that_passed(watcher: Watcher, registry: Registry) -> None:
    registry.attest("support", 1, "proof", {"passed": False}, who="one")
    registry.attest("support", 2, "proof", {"passed": False}, who="one")
    registry.attest("support", 2, "proof", {"passed": True}, who="two")
    registry.attest("support", 1, "evaluation", {"passed": True}, who="two")
    watcher.refresh()
    assert watcher.view.adapters["support"].proved == {2}


def test_two_changes_in_one_tick_of_the_clock_are_both_seen(watcher: Watcher, registry: Registry) -> None:
    for number in (2, 1) * 50:
        registry.promote("support", number, who="tester")
        watcher.refresh()
        assert watcher.view.adapters["support"].aliases["stable"] == number


def test_a_change_whose_writer_died_before_its_mark_is_seen_by_the_sweep(
    watcher: Watcher, registry: Registry
) -> None:
    registry.catalogue.mark = lambda adapter: None  # type: ignore[method-assign]
    registry.promote("support", 2, who="tester")
    put(registry, "unmarked", seed=1)
    wait_until(lambda: "unmarked" in watcher.view.adapters)
    wait_until(lambda: watcher.view.adapters["support"].aliases == {"stable": 2})


def test_a_view_that_was_taken_never_changes(watcher: Watcher, registry: Registry) -> None:
    taken = watcher.view
    registry.promote("support", 2, who="tester")
    watcher.refresh()
    assert taken.resolve(parse_model("support")).number == 1
    with pytest.raises(TypeError):
        taken.adapters["support"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        taken.generation = 7  # type: ignore[misc]


def test_no_change_makes_no_new_view(watcher: Watcher) -> None:
    taken = watcher.view
    looked = watcher.last_success
    wait_until(lambda: watcher.last_success > looked + 0.5)
    assert watcher.view is taken


def test_subscribers_are_told_of_each_change_and_one_that_fails_stops_nobody(
    watcher: Watcher, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, View]] = []

    def fail(_: View) -> None:
        raise RuntimeError("closed loop")

    watcher.subscribe(fail)
    watcher.subscribe(lambda view: told.append((threading.current_thread().name, view)))
    registry.promote("support", 2, who="tester")
    wait_until(lambda: bool(told))
    assert told[0][0] == "wardrobe-watcher"
    assert told[0][1].adapters["support"].aliases == {"stable": 2}
    registry.promote("support", 1, who="tester")
    wait_until(lambda: len(told) == 2)
    assert "closed loop" in caplog.text


def test_an_adapter_that_cannot_be_read_keeps_its_last_view_and_is_named(
    watcher: Watcher, registry: Registry
) -> None:
    put(registry, "other", seed=1)
    watcher.refresh()
    entry = registry.root / "adapters/support/aliases/stable/1.json"
    whole = entry.read_bytes()
    entry.chmod(0o644)
    entry.write_bytes(b"torn")
    wait_until(lambda: "support" in watcher.problems)
    assert watcher.view.resolve(parse_model("support")).number == 1
    registry.set_alias("other", "beta", 1, who="tester")
    watcher.refresh()
    assert watcher.view.adapters["other"].aliases == {"beta": 1, "stable": 1}
    entry.write_bytes(whole)
    wait_until(lambda: not watcher.problems)


def test_a_root_that_is_away_for_a_while_stops_nothing(watcher: Watcher, registry: Registry) -> None:
    away = Path(f"{registry.root}-away")
    registry.root.rename(away)
    wait_until(lambda: "" in watcher.problems)
    stale = watcher.last_success
    with pytest.raises(StorageFailed, match="check that the root is mounted"):
        watcher.refresh()
    assert watcher.view.resolve(parse_model("support")).number == 1
    away.rename(registry.root)
    wait_until(lambda: watcher.last_success > stale)
    registry.promote("support", 2, who="tester")
    wait_until(lambda: watcher.view.resolve(parse_model("support")).number == 2)
    assert watcher.problems == MappingProxyType({})


def test_a_deleted_adapter_leaves_the_view(watcher: Watcher, registry: Registry) -> None:
    registry.remove_alias("support", "stable", who="tester")
    for number in (1, 2):
        registry.delete("support", number, who="tester")
    wait_until(lambda: watcher.view.adapters == {})
    with pytest.raises(NotFound, match="adapters: none"):
        watcher.view.resolve(parse_model("support"))
