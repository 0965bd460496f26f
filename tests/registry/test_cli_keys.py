"""`wardrobe keys` and `wardrobe init`."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.entries.keyring import KeyRing
from registry.entries.rights import Scope
from registry.store import Registry
from tests.fakes.base import make_base
from tests.fakes.control import admin_server
from tests.fakes.terminal import Terminal


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "tiny")


@pytest.fixture
def root(tmp_path: Path, base: Path) -> Path:
    Registry.init(tmp_path / "root", base)
    return tmp_path / "root"


@pytest.fixture
def wardrobe(root: Path) -> Terminal:
    return Terminal(("--root", str(root)))


def test_stdout_is_the_token_alone_and_it_opens_the_door(wardrobe: Terminal, root: Path) -> None:
    done = wardrobe.ok("keys", "create", "--scope", "admin", "--note", "laptop", "--expires", "90d")
    token = done.out.strip()
    caller = KeyRing(root).check(token)
    assert caller is not None
    assert (info := caller.key) is not None
    assert (info.scopes, info.note) == (frozenset({Scope.ADMIN}), "laptop")
    assert info.expires is not None
    assert info.expires - info.created == 90 * 86_400
    assert "only time" in done.err
    assert token not in done.err


def test_a_token_is_shown_once_and_never_listed(wardrobe: Terminal) -> None:
    made = wardrobe.ok("--json", "keys", "create").json
    assert made["scopes"] == ["infer"]
    for form in ((), ("--json",)):
        assert made["token"].split("_", 2)[2] not in wardrobe.ok("keys", "list", *form).out
    listed = wardrobe.ok("--json", "keys", "list").json
    assert listed == [{name: value for name, value in made.items() if name != "token"}]


@pytest.mark.parametrize("by", ["id", "token"])
def test_a_revoked_key_stays_listed_as_revoked(wardrobe: Terminal, root: Path, by: str) -> None:
    made = wardrobe.ok("--json", "keys", "create").json
    assert wardrobe.ok("--json", "keys", "revoke", made[by]).json["state"] == "revoked"
    assert wardrobe.ok("keys", "revoke", made[by]).out == f"{made['id']} revoked\n"
    assert wardrobe.ok("--json", "keys", "list").json[0]["state"] == "revoked"
    assert KeyRing(root).check(made["token"]) is None


def test_revoking_an_unknown_key_is_refused(wardrobe: Terminal) -> None:
    done = wardrobe("keys", "revoke", "000000000000")
    assert done.code == 1
    assert "wardrobe keys list" in done.err


def test_keys_need_a_root(tmp_path: Path) -> None:
    done = Terminal(("--root", str(tmp_path)))("keys", "create")
    assert (done.code, done.out) == (1, "")
    assert list(tmp_path.iterdir()) == []


def test_init_makes_a_root_once_and_refuses_another_base(base: Path, tmp_path: Path) -> None:
    wardrobe = Terminal(("--root", str(tmp_path / "new")))
    made = wardrobe.ok("--json", "init", "--base", base, "--max-lora-rank", "64").json
    assert (made["base"]["name"], made["max_lora_rank"]) == ("tiny", 64)
    again = wardrobe.ok("init", "--base", base)
    assert made["base"]["fingerprint"] in again.out
    other = make_base(tmp_path / "other", config={"hidden_act": "gelu", "vocab_size": 300})
    refused = wardrobe("init", "--base", other)
    assert refused.code == 1
    assert refused.err.startswith("error: ")


def test_init_refuses_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in ("empty", "missing"):
        done = Terminal(("--root", str(tmp_path / "new")))("init", "--base", tmp_path / path)
        assert done.code in {1, 2}
        assert str(tmp_path / path) in done.err
    assert not (tmp_path / "new").exists()


def test_over_http_the_key_comes_from_the_option_or_the_environment(
    wardrobe: Terminal, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = wardrobe.ok("keys", "create", "--scope", "admin").out.strip()
    narrow = wardrobe.ok("keys", "create").out.strip()
    with admin_server(root) as url:
        remote = Terminal(("--url", url, "--json"))
        refused = remote("list")
        assert refused.code == 1
        assert "--key or WARDROBE_KEY" in refused.err
        assert remote("list", "--key", narrow).code == 1
        assert remote.ok("list", "--key", admin).json == []
        monkeypatch.setenv("WARDROBE_KEY", "")  # a secret that is not set
        assert "--key or WARDROBE_KEY" in remote("list").err
        monkeypatch.setenv("WARDROBE_KEY", admin)
        assert remote.ok("status").json["auth"] is True
        assert remote("list", "--key", narrow).code == 1
