"""The one console command: finding sub-commands, options on either side, failing, ending."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint, version
from pathlib import Path

import click
import pytest

from registry.cli.main import Commands
from registry.cli.session import Session, common_options, pass_session
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.terminal import Terminal

BIN = Path(sys.executable).parent / "wardrobe"
# Whoever types `wardrobe --help` waits for none of these.
HEAVY = {"fastapi", "httpx", "numpy", "pydantic", "rich", "torch", "transformers", "uvicorn", "vllm"}

wardrobe = Terminal()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    Registry.init(path, make_base(tmp_path / "tiny"))
    return path


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from registry.cli.main import run; run(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, modules = done.stdout.rpartition("\n[")
    assert "register" in text
    assert {name for name in HEAVY if f"'{name}'" in modules} == set()


@pytest.mark.parametrize("group", ["alias", "data", "eval", "keys", "loadtest", "rollout", "train"])
def test_the_help_of_a_group_cuts_no_summary_off(group: str) -> None:
    assert "..." not in wardrobe.ok(group, "--help").out.partition("Commands:")[2]


def test_help_names_every_command_by_section() -> None:
    out = wardrobe.ok("--help").out
    for name in ("init", "register", "list", "show", "history", "verify", "delete", "gc", "export"):
        assert f"\n  {name} " in out.partition("Adapters:")[2].partition("Traffic:")[0]
    for name in ("alias", "promote", "rollback", "serve", "status", "keys", "base", "train"):
        assert f"\n  {name} " in out


def test_version_is_the_distributions() -> None:
    assert wardrobe.ok("--version").out == f"wardrobe {version('wardrobe-llm')}\n"


@pytest.mark.parametrize("before", [True, False])
def test_the_shared_options_stand_before_or_after_the_command(root: Path, before: bool) -> None:
    options = ("--json", "--root", str(root))
    assert wardrobe.ok(*options, "list").json == wardrobe.ok("list", *options).json == []
    arguments = (*options, "keys", "list") if before else ("keys", *options[:1], "list", *options[1:])
    assert wardrobe.ok(*arguments).json == []


def test_the_option_after_the_command_wins_and_the_environment_comes_last(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = str(tmp_path / "nowhere")
    wardrobe.ok("--root", nowhere, "list", "--root", str(root))
    assert wardrobe("--root", str(root), "list", "--root", nowhere).code == 1
    monkeypatch.setenv("WARDROBE_ROOT", nowhere)
    wardrobe.ok("--root", str(root), "list")
    monkeypatch.setenv("WARDROBE_ROOT", str(root))
    wardrobe.ok("list")
    monkeypatch.delenv("WARDROBE_ROOT")
    monkeypatch.chdir(tmp_path)
    root.rename(tmp_path / "wardrobe-data")
    wardrobe.ok("list")


def test_a_folder_that_is_no_root_is_refused_with_the_way_out(tmp_path: Path) -> None:
    done = wardrobe("--root", str(tmp_path), "list", "--json")
    assert done.code == 1
    line, document = done.err.splitlines()
    assert line.startswith(f"error: {tmp_path}: ")
    assert "wardrobe init --base" in line
    assert json.loads(document)["error"] == {
        "message": line.removeprefix("error: "),
        "type": "invalid_request_error",
        "param": "root",
        "code": "not_found",
    }


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("lst",), "did you mean list?"),
        (("regster", "a", "b"), "did you mean register?"),
        (("xyzzy",), "see `wardrobe --help`"),
        (("list", "--jsn"), "--json"),
        (("alias", "sett", "a", "b", "1"), "set"),
        (("register", "support"), "DIR"),
        (("alias", "set", "support", "night", "zero"), "zero"),
        (("alias", "set", "support", "night", "0"), "0"),
        (("keys", "create", "--scope", "root"), "admin"),
        (("keys", "create", "--expires", "soon"), "90d"),
        (("init",), "--base"),
        (("register", "support", "x", "--alias", "a", "--no-stable"), "--no-stable"),
        (("promote", "support"), "NAME@N"),
        (("promote", "support@0"), "not only digits"),
        (("--root", "x", "--url", "http://h", "list"), "--url"),
        (("--url", "ftp://h", "list"), "http://"),
        (("--url", "localhost:8000", "list"), "http://"),
        (("--url", "http://h", "init", "--base", "x"), "--root"),
        (("--url", "http://h", "keys", "list"), "--root"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_would_be_right(arguments: tuple[str, ...], fact: str) -> None:
    for form in ((), ("--json",)):
        done = wardrobe(*form, *arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: ")
        assert fact in done.err.splitlines()[0]
        assert ("Traceback" in done.err, len(done.err.splitlines())) == (False, 1 + len(form))


def test_without_a_command_the_help_is_shown_and_the_exit_is_2() -> None:
    done = wardrobe()
    assert done.code == 2
    assert "register" in done.err


def _entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "wardrobe.commands")


@click.command()
@click.option("--root", type=Path)
@click.option("--json", "as_json", is_flag=True)
def stranger(root: Path | None, as_json: bool) -> None:
    """Know nothing of the session."""
    click.echo(f"{root} {as_json}")


@click.command()
@common_options
@pass_session
def friend(session: Session) -> None:
    """Share the session."""
    click.echo(f"{session.root_path} {session.as_json}")


class Plugged(Commands):
    """A group with plug-ins of its own."""

    points = {  # noqa: RUF012
        "friend": _entry("friend", f"{__name__}:friend"),
        "stranger": _entry("stranger", f"{__name__}:stranger"),
        "missing": _entry("missing", "no.such.module:command"),
        "wrong": _entry("wrong", "json:dumps"),
        "absent": _entry("absent", f"{__name__}:nothing"),
    }


def test_a_broken_plug_in_is_named_and_breaks_no_other() -> None:
    group = Plugged()
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    summaries = {name: command.get_short_help_str(200) for name, command in found.items() if command}
    assert summaries["friend"] == "Share the session."
    assert "No module named 'no'" in summaries["missing"]
    assert "is not a click command" in summaries["wrong"]
    assert "has no attribute 'nothing'" in summaries["absent"]
    for name in ("missing", "wrong", "absent"):
        with pytest.raises(Exception, match="cannot be loaded") as caught:
            group.main([name, "any", "--thing"], standalone_mode=False)
        assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["friend", "stranger"])
def test_options_before_a_plug_in_reach_it_whether_it_knows_the_session_or_not(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from registry.cli.main import wardrobe as main

    main.add_command({"friend": friend, "stranger": stranger}[name])
    try:
        wardrobe_run = Terminal(("--root", "/r", "--json"))
        assert wardrobe_run.ok(name).out == "/r True\n"
        assert wardrobe_run.ok(name, "--root", "/s").out == "/s True\n"
    finally:
        del main.commands[name]


def test_bytes_that_are_no_utf8_are_refused_not_crashed_on(root: Path) -> None:
    command = [os.fsencode(BIN), b"--root", os.fsencode(root), b"show", b"caf\xe9"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: '")
    assert b"Traceback" not in done.stderr


def test_a_note_that_is_no_utf8_is_refused_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    arguments = [b"register", b"support", os.fsencode(make_adapter(tmp_path / "a")), b"--note", b"caf\xe9"]
    command = [os.fsencode(BIN), b"--root", os.fsencode(root), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"no UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr
    assert list((root / "staging").iterdir()) == []
    assert wardrobe.ok("--root", str(root), "--json", "list").json == []


def test_a_note_cannot_colour_the_terminal(root: Path, tmp_path: Path) -> None:
    shell = Terminal(("--root", str(root)))
    shell.ok("register", "support", make_adapter(tmp_path / "a"), "--note", "a\x1b[31mb\nc")
    assert shell.ok("--json", "show", "support@1").json["note"] == "a\x1b[31mb\nc"
    for name in ("support", "support@1"):
        assert "a\\x1b[31mb\\nc" in shell.ok("show", name).out


def test_a_broken_pipe_is_quiet(root: Path) -> None:
    script = f'"{BIN}" --help | true; echo "${{PIPESTATUS[0]}}"'
    bash = shutil.which("bash")
    assert bash is not None
    for _ in range(3):
        done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.strip() in {"0", "1"}  # 0 when all of it fitted before the reader left


def test_interrupting_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, click\n"
        # A runner that was started in the background hands down SIGINT as ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from registry.cli import main\n"
        "@main.wardrobe.command()\n"
        "def sleepy():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "sys.exit(main.run(['sleepy']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read().strip() == "interrupted"


def test_a_file_that_cannot_be_read_is_an_error_not_a_traceback(root: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    done = wardrobe("--root", str(root), "register", "support", folder, "--golden", tmp_path / "no.jsonl")
    assert done.code in {1, 2}
    assert "no.jsonl" in done.err
    done = wardrobe("--root", str(root), "register", "support", tmp_path / "nothing")
    assert done.code == 1
    assert "nothing" in done.err


def test_on_a_terminal_verify_shows_a_bar_and_stdout_stays_clean(root: Path, tmp_path: Path) -> None:
    Terminal(("--root", str(root))).ok("register", "support", make_adapter(tmp_path / "a"))
    ours, theirs = pty.openpty()
    command = [str(BIN), "--root", str(root), "verify", "--json"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000)
    os.close(ours)
    assert b"verify" in shown
    assert json.loads(done.stdout) == [{"name": "support@1", "ok": True, "problem": None}]


@pytest.mark.parametrize("command", [("init",), ("keys", "create"), ("train", "run"), ("data", "check")])
def test_the_help_of_a_command_that_works_on_files_only_offers_no_url(command: tuple[str, ...]) -> None:
    out = wardrobe.ok(*command, "--help").out
    assert "--url" not in out
    assert "--root" in out
