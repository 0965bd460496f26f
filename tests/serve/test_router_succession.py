"""A moved pointer: the version before answers until the new one is ready, and stays loaded for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.store import Registry
from serve.settings import ResidencySettings
from tests.fakes.engine import FakeEngine
from tests.fakes.served import BASE, Served, make_root, publish, serve, wait_until


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_root(tmp_path)
    for seed in (1, 2, 3):
        publish(registry, tmp_path, "support", seed)
    return registry


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    with serve(registry, tmp_path) as found:
        assert answered(found) == "support@1"
        yield found


def answered(served: Served, model: str = "support") -> str:
    """Return who answered, by its name in the header."""
    response = served.chat(model)
    assert response.status_code == 200, response.text
    return response.headers["x-wardrobe-adapter"]


def move(served: Served, number: int, alias: str | None = None) -> None:
    if alias is None:
        served.registry.promote("support", number, who="tester")
    else:
        served.registry.set_alias("support", alias, number, who="tester")
    served.runtime.watcher.refresh()


def test_the_old_stable_answers_by_its_own_name_until_the_new_one_is_ready(served: Served) -> None:
    served.engine.load_seconds = 0.3
    move(served, 2)
    assert answered(served) == "support@1", "nobody waits for the load"
    wait_until(lambda: answered(served) == "support@2", "it is followed")
    assert served.runtime.problems() == []


def test_an_alias_is_followed_in_the_same_way(served: Served) -> None:
    move(served, 1, "prod")
    assert answered(served, "support@prod") == "support@1"
    served.engine.load_seconds = 0.3
    move(served, 3, "prod")
    assert answered(served, "support@prod") == "support@1"
    wait_until(lambda: answered(served, "support@prod") == "support@3", "it is followed")


def test_a_version_that_cannot_be_loaded_takes_nobodys_place_and_is_told(served: Served) -> None:
    served.engine.refusals["support@2"] = "it is not liked"
    move(served, 2)
    wait_until(lambda: bool(served.runtime.problems()), "it is told")
    assert answered(served) == "support@1"
    [problem] = served.runtime.problems()
    assert problem.startswith("support: support@2: could not be loaded: it is not liked")
    assert problem.endswith("support@1 goes on answering in place of support@2")
    assert served.metric("wardrobe_reconcile_drift_adapters", replica="r1") == 1
    move(served, 3)
    wait_until(lambda: answered(served) == "support@3", "the next move is followed")
    assert served.runtime.problems() == []


def test_a_rollback_acts_at_once_because_the_version_before_stays_loaded(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry, tmp_path, engine=FakeEngine(base_name=BASE, capacity=2)) as served:
        assert answered(served) == "support@1"
        move(served, 2)
        wait_until(lambda: answered(served) == "support@2", "it is followed")
        assert answered(served, "support@2") == "support@2"
        loads = served.engine.calls.count(("load", "support@1"))
        move(served, 1)
        assert answered(served) == "support@1"
        assert served.engine.calls.count(("load", "support@1")) == loads


def test_a_version_that_was_set_aside_answers_nobody_meanwhile(served: Served) -> None:
    served.engine.load_seconds = 0.3
    served.registry.promote("support", 2, who="tester")
    served.registry.quarantine("support", 1, "it did harm", who="tester")
    served.runtime.watcher.refresh()
    assert answered(served) == "support@2"


def test_beyond_the_wait_requests_wait_for_the_new_version(registry: Registry, tmp_path: Path) -> None:
    with serve(registry, tmp_path, residency=ResidencySettings(swap_wait_seconds=0)) as served:
        assert answered(served) == "support@1"
        served.engine.load_seconds = 0.3
        move(served, 2)
        assert answered(served) == "support@2"


def test_what_is_not_kept_makes_room_for_others(registry: Registry, tmp_path: Path) -> None:
    kept = ResidencySettings(keep_previous_seconds=0)
    with serve(registry, tmp_path, engine=FakeEngine(base_name=BASE, capacity=2), residency=kept) as served:
        assert answered(served) == "support@1"
        move(served, 2)
        wait_until(lambda: answered(served) == "support@2", "it is followed")
        assert answered(served, "support@3") == "support@3"
        assert served.engine.resident() == {"support@2", "support@3"}


def test_one_adapters_move_is_nothing_to_another(served: Served) -> None:
    served.publish("coding", 9)
    wait_until(lambda: answered(served, "coding") == "coding@1", "it is loaded")
    served.engine.load_seconds = 0.3
    move(served, 2)
    assert answered(served, "coding") == "coding@1"
    assert answered(served, "support@3") == "support@3", "asked for by its number, it is waited for"


def damage(served: Served, number: int) -> None:
    weights = served.registry.version("support", number).path / "adapter_model.safetensors"
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))


def test_whoever_asks_for_what_turns_out_damaged_is_told_how(served: Served) -> None:
    """Not only that it was set aside, which is seen while it is loaded."""
    damage(served, 3)
    served.engine.load_seconds = 0.3
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(served.chat, "support@3")
        wait_until(lambda: served.registry.quarantined("support", 3) is not None, "it is found")
        served.runtime.watcher.refresh()
        refused = asked.result()
    assert refused.status_code == 503
    assert "could not be loaded" in refused.text
    assert "adapter_model.safetensors" in refused.text


def test_a_damaged_version_takes_nobodys_place(served: Served) -> None:
    """It is put into quarantine when it is loaded, and the one before goes on."""
    damage(served, 2)
    move(served, 2)
    wait_until(lambda: served.registry.quarantined("support", 2) is not None, "it is found")
    served.runtime.watcher.refresh()
    assert answered(served) == "support@1"
    [problem] = served.runtime.problems()
    assert "support@2 is deleted or in quarantine; support@1 goes on answering" in problem


def test_an_adapter_that_nothing_answers_for_is_told(served: Served) -> None:
    served.registry.quarantine("support", 2, "it did harm", who="tester")
    served.registry.quarantine("support", 1, "it did harm, too", who="tester")
    served.runtime.watcher.refresh()
    wait_until(lambda: bool(served.runtime.problems()), "it is told")
    [problem] = served.runtime.problems()
    assert problem.startswith("support: support@1 is in quarantine and nothing answers in its place; ")
    refused = served.chat("support")
    assert refused.status_code == 503
    assert refused.json()["error"]["message"].endswith("choose another version: 3")
    move(served, 3)
    wait_until(lambda: answered(served) == "support@3", "it is followed")
    assert served.runtime.problems() == []


def test_on_one_place_the_old_version_comes_back_when_the_new_one_fails(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry, tmp_path, engine=FakeEngine(base_name=BASE, capacity=1)) as served:
        assert answered(served) == "support@1"
        served.engine.refusals["support@2"] = "it is not liked"
        move(served, 2)
        wait_until(lambda: bool(served.runtime.problems()), "it is told")
        assert answered(served) == "support@1"
        assert answered(served) == "support@1"


def test_another_adapters_stable_makes_room_rather_than_the_one_that_answers(
    registry: Registry, tmp_path: Path
) -> None:
    publish(registry, tmp_path, "coding", 9)
    with serve(registry, tmp_path, engine=FakeEngine(base_name=BASE, capacity=2)) as served:
        assert answered(served) == "support@1"
        served.engine.refusals["support@2"] = "it is not liked"
        move(served, 2)
        wait_until(lambda: bool(served.runtime.problems()), "it is told")
        assert "support@1" in served.engine.resident()
        assert answered(served) == "support@1"


def test_a_load_that_fails_after_the_wait_is_answered_by_the_one_before(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry, tmp_path, residency=ResidencySettings(swap_wait_seconds=0)) as served:
        served.engine.load_seconds = 0.2
        served.engine.refusals["support@2"] = "it is not liked"
        move(served, 2)
        assert served.chat("support").status_code == 503, "it was waited for"
        assert answered(served) == "support@1"


def test_an_alias_that_is_made_anew_remembers_nothing(served: Served) -> None:
    move(served, 1, "prod")
    assert answered(served, "support@prod") == "support@1"
    served.registry.remove_alias("support", "prod", who="tester")
    served.runtime.watcher.refresh()
    wait_until(lambda: served.chat("support@prod").status_code == 404, "it is gone")
    served.engine.load_seconds = 0.2
    move(served, 3, "prod")
    assert answered(served, "support@prod") == "support@3"


def delete(served: Served) -> None:
    served.registry.delete("support", 3, who="tester")


def set_aside(served: Served) -> None:
    served.registry.quarantine("support", 3, "it did harm", who="tester")


@pytest.mark.parametrize("take_away", [delete, set_aside])
def test_what_is_taken_away_while_it_is_loaded_answers_nobody(
    served: Served, take_away: Callable[[Served], None]
) -> None:
    served.engine.load_seconds = 0.3
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(served.chat, "support@3")
        wait_until(lambda: ("load", "support@3") in served.engine.calls, "it is being loaded")
        take_away(served)
        served.runtime.watcher.refresh()
        refused = asked.result()
    assert refused.status_code == 503
    assert "was deleted or put into quarantine while it was being loaded" in refused.text
    wait_until(lambda: "support@3" not in served.engine.resident(), "it is let go")
