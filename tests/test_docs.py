"""The guides: what they show is run where it can be, else parsed; every link, heading and command is real."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import yaml

from loadtests.runner.loading import load_scenario
from registry.cli.main import wardrobe
from serve.rollout.presets import load_policy
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.served import make_root, publish, serve
from train.config import load_config
from train.evaluation.gating.goal import load_goal

REPOSITORY = Path(__file__).resolve().parent.parent
GUIDES = sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if path.parent.name != "reference")
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
RUN = ("getting-started.md", "register.md", "canary.md")
# A key that tells what a YAML block is, and what reads it.
LOADERS: dict[str, Callable[[Path], object]] = {
    "data": load_config,
    "goal": load_goal,
    "steps": load_policy,
    "arrival": lambda path: load_scenario(str(path)),
}


def blocks(guide: Path, *languages: str) -> list[str]:
    return [body for language, body in BLOCK.findall(guide.read_text()) if language in languages]


def commands() -> Iterator[tuple[str, str]]:
    """Yield every command line of ours in the guides, and where it is."""
    for guide in GUIDES:
        for block in blocks(guide, "bash", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("wardrobe "):
                    yield guide.name, line


def test_the_help_of_a_move_says_when_servers_follow_and_where_to_look() -> None:
    context = click.Context(wardrobe)
    alias = wardrobe.get_command(context, "alias")
    assert isinstance(alias, click.Group)
    for command in (wardrobe.get_command(context, "promote"), alias.get_command(context, "set")):
        assert command is not None
        text = " ".join((command.help or "").split())
        assert "until then the one before answers" in text
        assert "`wardrobe status` says so" in text
        assert "at once" not in f"{text} {command.short_help}"


def test_the_walk_finds_the_guides() -> None:
    names = {path.name for path in GUIDES}
    assert names >= {
        "README.md", "getting-started.md", "concepts.md", "register.md", "canary.md", "train.md",
        "load-test.md", "deploy.md", "operate.md", "clients.md",
    }  # fmt: skip
    assert len(list(commands())) >= 40


@pytest.mark.parametrize("name", RUN)
def test_the_bash_blocks_of_a_guide_run_one_after_the_other(name: str, tmp_path: Path) -> None:
    (guide,) = [path for path in GUIDES if path.name == name]
    scripts = blocks(guide, "bash")
    assert scripts
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BASE": str(make_base(tmp_path / "base")),
        "ADAPTER": str(make_adapter(tmp_path / "first", seed=1)),
        "OTHER_ADAPTER": str(make_adapter(tmp_path / "second", seed=2)),
        "WARDROBE_ROOT": str(tmp_path / "root"),
    }
    done = subprocess.run(
        ["bash", "-euxc", "\n".join(scripts)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("guide", "line"), list(commands()))
def test_every_command_line_is_one_that_the_command_takes(guide: str, line: str) -> None:
    context = click.Context(wardrobe, info_name="wardrobe")
    _, words, _ = wardrobe.make_parser(context).parse_args(shlex.split(line, comments=True)[1:])
    command: click.Command = wardrobe
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{guide}: there is no {name} in {line!r}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    # Folders of the reader's need not exist here; everything else must be right.
    with contextlib.suppress(_Missing):
        try:
            command.make_context(str(command.name), words, parent=context.parent)
        except click.BadParameter as error:
            raise (_Missing(line) if "does not exist" in error.message else error) from error


class _Missing(Exception):
    """A file that a command line names is not here."""


def test_every_configuration_of_the_guides_is_one(tmp_path: Path) -> None:
    kinds = []
    for guide in GUIDES:
        for place, text in enumerate(blocks(guide, "yaml")):
            document = yaml.safe_load(text)
            path = tmp_path / f"{guide.stem}-{place}.yaml"
            path.write_text(text)
            for key, load in LOADERS.items():
                if key in document:
                    kinds.append(key)
                    load(path)
    assert set(kinds) == set(LOADERS)


OFFICIAL = {"openai", "anthropic", "httpx", "json", "os", "pydantic", "time"}


def imports(block: str) -> set[str]:
    """Return the packages that a block of Python imports."""
    nodes = list(ast.walk(ast.parse(block)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in found}


def test_the_examples_of_the_official_clients_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = REPOSITORY / "docs/how-to/clients.md"
    examples = blocks(guide, "python")
    official = [one for one in examples if imports(one) <= OFFICIAL]
    assert (len(examples), len(official)) == (14, 8)
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    with serve(registry, tmp_path) as served:
        monkeypatch.setenv("WARDROBE_URL", str(served.client.base_url))
        monkeypatch.setenv("WARDROBE_KEY", "none")
        for one in official:
            exec(compile(one, guide.name, "exec"), {"__name__": "example"})
        done = subprocess.run(["bash", "-eu"], input="\n".join(blocks(guide, "bash")), text=True, check=False)
        assert done.returncode == 0
        assert served.outcomes() == {"ok": len(served.inner.seen)}
    said = capsys.readouterr().out
    for words in (
        "support@1 one",
        "get_weather",
        "name='Paris'",
        "seen 3",
        "model_not_found",
        "chat.completion",
    ):
        assert words in said


def test_every_link_leads_somewhere_headings_too() -> None:
    broken = [
        f"{page.relative_to(REPOSITORY)} → {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"\s+", " ", page.read_text()))
        if "://" not in target and not _leads(page, target.replace(" ", ""))
    ]
    assert broken == []


def _leads(page: Path, target: str) -> bool:
    name, _, heading = target.partition("#")
    there = page.parent / name if name else page
    if not there.exists():
        return False
    return not heading or heading in {_anchor(text) for text in _headings(there)}


def _headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_reached_from_the_index() -> None:
    index = REPOSITORY / "docs" / "README.md"
    linked = {(index.parent / one).resolve() for one in re.findall(r"\]\(([^)#]+)", index.read_text())}
    assert {page for page in PAGES if page != index} <= linked
