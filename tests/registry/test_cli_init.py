"""`wardrobe init`: the base's name comes from its path, and what a second one changes is said."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.terminal import Terminal

REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


@pytest.fixture
def wardrobe(tmp_path: Path) -> Terminal:
    return Terminal(("--root", str(tmp_path / "root")))


def recorded(folder: Path) -> dict[str, str]:
    found: dict[str, str] = tomllib.loads((folder / "root" / "wardrobe.toml").read_text())["base"]
    return found


def test_the_name_out_of_the_hubs_cache_is_proposed_and_said(wardrobe: Terminal, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Acme--Tiny-1B" / "snapshots" / REVISION
    done = wardrobe.ok("init", "--base", make_base(snapshot))
    assert "is ready for Tiny-1B" in done.out
    assert done.err == "the base is served as Tiny-1B, which its path calls it; --name gives another name\n"
    assert recorded(tmp_path) == {"name": "Tiny-1B", "path": str(snapshot)}


def test_a_second_init_says_where_the_base_lies_now_and_keeps_its_name(
    wardrobe: Terminal, tmp_path: Path
) -> None:
    wardrobe.ok("init", "--base", make_base(tmp_path / "tiny"))
    assert wardrobe.ok("init", "--base", tmp_path / "tiny").err == ""
    other = make_base(tmp_path / "other")
    done = wardrobe.ok("init", "--base", other)
    assert done.err.splitlines() == [
        f"the base is at {other} now; it was at {tmp_path / 'tiny'}",
        "the base keeps its name, tiny; --name gives another",
    ]
    assert recorded(tmp_path) == {"name": "tiny", "path": str(other)}


def test_a_new_name_is_taken_only_where_it_is_given_and_said(wardrobe: Terminal, tmp_path: Path) -> None:
    base = make_base(tmp_path / "tiny")
    assert wardrobe.ok("init", "--base", base, "--name", "Acme/Tiny").err == ""
    done = wardrobe.ok("--json", "init", "--base", base, "--name", "chat").json
    assert done["base"]["name"] == "chat"
    assert done["notes"] == [
        "the base is called chat now; clients that ask for Acme/Tiny will not be answered"
    ]


def test_the_name_of_an_adapter_is_refused(wardrobe: Terminal, tmp_path: Path) -> None:
    base = make_base(tmp_path / "tiny")
    wardrobe.ok("init", "--base", base)
    wardrobe.ok("register", "support", make_adapter(tmp_path / "a"))
    refused = wardrobe("init", "--base", base, "--name", "support")
    assert (refused.code, "an adapter of this root is called support" in refused.err) == (1, True)
    assert recorded(tmp_path)["name"] == "tiny"


def test_the_help_says_what_a_second_init_does(wardrobe: Terminal) -> None:
    text = " ".join(wardrobe.ok("init", "--help").out.split())
    assert "keeps its name unless --name gives another" in text
    assert "changes nothing" not in text


def test_a_folder_that_holds_no_model_is_refused_as_one_that_is_not_there(
    wardrobe: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "away"):
        refused = wardrobe("init", "--base", tmp_path / name)
        assert refused.code == 1, refused.err


def test_a_repository_of_the_hubs_cache_leads_to_its_snapshot(wardrobe: Terminal, tmp_path: Path) -> None:
    cache = tmp_path / "models--Acme--Tiny-1B"
    snapshot = make_base(cache / "snapshots" / REVISION)
    refused = wardrobe("init", "--base", cache)
    assert refused.code == 1
    assert f"this is a download cache; give its snapshot {snapshot}" in refused.err


def test_a_root_in_a_folder_with_other_things_is_made_and_said(wardrobe: Terminal, tmp_path: Path) -> None:
    base = make_base(tmp_path / "tiny")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "notes.txt").write_text("mine")
    done = wardrobe.ok("init", "--base", base, "--name", "tiny")
    assert "held other things already, which stay beside the root's files: notes.txt" in done.err
    assert wardrobe.ok("init", "--base", base, "--name", "tiny").err == ""
