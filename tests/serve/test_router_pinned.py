"""What stays loaded, by the view alone, and on a server with more stables than places."""

from __future__ import annotations

import asyncio
from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from registry.store import Registry
from registry.views.view import AdapterView, View
from registry.watcher import Watcher
from serve.router.residents.pinned import to_preload, to_stay
from serve.router.residents.residency import Residency
from serve.router.residents.succession import Succession
from serve.router.telemetry.metrics import RouterMetrics
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


class Counting(Mapping[str, AdapterView]):
    """A view's adapters, which count how often one was looked at by its name."""

    def __init__(self, adapters: Mapping[str, AdapterView]) -> None:
        self.adapters = adapters
        self.looks = 0

    def __getitem__(self, name: str) -> AdapterView:
        self.looks += 1
        return self.adapters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.adapters)

    def __len__(self) -> int:
        return len(self.adapters)

    def items(self) -> ItemsView[str, AdapterView]:
        return self.adapters.items()


def named(adapter: AdapterView, name: str) -> AdapterView:
    """Return the same adapter by another name."""
    versions = {number: replace(one, adapter=name) for number, one in adapter.versions.items()}
    return replace(adapter, name=name, versions=versions)


def test_among_thousands_a_change_costs_by_what_changed(tmp_path: Path) -> None:
    watcher = Watcher(stables(tmp_path, 1))
    watcher.refresh()
    many = {f"a{number}": named(watcher.view.adapters["a"], f"a{number}") for number in range(2_000)}
    residency = Residency(
        FakeEngine(base_name=BASE),
        lambda _: None,
        lambda _: None,
        lambda _: asyncio.sleep(0),
        RouterMetrics("r1"),
    )
    succession = Succession(residency, 30.0, 600.0)
    succession.observe(View(1, many))
    adapters = Counting({**many, "a7": replace(many["a7"]), "b": named(many["a7"], "b")})
    view = View(2, adapters)
    succession.observe(view)
    succession.settle(view)
    assert succession.kept(view) == []
    assert list(succession.pending(view)) == []
    assert to_stay(view, 64) == []
    assert adapters.looks < 200
