"""The same commands on a root and, with --url, over a real server: the same answers, both ways."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.control import admin_server
from tests.fakes.terminal import Done, Terminal

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[int], Path]:
    return lambda seed: make_adapter(tmp_path / f"adapter-{seed}", seed=seed)


def test_register_prints_the_name_and_digest_and_the_first_version_becomes_stable(
    wardrobe: Terminal, folder: Callable[[int], Path]
) -> None:
    done = wardrobe.ok("register", "support", folder(1), "--note", "first")
    name, digest = done.out.split()
    assert name == "support@1"
    assert DIGEST.fullmatch(digest)
    again = wardrobe.ok("register", "support", folder(2), "--json").json
    assert (again["adapter"], again["version"], again["created"]) == ("support", 2, True)
    assert again["aliases"] == []
    assert wardrobe.ok("--json", "list").json == [
        {
            "adapter": "support",
            "stable": 1,
            "latest": 2,
            "versions": 2,
            "aliases": {"stable": 1},
            "problem": "",
            "stable_quarantined": False,
        }
    ]


def test_the_same_content_keeps_its_number_unless_a_duplicate_is_asked_for(
    wardrobe: Terminal, folder: Callable[[int], Path]
) -> None:
    first = wardrobe.ok("--json", "register", "support", folder(1)).json
    again = wardrobe.ok("--json", "register", "support", folder(1)).json
    assert (again["version"], again["created"], again["digest"]) == (1, False, first["digest"])
    other = wardrobe.ok("--json", "register", "support", folder(1), "--allow-duplicate").json
    assert (other["version"], other["created"], other["digest"]) == (2, True, first["digest"])


def test_what_is_left_out_and_warnings_go_to_stderr(wardrobe: Terminal, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "trl", zero_b=True)
    (path / "training_args.bin").write_bytes(b"pickle")
    (path / "checkpoint-10").mkdir()
    (path / "tokenizer_config.json").write_text("{}")
    done = wardrobe.ok("register", "support", path, "--json")
    assert done.json["left_out"] == ["checkpoint-10/", "tokenizer_config.json", "training_args.bin"]
    assert any("changes nothing" in warning for warning in done.json["warnings"])
    told = [line for line in done.err.splitlines() if "left out" in line]
    assert told == [
        "warning: left out, not part of an adapter: checkpoint-10/, tokenizer_config.json, training_args.bin"
    ]
    assert "changes nothing" in done.err


def test_a_whole_trainers_folder_is_left_out_in_one_line(wardrobe: Terminal, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "run")
    for number in range(25):
        (path / f"event-{number:02}.log").write_text("x")
    done = wardrobe.ok("register", "support", path, "--json")
    assert len(done.json["left_out"]) == 25
    (line,) = [line for line in done.err.splitlines() if "event-" in line]
    assert "event-00.log, event-01.log, event-02.log and 22 more (--json lists them)" in line


def test_register_sets_an_alias_or_no_stable(wardrobe: Terminal, folder: Callable[[int], Path]) -> None:
    first = wardrobe.ok("--json", "register", "support", folder(1), "--no-stable").json
    assert first["aliases"] == []
    second = wardrobe.ok("--json", "register", "support", folder(2), "--alias", "night").json
    assert "night" in second["aliases"]
    assert wardrobe.ok("--json", "show", "support").json["aliases"]["night"] == 2


def test_register_takes_golden_prompts(
    wardrobe: Terminal, folder: Callable[[int], Path], tmp_path: Path, root: Path
) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    wardrobe.ok("register", "support", folder(1), "--golden", golden)
    assert (root / "adapters/support/golden.jsonl").read_bytes() == golden.read_bytes()


def test_a_pickle_is_refused_with_the_remedy(wardrobe: Terminal, tmp_path: Path, root: Path) -> None:
    path = make_adapter(tmp_path / "pickled")
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    done = wardrobe("register", "support", path, "--json")
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("error: support: adapter_model.bin holds pickled weights")
    assert '"code": "invalid_adapter"' in done.err.splitlines()[-1]
    assert wardrobe.ok("--json", "list").json == []
    assert list((root / "staging").iterdir()) == []


def test_a_rank_over_the_limit_names_both_and_the_remedy(wardrobe: Terminal, tmp_path: Path) -> None:
    done = wardrobe("register", "support", make_adapter(tmp_path / "big", rank=64))
    assert done.code == 1
    assert re.search(r"error: support: .*64.*32", done.err)
    assert wardrobe.ok("--json", "list").json == []


def test_show_tells_of_an_adapter_and_of_a_version_by_number_or_alias(
    wardrobe: Terminal, folder: Callable[[int], Path]
) -> None:
    wardrobe.ok("register", "support", folder(1), "--note", "a note")
    adapter = wardrobe.ok("--json", "show", "support").json
    assert (adapter["adapter"], adapter["stable"]) == ("support", 1)
    assert [version["version"] for version in adapter["versions"]] == [1]
    version = wardrobe.ok("--json", "show", "support@1").json
    assert (version["note"], version["rank"], version["aliases"]) == ("a note", 8, ["stable"])
    assert version["quarantined"] is None
    assert {file["path"] for file in version["files"]} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert wardrobe.ok("--json", "show", "support@stable").json == version
    human = wardrobe.ok("show", "support@1").out
    assert "a note" in human
    assert adapter["versions"][0]["digest"] in human


def test_aliases_promote_rollback_and_history(wardrobe: Terminal, folder: Callable[[int], Path]) -> None:
    for seed in (1, 2, 3):
        wardrobe.ok("register", "support", folder(seed))
    assert wardrobe.ok("promote", "support@2").out.startswith("support@stable -> support@2  sha256:")
    moved = wardrobe.ok("--json", "alias", "set", "support", "night", "3").json
    assert (moved["alias"], moved["version"], moved["why"]) == ("night", 3, "alias set")
    assert wardrobe.ok("--json", "rollback", "support").json["version"] == 1
    moves = wardrobe.ok("--json", "history", "support").json
    assert [(move["alias"], move["version"]) for move in moves] == [
        ("stable", 1),
        ("stable", 2),
        ("night", 3),
        ("stable", 1),
    ]
    assert all(move["who"] and move["why"] and move["at"] > 0 for move in moves)
    assert len(wardrobe.ok("history", "support").out.splitlines()) == 5


def test_an_alias_is_removed_and_its_history_stays(wardrobe: Terminal, folder: Callable[[int], Path]) -> None:
    wardrobe.ok("register", "support", folder(1))
    wardrobe.ok("alias", "set", "support", "night", "1")
    done = wardrobe.ok("alias", "remove", "support", "night")
    assert (done.out, done.err) == ("support@night removed\n", "")
    assert wardrobe.ok("--json", "show", "support").json["aliases"] == {"stable": 1}
    again = wardrobe("--json", "alias", "remove", "support", "night")
    assert (again.code, again.out) == (1, "")
    assert '"code": "not_found"' in again.err
    moves = wardrobe.ok("--json", "history", "support").json
    assert [(move["alias"], move["version"], move["why"]) for move in moves][-2:] == [
        ("night", 1, "alias set"),
        ("night", None, "alias removed"),
    ]
    assert "alias removed" in wardrobe.ok("history", "support").out


def test_removing_stable_says_what_becomes_of_its_traffic(
    wardrobe: Terminal, folder: Callable[[int], Path]
) -> None:
    wardrobe.ok("register", "support", folder(1))
    done = wardrobe.ok("alias", "remove", "support", "stable", "--json")
    assert (done.json["alias"], done.json["version"], done.json["digest"]) == ("stable", None, None)
    told = wardrobe.ok("promote", "support@1"), wardrobe.ok("alias", "remove", "support", "stable")
    assert "404 until a version is promoted" in told[1].err
    assert wardrobe.ok("--json", "status").json["without_stable"] == ["support"]
    assert wardrobe.ok("delete", "support@1").code == 0


def test_delete_is_refused_while_an_alias_uses_the_version(
    wardrobe: Terminal, folder: Callable[[int], Path]
) -> None:
    wardrobe.ok("register", "support", folder(1))
    wardrobe.ok("register", "support", folder(2))
    refused = wardrobe("delete", "support@1", "--json")
    assert refused.code == 1
    assert "stable" in refused.err
    assert '"code": "conflict"' in refused.err
    assert wardrobe.ok("--json", "delete", "support@2").json == {
        "adapter": "support",
        "version": 2,
        "deleted": True,
    }
    gone = wardrobe("show", "support@2")
    assert gone.code == 1
    assert wardrobe.ok("--json", "register", "support", folder(2)).json["version"] == 3


def test_verify_passes_then_names_the_version_that_changed_and_quarantines_it(
    wardrobe: Terminal, folder: Callable[[int], Path], root: Path
) -> None:
    wardrobe.ok("register", "support", folder(1))
    wardrobe.ok("register", "other", folder(2))
    assert [(one["name"], one["ok"]) for one in wardrobe.ok("--json", "verify").json] == [
        ("other@1", True),
        ("support@1", True),
    ]
    weights = root / "adapters/support/versions/1/adapter_model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    done = wardrobe("verify", "support", "--json")
    assert done.code == 1
    assert [(one["name"], one["ok"]) for one in done.json] == [("support@1", False)]
    assert "error: support@1" in done.err
    assert wardrobe.ok("--json", "show", "support@1").json["quarantined"] is not None
    assert wardrobe("verify", "other").code == 0
    assert wardrobe("verify").code == 1


def test_gc_is_a_dry_run_unless_told_otherwise(
    wardrobe: Terminal, folder: Callable[[int], Path], root: Path
) -> None:
    wardrobe.ok("register", "support", folder(1))
    wardrobe.ok("register", "support", folder(2))
    wardrobe.ok("delete", "support@2")
    dry = wardrobe.ok("--json", "gc").json
    assert dry["applied"] is False
    assert len(dry["trashed"]) == 1
    assert (root / "adapters/support/versions/2").is_dir()
    assert "add --apply" in wardrobe.ok("gc").out
    done = wardrobe.ok("--json", "gc", "--apply").json
    assert (done["applied"], done["trashed"]) == (True, dry["trashed"])
    assert not (root / "adapters/support/versions/2").exists()


def test_gc_says_why_a_thing_goes_and_when_there_is_nothing(
    wardrobe: Terminal, folder: Callable[[int], Path]
) -> None:
    wardrobe.ok("register", "support", folder(1))
    assert wardrobe.ok("gc").out == "nothing to collect\n"
    wardrobe.ok("register", "support", folder(2))
    wardrobe.ok("delete", "support@2")
    (row,) = [line for line in wardrobe.ok("gc").out.splitlines() if "support@2" in line]
    assert row.split() == ["trash", "support@2", "deleted"]


def test_a_stable_version_in_quarantine_is_shown_as_such(
    wardrobe: Terminal, folder: Callable[[int], Path], root: Path
) -> None:
    wardrobe.ok("register", "support", folder(1))
    weights = root / "adapters/support/versions/1/adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"changed")
    assert wardrobe("verify").code == 1
    assert "1 (quarantined)" in wardrobe.ok("list").out
    assert "1, stable among them: support@1\n" in wardrobe.ok("status").out


def test_export_writes_a_plain_peft_folder_that_registers_again(
    wardrobe: Terminal, folder: Callable[[int], Path], tmp_path: Path
) -> None:
    first = wardrobe.ok("--json", "register", "support", folder(1)).json
    target = tmp_path / "out" / "copy"
    target.parent.mkdir()
    exported = wardrobe.ok("--json", "export", "support@1", target).json
    assert (exported["digest"], exported["path"]) == (first["digest"], str(target))
    assert (target / "adapter_model.safetensors").is_file()
    again = wardrobe.ok("--json", "register", "copy", target).json
    assert again["digest"] == first["digest"]
    refused = wardrobe("export", "support@1", target)
    assert refused.code == 1
    assert str(target) in refused.err


def test_export_keeps_the_words_for_the_base_or_takes_those_that_are_given(
    wardrobe: Terminal, tmp_path: Path
) -> None:
    folder = make_adapter(tmp_path / "a", config={"base_model_name_or_path": "Acme/Tiny"})
    wardrobe.ok("register", "support", folder)
    done = wardrobe.ok("export", "support@1", tmp_path / "out")
    assert "its config names the base Acme/Tiny; --base names another" in done.err
    assert '"base_model_name_or_path": "Acme/Tiny"' in (tmp_path / "out/adapter_config.json").read_text()
    other = wardrobe.ok("--json", "export", "support@1", tmp_path / "other", "--base", "my/own").json
    assert other["base"] == "my/own"
    assert wardrobe.ok("--json", "show", "support@1").json["base_named"] == "Acme/Tiny"


def test_a_folder_of_links_registers_and_a_broken_one_is_told_the_same_both_ways(
    wardrobe: Terminal, tmp_path: Path
) -> None:
    plain = make_adapter(tmp_path / "plain")
    (tmp_path / "snapshot").mkdir()
    for file in plain.iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    first = wardrobe.ok("--json", "register", "support", tmp_path / "snapshot").json
    assert wardrobe.ok("--json", "register", "support", plain).json["digest"] == first["digest"]
    (plain / "adapter_model.safetensors").unlink()
    refused = wardrobe("register", "support", tmp_path / "snapshot")
    assert refused.code == 1
    assert "adapter_model.safetensors is a link to" in refused.err
    assert "which is not there" in refused.err


def test_an_adapter_called_like_the_base_is_a_conflict_both_ways(
    wardrobe: Terminal, folder: Callable[[int], Path]
) -> None:
    refused = wardrobe("--json", "register", "tiny", folder(1))
    assert (refused.code, '"code": "conflict"' in refused.err) == (1, True)
    assert "names the base model (tiny)" in refused.err
    assert wardrobe.ok("--json", "list").json == []


def test_status_tells_of_the_base_the_adapters_and_what_needs_attention(
    wardrobe: Terminal, folder: Callable[[int], Path]
) -> None:
    wardrobe.ok("register", "support", folder(1))
    wardrobe.ok("register", "raw", folder(2), "--no-stable")
    status = wardrobe.ok("--json", "status").json
    assert status["base"]["name"] == "tiny"
    assert status["base"]["fingerprint"].startswith("sha256:")
    assert (status["adapters"], status["versions"], status["without_stable"]) == (2, 2, ["raw"])
    assert (status["auth"], status["quarantined"]) == (False, {})
    assert "wardrobe serve" in wardrobe.ok("status").out


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("show", "nothing"), 1, "not_found"),
        (("show", "support@9"), 1, "not_found"),
        (("show", "support@nope"), 1, "not_found"),
        (("history", "nothing"), 1, "not_found"),
        (("promote", "support@9"), 1, "not_found"),
        (("promote", "support"), 2, "invalid_name"),
        (("delete", "support@stable"), 2, "invalid_name"),
        (("rollback", "nothing"), 1, "not_found"),
        (("rollback", "support"), 1, "conflict"),
        (("alias", "set", "support", "canary", "1"), 2, "invalid_name"),
        (("alias", "set", "support", "123", "1"), 2, "invalid_name"),
        (("alias", "set", "support", "../x", "1"), 2, "invalid_name"),
        (("alias", "remove", "support", "night"), 1, "not_found"),
        (("alias", "remove", "support", "canary"), 2, "invalid_name"),
        (("alias", "remove", "support", "../x"), 2, "invalid_name"),
        (("alias", "remove", "nothing", "stable"), 1, "not_found"),
        (("export", "support@9", "nowhere"), 1, "not_found"),
        (("verify", "nothing"), 1, "not_found"),
        (("show", "../../etc"), 2, "invalid_name"),
        (("show", "Support"), 2, "invalid_name"),
        (("show", "a\0b"), 2, "invalid_name"),
        (("show", "\udcff"), 2, "invalid_name"),
        (("show", "x" * 10_000), 2, "invalid_name"),
        (("register", "../x", "nowhere"), 2, "invalid_name"),
    ],
)
def test_refusals_have_the_same_code_and_exit_both_ways(
    wardrobe: Terminal, folder: Callable[[int], Path], arguments: tuple[str, ...], code: int, kind: str
) -> None:
    wardrobe.ok("register", "support", folder(1))
    done = wardrobe("--json", *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert f'"code": "{kind}"' in done.err.splitlines()[-1]


SCRIPT = (
    ("register", "support", "A"), ("register", "support", "B", "--alias", "night"), ("list",),
    ("promote", "support@2"), ("rollback", "support"), ("rollback", "support"), ("show", "support"),
    ("show", "support@2"), ("history", "support"), ("verify",), ("delete", "support@2"),
    ("alias", "set", "support", "night", "1"), ("delete", "support@2"), ("gc",), ("show", "support@2"),
    ("register", "support", "A"), ("register", "support", "A", "--allow-duplicate"), ("status",),
    ("register", "support", "missing-folder"), ("export", "support@1", "a/b/c"),
    ("alias", "remove", "support", "night"), ("alias", "remove", "support", "night"),
)  # fmt: skip


def test_a_whole_session_prints_the_same_both_ways(
    tmp_path: Path, folder: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"A": str(folder(1)), "B": str(folder(2))}
    script = [[names.get(word, word) for word in line] for line in SCRIPT]
    monkeypatch.chdir(tmp_path)
    base = make_base(tmp_path / "tiny")
    for name in ("direct", "served"):
        Registry.init(tmp_path / name, base)
    direct = Terminal(("--root", str(tmp_path / "direct")))
    with admin_server(tmp_path / "served") as url:
        over_http = Terminal(("--url", url))
        for line in script:
            for form in ((), ("--json",)):
                answers = []
                for wardrobe in (direct, over_http):
                    answers.append(_masked(wardrobe(*line, *form)))
                    shutil.rmtree("a", ignore_errors=True)
                assert answers[0] == answers[1], line


def _masked(done: Done) -> tuple[int, str, str]:
    """Leave out what is allowed to differ: the time and the signature."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", done.out)
    text = re.sub(r'"(at|created_at|who)": .*', r'"\1"', text)
    text = re.sub(r"TIME( +\S+)? +(\d| )*(stable|night) +(\d+) +\S+", r"TIME \3 \4", text)
    text = re.sub(r"TIME by \S+", "TIME", text)
    return done.code, re.sub(r" +", " ", text), done.err


def shape(value: Any) -> Any:
    """Return a document with its leaves replaced by their types."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__


def test_the_fields_of_json_output_are_stable(wardrobe: Terminal, folder: Callable[[int], Path]) -> None:
    published = wardrobe.ok("--json", "register", "support", folder(1)).json
    assert list(published) == ["adapter", "version", "digest", "created", "warnings", "left_out", "aliases"]
    version = wardrobe.ok("--json", "show", "support@1").json
    assert list(version) == [
        "adapter", "version", "digest", "created_at", "note", "who", "rank", "target_modules",
        "size_bytes", "aliases", "quarantined", "files", "attestations", "problems", "base_named",
    ]  # fmt: skip
    assert shape(wardrobe.ok("--json", "promote", "support@1").json) == {
        "adapter": "str", "alias": "str", "seq": "int", "version": "int", "digest": "str", "who": "str",
        "why": "str", "at": "float",
    }  # fmt: skip
    assert list(wardrobe.ok("--json", "status").json) == [
        "base", "max_lora_rank", "auth", "adapters", "versions", "without_stable", "quarantined", "replicas",
        "rollouts", "problems", "stable_quarantined", "groups", "ungrouped_keys",
    ]  # fmt: skip
