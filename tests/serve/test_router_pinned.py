"""What stays loaded, by the view alone, and on a server with more stables than places."""

from __future__ import annotations

from pathlib import Path

from registry.store import Registry
from registry.watcher import Watcher
from serve.router.residents.pinned import to_preload, to_stay
from serve.settings import ResidencySettings
from tests.fakes.engine import FakeEngine
from tests.fakes.served import BASE, make_root, publish, serve, wait_until


def stables(folder: Path, count: int) -> Registry:
    registry = make_root(folder)
    for number, name in enumerate("abcdef"[:count]):
        publish(registry, folder, name, number)
    return registry


def test_stables_stay_where_all_of_them_fit_and_none_does_for_its_name_where_not(tmp_path: Path) -> None:
    watcher = Watcher(stables(tmp_path, 3))
    watcher.refresh()
    assert [one.adapter for one in to_stay(watcher.view, 3)] == ["a", "b", "c"]
    assert to_stay(watcher.view, 2) == []
    assert [one.adapter for one in to_preload(watcher.view, 2)] == ["a", "b"]


def test_with_more_stables_than_places_who_is_asked_for_stays(tmp_path: Path) -> None:
    registry = stables(tmp_path, 4)
    with serve(registry, tmp_path, engine=FakeEngine(base_name=BASE, capacity=2)) as served:
        assert served.engine.resident() == {"a@1", "b@1"}
        for name in ("c", "d"):
            assert served.chat(name).status_code == 200
        wait_until(lambda: served.engine.resident() == {"c@1", "d@1"}, "the first two made room")
        for name in ("c", "d", "c", "d"):
            assert served.chat(name).status_code == 200
        assert served.metric("wardrobe_adapter_evictions_total", replica="r1") == 2


def test_without_preloading_and_with_too_many_stables_nothing_is_loaded_unasked(tmp_path: Path) -> None:
    registry = stables(tmp_path, 3)
    with serve(
        registry,
        tmp_path,
        engine=FakeEngine(base_name=BASE, capacity=2),
        residency=ResidencySettings(preload_stable=False),
    ) as served:
        assert served.chat("c").status_code == 200
        assert served.engine.resident() == {"c@1"}
