"""What `wardrobe serve` refuses before anything starts, and what `--check` lists."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests.adapters import write_ranked
from registry.entries.keys import KeyStore, keys_folder
from registry.entries.rights import Scope
from registry.errors import Conflict, Denied, NotFound, UsageError
from registry.store import Registry
from serve.engine.sizing.adapters import ExpectedAdapters, registered
from serve.launcher.listener import listen
from serve.planning import plan as planned
from serve.preflight import prepare, settle, survey
from serve.settings import ServeSettings
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base

WARDROBE = str(Path(sys.executable).parent / "wardrobe")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_base(tmp_path / "base")
    Registry.init(tmp_path / "root", tmp_path / "base", name="tiny")
    return tmp_path / "root"


def serve(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WARDROBE, "--root", str(root), "serve", *arguments], capture_output=True, text=True, timeout=240
    )


def plan(root: Path, *arguments: str) -> str:
    command = [WARDROBE, "--root", str(root), "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


def test_a_good_root_is_prepared_with_its_bases_name_and_limits(root: Path) -> None:
    preparation = prepare(ServeSettings(root=root), ())
    assert preparation.registry.base.name == "tiny"
    assert preparation.arguments.owned["served_model_name"] == ["tiny"]
    assert preparation.arguments.owned["max_lora_rank"] == 32


def test_a_missing_root_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="wardrobe init"):
        prepare(ServeSettings(root=tmp_path / "none"), ())


def test_another_base_model_is_refused_and_the_same_one_elsewhere_is_fine(root: Path, tmp_path: Path) -> None:
    make_base(tmp_path / "other", config={"rope_theta": 123.0})
    with pytest.raises(Conflict, match="this root is bound to sha256:"):
        prepare(ServeSettings(root=root, model=tmp_path / "other"), ())
    shutil.move(tmp_path / "base", tmp_path / "moved")
    with pytest.raises(NotFound, match="does not exist"):
        prepare(ServeSettings(root=root), ())
    prepare(ServeSettings(root=root, model=tmp_path / "moved"), ())


def test_other_machines_need_a_key_or_a_plain_word(root: Path) -> None:
    open_to_all = ServeSettings(root=root, host="0.0.0.0")
    with pytest.raises(Denied, match="no key exists"):
        prepare(open_to_all, ())
    prepare(open_to_all.model_copy(update={"insecure_no_auth": True}), ())
    KeyStore(root).create({Scope.INFER}, who="me")
    prepare(open_to_all, ())


def test_the_survey_lists_every_fault_and_not_only_the_first(root: Path, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        settings = ServeSettings(root=root, port=taken.getsockname()[1], model=tmp_path / "none")
        findings = {one.subject: one for one in survey(settings, ("--uds", "x"))}
    assert {name for name in ("base", "options", "port") if not findings[name].ok} == {
        "base",
        "options",
        "port",
    }
    assert findings["root"].ok
    assert findings["vllm"].ok
    assert "device" in findings


def test_an_adapter_that_the_base_was_named_after_by_hand_is_listed(root: Path, tmp_path: Path) -> None:
    Registry.open(root).publish("support", make_adapter(tmp_path / "a"), who="tester")
    settings = ServeSettings(root=root, port=0)
    assert "names" not in {one.subject for one in survey(settings, ())}
    (root / "wardrobe.toml").write_text(f'[base]\nname = "support"\npath = "{tmp_path / "base"}"\n')
    (finding,) = [one for one in survey(settings, ()) if one.subject == "names"]
    assert not finding.ok
    assert "it answers as support@N only; rename the base" in finding.detail


@pytest.mark.slow
def test_check_prints_the_findings_and_its_exit_code_counts(root: Path) -> None:
    with listen("127.0.0.1", 0) as probe:
        port = str(probe.getsockname()[1])
    done = serve(root, "--check", "--port", port, "--json")
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert found["base"]["ok"]
    assert done.returncode == (0 if all(one["ok"] for one in found.values()) else 1)
    wrong = serve(root, "--check", "--", "--frobnicate")
    assert wrong.returncode == 1
    assert "tiny in" in wrong.stdout
    assert "vllm options: unrecognized arguments: --frobnicate" in wrong.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--", "--middleware", "x.Y"),
            2,
            "error: vllm option middleware: cannot be set here; the router is",
        ),
        (("some-model",), 2, "is not an option"),
        (("--host", "0.0.0.0"), 1, "error: --host 0.0.0.0: is reached from other machines and no key exists"),
        (("--config", "/none.toml"), 2, "error: /none.toml: cannot be read"),
    ],
)
def test_a_refusal_is_one_line_with_its_exit_code(
    root: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = serve(root, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_ends_the_command(root: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        done = serve(root, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "is taken by another process" in done.stderr


@pytest.mark.slow
def test_an_option_that_vllm_does_not_know_ends_at_once_with_vllms_words(root: Path) -> None:
    done = serve(root, "--port", "0", "--", "--frobnicate")
    assert done.returncode == 2
    assert (
        "its configuration is wrong: vllm option: error: unrecognized arguments: --frobnicate" in done.stdout
    )
    assert len(list((root / "logs").rglob("engine-*.log"))) == 1


def test_the_launcher_imports_neither_vllm_nor_torch() -> None:
    modules = "serve.cli, serve.preflight, serve.launcher.supervisor"
    code = f"import sys, {modules}; print({{'vllm', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_check_says_which_parsers_the_base_gets(tmp_path: Path) -> None:
    make_base(tmp_path / "base", chat_template="{% if tools %}<tool_call>{% endif %}")
    Registry.init(tmp_path / "root", tmp_path / "base", name="tiny")
    found = {one.subject: one for one in survey(ServeSettings(root=tmp_path / "root"), ())}
    assert found["parsers"].ok
    assert found["parsers"].detail.startswith("tools: hermes, by `<tool_call>` in the chat template")
    wrong = {one.subject: one for one in survey(ServeSettings(root=tmp_path / "root"), ("stray",))}
    assert not wrong["options"].ok
    assert "parsers" not in wrong


def test_the_engines_are_told_that_keys_are_needed_once_one_was_made(root: Path) -> None:
    local = ServeSettings(root=root, replica="r1")
    assert not settle(local, 8000).keys_required
    assert settle(local.model_copy(update={"host": "0.0.0.0"}), 8000).keys_required
    KeyStore(root).create([Scope.INFER], who="tester")
    shutil.rmtree(keys_folder(root))
    assert settle(local, 8000).keys_required


def test_a_server_without_a_name_gets_one_of_host_and_port_and_in_a_container_a_word_of_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeSettings(root=root)
    host = re.escape(socket.gethostname())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    first, second = (settle(settings, 8000).replica for _ in range(2))
    assert re.fullmatch(rf"{host}-8000-[0-9a-f]{{4}}", first)
    assert first != second
    assert settle(settings.model_copy(update={"replica": "me"}), 8000).replica == "me"


def test_check_and_plan_print_the_same_sizes_with_their_memory(root: Path) -> None:
    found = {one.subject: one for one in survey(ServeSettings(root=root), ())}
    assert found["sizes"].ok
    printed = plan(root)
    assert found["sizes"].detail in printed
    for option in ("max_loras", "max_lora_rank", "max_cpu_loras"):
        assert re.search(rf"^{option} +{found[option].detail.split()[0]} ", printed, re.MULTILINE)


def test_plan_answers_for_adapters_to_come_and_starts_nothing(root: Path) -> None:
    asked = ("--adapters", "64", "--rank", "64", "--modules", "v_proj,q_proj", "--json")
    answer = json.loads(plan(root, *asked, "--", "--max-cpu-loras", "200"))
    assert answer["expected"] == {"versions": 64, "rank": 64, "modules": ["q_proj", "v_proj"]}
    assert (answer["max_loras"], answer["max_lora_rank"], answer["max_cpu_loras"]) == (128, 64, 200)
    assert answer["total_bytes"] == answer["slots_bytes"] + answer["adapters_bytes"]
    assert answer["fits"]


def test_plan_says_which_limit_a_larger_rank_needs_first(root: Path) -> None:
    printed = plan(root, "--rank", "64")
    assert "needs [limits] max_lora_rank = 64 (now 32)" in printed
    assert "`register` refuses it until `[limits] max_lora_rank = 64` is in wardrobe.toml" in printed


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--rank", "999"), "--rank: 999 exceeds 512"),
        (("--modules", "q_porj"), "'q_porj' is no module of the base; did you mean q_proj?"),
        (("--modules", ""), "holds an empty name"),
        (("--modules", "q_proj,,v_proj"), "holds an empty name"),
    ],
)
def test_plan_refuses_what_no_adapter_can_have(root: Path, asked: tuple[str, str], words: str) -> None:
    found = CliRunner().invoke(planned, ["--root", str(root), *asked])
    assert isinstance(found.exception, UsageError)
    assert words in str(found.exception)


def test_plan_names_the_options_that_it_did_not_look_at(root: Path) -> None:
    assert "options: nonsense not looked at here" in plan(root, "--", "--nonsense", "3")


def test_what_cannot_be_well_or_wrong_is_information(root: Path) -> None:
    told = {one.subject for one in survey(ServeSettings(root=root), ()) if one.information}
    assert told == {"memory", "beyond"}


def test_a_server_is_sized_for_what_is_registered(root: Path, tmp_path: Path) -> None:
    registry = Registry.open(root)
    folder = write_ranked(tmp_path / "adapter", registry.base, seed=1, rank=4, modules=("q_proj",))
    for number in range(12):
        registry.publish(f"a{number}", folder, who="test", allow_duplicate=True)
    assert registered(registry) == ExpectedAdapters(12, 4, ("q_proj",))
    (root / "adapters" / "a3" / "versions").rename(root / "adapters" / "a3" / "gone")
    assert registered(registry).versions == 11, "one that cannot be read is left out"
    assert "--max-loras 16" in " ".join(prepare(ServeSettings(root=root), ()).arguments.argv)
