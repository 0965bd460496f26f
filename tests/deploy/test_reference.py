"""The reference is what its generator writes now, and tells of everything there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from deploy.observability.catalogue import TRAINING, server_families
from deploy.reference import errors
from deploy.reference.commands import SHARED
from deploy.reference.pages import FOLDER, PAGES, write_pages
from registry.cli.main import wardrobe
from serve.protocol import forwarded
from serve.protocol.paths import ENDPOINTS
from serve.settings import ServeSettings

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_what_the_generator_writes(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "run make reference"


def test_the_folder_holds_the_generated_pages_and_no_other() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


def test_every_command_that_help_lists_has_its_section() -> None:
    listed = CliRunner().invoke(wardrobe, ["--help"]).output
    names = set(re.findall(r"^  ([a-z]+) ", listed.partition("Adapters:")[2], re.MULTILINE))
    assert len(names) >= 18
    text = (FOLDER / "cli.md").read_text()
    assert {name for name in names if f"## `wardrobe {name}" not in text} == set()


def _leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from _leaves(command, (*path, name))
        else:
            yield (*path, name)


def test_no_command_is_cut_a_section_has_the_words_and_the_options_of_its_help() -> None:
    text = (FOLDER / "cli.md").read_text()
    leaves = list(_leaves(wardrobe))
    assert ("rollout", "simulate") in leaves
    for leaf in leaves:
        section = text.partition(f"## `wardrobe {' '.join(leaf)}`\n")[2].partition("\n## ")[0]
        told = CliRunner().invoke(wardrobe, [*leaf, "--help"]).output
        options = set(re.findall(r"^ +(--[a-z-]+)", told, re.MULTILINE)) - SHARED
        assert {option for option in options if f"`{option}" not in section} == set(), leaf
        words = re.sub(r"```text.*?```|^\|.*$|^## .*$", "", section, flags=re.DOTALL | re.MULTILINE)
        assert len(words.split()) >= 3, leaf


def test_every_option_of_a_command_is_in_its_section() -> None:
    text = (FOLDER / "cli.md").read_text().partition("## `wardrobe serve`")[2].partition("\n## ")[0]
    for option in ("--model DIR", "--port P", "--config FILE", "--insecure-no-auth", "--check"):
        assert f"`{option}`" in text
    assert "--root" not in text


def test_every_path_of_the_allow_list_and_of_the_admin_api_is_told() -> None:
    text = (FOLDER / "http.md").read_text()
    assert [path for path in ENDPOINTS if f"`{path.decode()}`" not in text] == []
    assert "### `POST /admin/v1/rollouts/{name}/abort`" in text
    assert "### `POST /admin/v1/alertmanager`" in text
    assert text.count("### `") >= 20


def test_every_error_has_its_status_and_code() -> None:
    text = (FOLDER / "http.md").read_text().partition("## Errors")[2]
    for status, code in ((404, "model_not_found"), (401, "invalid_api_key"), (504, "timeout")):
        assert f"| {status} | `{code}` |" in text


def test_every_code_in_the_source_is_in_the_table_of_errors() -> None:
    found = {code for path in sources() for code in codes(path)}
    assert len(found) >= 30
    found |= {code for _, code in forwarded._KINDS.values()}
    listed = {name.strip("`") for _, name, *_ in errors.rows()}
    assert found - listed == set()


def test_every_error_in_the_table_says_what_it_is() -> None:
    table = errors.rows()
    assert [name for _, name, _, _, words in table if not words] == []
    assert len({name for _, name, *_ in table}) == len(table)


def sources() -> list[Path]:
    return [
        path for package in ("registry", "serve", "train") for path in (REPOSITORY / package).rglob("*.py")
    ]


def codes(path: Path) -> Iterator[str]:
    """Yield each code of an error that a module writes: a class's, an instance's, or of `Forwarded`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign):
            names = {getattr(target, "id", getattr(target, "attr", "")) for target in node.targets}
            if "code" in names and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                yield node.value.value
        if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
            yield str(node.value.value)
    if path.parent.name == "launcher":
        for state in re.findall(r'"(starting|restarting|draining)"', path.read_text()):
            yield f"engine_{state}"


def test_every_setting_of_the_server_has_a_meaning() -> None:
    text = (FOLDER / "settings.md").read_text().partition("## Root")[0]
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| (.*) \|$", text, re.MULTILINE)
    assert {name.partition(".")[0] for name, _ in rows} == set(ServeSettings.model_fields)
    assert [name for name, meaning in rows if not meaning] == []


def test_every_metric_is_told_with_its_labels() -> None:
    text = (FOLDER / "metrics.md").read_text()
    for one in (*server_families(), *TRAINING):
        assert f"| `{one.name}` | {one.kind} | {' '.join(f'`{label}`' for label in one.labels)} |" in text


def test_writing_twice_changes_nothing_and_an_edit_is_undone(tmp_path: Path) -> None:
    assert set(write_pages(tmp_path)) == set(PAGES)
    assert write_pages(tmp_path) == []
    (tmp_path / "cli.md").write_text("by hand")
    assert write_pages(tmp_path) == ["cli.md"]
