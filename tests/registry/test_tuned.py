"""The names of tuned models on the disk, and in the watcher's view."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from registry.entries.openai.tuned import TunedModel, TunedModels
from registry.errors import Conflict, NotFound
from registry.records import Version
from registry.store import Registry
from registry.watcher import Watcher
from tests.fakes.served import wait_until
from tests.fakes.store import put, without_links
from tests.fakes.terminal import Terminal

LONG = "ft:" + "/" * 90 + "é" * 100
NAME = "ft:Org/Base-1:wardrobe:support:AbCd1234"


def named(version: Version, name: str = NAME) -> TunedModel:
    return TunedModel(name, version.adapter, version.number, version.digest, "ftjob-1", "key1", 7.0)


@pytest.fixture
def tuned(registry: Registry) -> TunedModels:
    return registry.catalogue.tuned


@pytest.mark.parametrize("linkless", [False, True])
def test_a_name_leads_to_its_version_until_it_is_deleted(
    registry: Registry, tuned: TunedModels, *, linkless: bool
) -> None:
    model = named(put(registry))
    with without_links(linkless):
        assert tuned.add(model) == tuned.add(model) == tuned.find(NAME) == model
        assert tuned.remove(NAME, who="key1") == model
    with pytest.raises(NotFound):
        tuned.find(NAME)
    with pytest.raises(NotFound):
        tuned.remove(NAME, who="key1")
    tuned.add(model)
    with pytest.raises(NotFound, match="was deleted"):
        tuned.find(NAME)
    assert registry.version("support", 1).number == 1


def test_a_name_is_never_given_to_another_version(registry: Registry, tuned: TunedModels) -> None:
    tuned.add(named(put(registry, seed=1)))
    with pytest.raises(Conflict, match="leads to support@1"):
        tuned.add(named(put(registry, seed=2)))


@pytest.mark.parametrize("name", [LONG + "a", LONG + "b", "ft:..", "ft:a/../b"])
def test_any_name_is_one_file_in_the_folder(registry: Registry, tuned: TunedModels, name: str) -> None:
    tuned.add(named(put(registry), name))
    (file,) = tuned.folder.iterdir()
    assert len(file.name.encode()) < 250
    assert tuned.find(name).name == name
    assert list(tuned.survey()[0]) == [name]


def test_a_version_with_a_name_is_not_deleted_before_it(registry: Registry, tuned: TunedModels) -> None:
    put(registry, seed=1)
    version = put(registry, seed=2)
    tuned.add(named(version))
    with pytest.raises(Conflict, match=NAME):
        registry.delete("support", 2, who="tester")
    tuned.remove(NAME, who="key1")
    registry.delete("support", 2, who="tester")


def test_the_view_follows_names_and_a_damaged_file_hides_no_other(
    registry: Registry, tuned: TunedModels
) -> None:
    version = put(registry)
    watcher = Watcher(registry)
    watcher.refresh()
    assert not watcher.view.tuned
    tuned.add(named(version))
    (tuned.folder / "ft%3Abroken.json").write_text("{")
    watcher.refresh()
    assert watcher.view.follow(watcher.view.tuned[NAME]) == version
    assert list(watcher.problems) == ["models/ft%3Abroken.json"]
    seen = watcher.view
    watcher.refresh()
    assert watcher.view is seen
    tuned.remove(NAME, who="key1")
    (tuned.folder / "ft%3Abroken.json").unlink()
    watcher.refresh()
    assert not watcher.view.tuned
    assert not watcher.problems


def test_a_running_watcher_sees_a_name_without_being_asked(registry: Registry, tuned: TunedModels) -> None:
    version = put(registry)
    watcher = Watcher(registry, 0.01)
    seen: list[int] = []
    watcher.subscribe(lambda view: seen.append(len(view.tuned)))
    watcher.start()
    try:
        (registry.root / "changes" / "support").unlink()  # as if another machine's mark were not heard
        tuned.add(named(version))
        wait_until(lambda: 1 in seen, "the name is seen")
        tuned.remove(NAME, who="key1")
        wait_until(lambda: seen[-1] == 0, "its end is seen")
    finally:
        watcher.stop()


def test_a_name_does_not_answer_by_another_version_of_that_number(
    registry: Registry, tuned: TunedModels, tmp_path: Path
) -> None:
    tuned.add(replace(named(put(registry)), digest="sha256:another"))
    watcher = Watcher(registry)
    watcher.refresh()
    with pytest.raises(NotFound, match="another support@1"):
        watcher.view.follow(watcher.view.tuned[NAME])


def test_the_command_deletes_a_name_and_leaves_its_version(registry: Registry, tuned: TunedModels) -> None:
    tuned.add(named(put(registry)))
    terminal = Terminal(("--root", str(registry.root)))
    assert terminal.ok("delete", NAME, "--json").json == {"name": NAME, "version": "support@1"}
    assert registry.version("support", 1).number == 1
    assert "was deleted" in terminal("delete", NAME).err
    assert "not over HTTP" in Terminal(("--url", "http://127.0.0.1:1"))("delete", NAME).err
