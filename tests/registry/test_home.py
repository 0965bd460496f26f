"""`~` is the home folder in every path of every command, in files of settings and in the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from registry.cli.main import wardrobe as group
from registry.cli.session import Session, UserPath
from registry.errors import UsageError
from registry.home import at_home
from registry.records import BaseModelInfo, Limits
from registry.store import Registry
from serve.engine.args import engine_arguments
from serve.settings import ServeSettings, load_settings
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.terminal import Terminal
from train.config import parse_config
from train.evaluation.formats.library import find_suite
from train.sweep.settings import SweepSettings

wardrobe = Terminal()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, and a working directory beside it."""
    folder = tmp_path / "home"
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def test_a_leading_tilde_is_the_home_folder_and_no_other_one_is(home: Path) -> None:
    assert at_home("~") == home
    assert at_home("~/x") == at_home(Path("~/x")) == home / "x"
    assert at_home("~root/x") == Path("/root") / "x"  # the one user that every system has
    for plain in ("x", "a~/x", "/a/~/b"):
        assert at_home(plain) == Path(plain)
    for called in ("./~", "./~/x"):
        assert at_home(at_home(called)) == Path.cwd() / called


@pytest.mark.parametrize("path", ["~no-such-user-here", "~no-such-user-here/x"])
def test_a_user_that_does_not_exist_is_told_instead_of_a_folder_made(path: str) -> None:
    with pytest.raises(UsageError, match="~no-such-user-here is nobody's home") as caught:
        at_home(path)
    assert f"./{path}" in caught.value.remedy
    assert wardrobe("--root", path, "list").code == 2


def commands(command: click.Command, context: click.Context) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, context)


def test_every_path_of_every_command_is_of_the_one_type() -> None:
    paths = [
        (command.name, parameter.name, parameter.type)
        for command in commands(group, click.Context(group))
        for parameter in command.params
        if isinstance(parameter.type, click.Path | click.File)
    ]
    assert len(paths) > 80
    assert [found for found in paths if not isinstance(found[2], UserPath)] == []


@pytest.mark.parametrize("root", [("--root=~/store",), ("--root", "~/store")])
def test_init_register_and_export_take_a_tilde_that_the_shell_left(home: Path, root: tuple[str, ...]) -> None:
    make_base(home / "models" / "tiny")
    make_adapter(home / "adapters" / "a")
    (home / "golden.jsonl").write_text('{"prompt": "hello"}\n')
    wardrobe.ok(*root, "init", "--base=~/models/tiny")
    wardrobe.ok(*root, "register", "support", "~/adapters/a", "--golden=~/golden.jsonl")
    wardrobe.ok(*root, "export", "support@1", "~/out")
    assert Registry.open(home / "store").adapters() == ["support"]
    assert (home / "out" / "adapter_config.json").is_file()
    assert list(Path().iterdir()) == []


def test_the_environment_and_wardrobe_toml_may_hold_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry.init(home / "store", make_base(home / "tiny"))
    monkeypatch.setenv("WARDROBE_ROOT", "~/store")
    assert Session().root_path == home / "store"
    wardrobe.ok("list")
    settings = home / "store" / "wardrobe.toml"
    settings.write_text('[base]\nname = "tiny"\npath = "~/tiny"\n')
    assert Registry.open(home / "store").base.path == home / "tiny"


def test_the_servers_settings_may_hold_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "store").mkdir()
    (home / "store" / "serve.toml").write_text('model = "~/tiny"\nlog_file = "~/router.log"\n')
    found = load_settings({"root": "~/store"})
    assert (found.root, found.model, found.log_file) == (home / "store", home / "tiny", home / "router.log")
    monkeypatch.setenv("WARDROBE_ROOT", "~/store")
    monkeypatch.setenv("WARDROBE_MODEL", "~/other")
    found = load_settings({})
    assert (found.root, found.model) == (home / "store", home / "other")


def test_vllms_own_options_may_hold_one(home: Path) -> None:
    base = BaseModelInfo("tiny", home / "tiny", "sha256:0", None, {})
    settings = ServeSettings(vllm={"chat_template": "~/a.jinja", "allowed_media_domains": ["~"]})
    extra = ("--download-dir=~/cache", "--tokenizer-mode", "auto", "--hf-config-path", "~/config")
    argv = engine_arguments(settings, base, Limits(), extra=extra).argv
    assert str(home / "a.jinja") in argv
    assert f"--download-dir={home / 'cache'}" in argv
    assert str(home / "config") in argv
    assert "~" in argv


def test_training_configs_sweeps_and_suites_may_hold_one(home: Path) -> None:
    value = {
        "name": "support",
        "data": {"train": "~/train.jsonl", "eval": "~/eval.jsonl", "replay": {"path": "~/old.jsonl"}},
        "method": {"type": "grpo", "reward": {"model": "~/judge"}},
    }
    config = parse_config(value, "test", Path("/configs"))
    assert {label: place.path for label, place in config.data.files.items()} == {
        "train": home / "train.jsonl",
        "eval": home / "eval.jsonl",
        "replay": home / "old.jsonl",
    }
    assert config.method.reward.model == home / "judge"  # type: ignore[union-attr]
    sweep = {"config": "~/run.yaml", "space": {"lora.rank": [4, 8]}, "steps": 4, "budget_steps": 8}
    assert SweepSettings.model_validate(sweep).config == home / "run.yaml"
    (home / "suite.yaml").write_text("name: mine\nitems: ~/items.jsonl\ngraders: [{type: exact}]\n")
    (home / "items.jsonl").write_text('{"prompt": "a", "expected": "b"}\n')
    assert len(find_suite("~/suite.yaml").items) == 1
