from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from registry.errors import Conflict, CorruptStore, InvalidName, NotFound, UsageError
from registry.records import Limits
from registry.store import Registry
from tests.fakes.base import BaseShape, make_base
from tests.fakes.store import put


def test_a_folder_that_is_no_root_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match="is not a Wardrobe root; mount it if it is away, or run `wardrobe init --base PATH`"
    ):
        Registry.open(tmp_path)


def test_what_init_recorded_is_what_open_reads(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    made = Registry.init(tmp_path / "root", base, name="tiny", limits=Limits(max_lora_rank=64))
    opened = Registry.open(tmp_path / "root")
    assert opened.base == made.base
    assert (opened.base.name, opened.base.path) == ("tiny", base)
    assert opened.base.modules["model.layers.0.self_attn.q_proj"] == (64, 64)
    assert opened.limits == Limits(max_lora_rank=64)


def test_init_again_for_the_same_base_opens_and_records_where_it_lies_now(tmp_path: Path) -> None:
    Registry.init(tmp_path / "root", make_base(tmp_path / "base"), limits=Limits(max_lora_rank=64))
    put(Registry.open(tmp_path / "root"))
    (tmp_path / "base").rename(tmp_path / "moved")
    again = Registry.init(tmp_path / "root", tmp_path / "moved", name="renamed")
    assert (again.base.name, again.base.path) == ("renamed", tmp_path / "moved")
    assert again.limits.max_lora_rank == 64
    assert again.adapters() == ["support"]


def test_init_again_keeps_the_name_unless_one_is_given(tmp_path: Path) -> None:
    Registry.init(tmp_path / "root", make_base(tmp_path / "first"))
    again = Registry.init(tmp_path / "root", make_base(tmp_path / "second"))
    assert (again.base.name, again.base.path) == ("first", tmp_path / "second")
    assert Registry.init(tmp_path / "root", tmp_path / "second", name="third").base.name == "third"
    assert Registry.open(tmp_path / "root").base.name == "third"


@pytest.mark.parametrize("name", ["support", "Support"])
def test_the_base_cannot_be_renamed_to_what_an_adapter_is_called(tmp_path: Path, name: str) -> None:
    base = make_base(tmp_path / "base")
    put(Registry.init(tmp_path / "root", base, name="tiny"))
    with pytest.raises(Conflict, match="an adapter of this root is called support"):
        Registry.init(tmp_path / "root", base, name=name)
    assert Registry.open(tmp_path / "root").base.name == "tiny"
    make_base(tmp_path / name)
    assert Registry.init(tmp_path / "root", tmp_path / name).base.name == "tiny"


@pytest.mark.parametrize("name", ["", " tiny", "a\nb", "support@3", "tiny@stable", "x" * 256])
def test_a_name_that_no_base_can_be_asked_by_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidName):
        Registry.init(tmp_path / "root", make_base(tmp_path / "base"), name=name)
    assert not (tmp_path / "root").exists()


def test_a_base_out_of_the_hubs_cache_is_served_under_its_repositorys_name(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Acme--Tiny-1B-Chat" / "snapshots" / ("0123456789" * 4)
    assert Registry.init(tmp_path / "root", make_base(snapshot)).base.name == "Tiny-1B-Chat"
    recorded = make_base(tmp_path / "opt" / "ml" / "model", config={"_name_or_path": "Acme/Tiny-1B-Chat"})
    assert Registry.init(tmp_path / "other", recorded).base.name == "Tiny-1B-Chat"


def test_init_for_another_base_is_refused(tmp_path: Path) -> None:
    Registry.init(tmp_path / "root", make_base(tmp_path / "base"))
    other = make_base(tmp_path / "other", BaseShape(hidden=128))
    with pytest.raises(Conflict, match=r"is the root of base base .*, not of other"):
        Registry.init(tmp_path / "root", other)


def test_init_changes_nothing_where_adapters_lie_and_the_layout_was_lost(tmp_path: Path) -> None:
    root = Registry.init(tmp_path / "root", make_base(tmp_path / "base")).root
    (root / "adapters" / "support").mkdir()
    (root / "layout.json").unlink()
    before = {path: path.read_bytes() for path in root.glob("*.*")}
    with pytest.raises(Conflict, match=r"has adapters, but no layout\.json; restore that file from a backup"):
        Registry.init(root, make_base(tmp_path / "other", BaseShape(hidden=128)))
    assert {path: path.read_bytes() for path in root.glob("*.*")} == before


def test_an_unknown_major_version_of_the_layout_is_refused(registry: Registry) -> None:
    layout = registry.root / "layout.json"
    fields = json.loads(layout.read_text())
    layout.chmod(0o644)
    layout.write_text(json.dumps({**fields, "major": 2}))
    with pytest.raises(CorruptStore, match="has layout 2, this program knows 1"):
        Registry.open(registry.root)
    layout.write_text(json.dumps({**fields, "minor": 7, "new": True}))
    assert Registry.open(registry.root).base == registry.base


BASE_TABLE = "[base]\nname = 'a'\npath = 'b'\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"{BASE_TABLE}[limits]\nmax_rank = 1\n",
            ":5: unknown setting limits.max_rank; did you mean limits.max",
        ),
        (f"{BASE_TABLE}[limit]\n", ":4: unknown setting limit; did you mean limits?"),
        ("[base\n", ":1: is not valid TOML"),
    ],
)
def test_a_wrong_setting_names_the_key_and_the_file(text: str, words: str, registry: Registry) -> None:
    (registry.root / "wardrobe.toml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        Registry.open(registry.root)
    assert str(registry.root / "wardrobe.toml") in str(caught.value)


def test_a_limit_that_is_left_out_has_its_default(registry: Registry) -> None:
    (registry.root / "wardrobe.toml").write_text("[base]\nname = 'a'\npath = 'b'\n")
    assert Registry.open(registry.root).limits == Limits()


@pytest.mark.parametrize("name", ["base.json", "wardrobe.toml"])
def test_a_root_that_lost_a_file_says_which(name: str, registry: Registry) -> None:
    (registry.root / name).unlink()
    with pytest.raises(CorruptStore, match=name):
        Registry.open(registry.root)


def test_a_root_from_a_backup_without_its_empty_folders_works(registry: Registry) -> None:
    for name in ("staging", "trash", "changes", "replicas"):
        for path in (registry.root / name).iterdir():
            path.unlink()
        (registry.root / name).rmdir()
    assert put(Registry.open(registry.root)).number == 1


def test_a_version_behind_a_symbolic_link_is_refused(registry: Registry) -> None:
    version = put(registry)
    versions = registry.root / "adapters/support/versions"
    versions.rename(registry.root / "elsewhere")
    versions.symlink_to(registry.root / "elsewhere")
    assert registry.catalogue.versions.problem(version) == "leads through a symbolic link"


def test_a_root_that_is_reached_by_a_symbolic_link_is_a_root(registry: Registry, tmp_path: Path) -> None:
    put(registry)
    (tmp_path / "link").symlink_to(registry.root)
    through = Registry.open(tmp_path / "link")
    assert through.root == registry.root
    assert all(result.ok for result in through.verify())
