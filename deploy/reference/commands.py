"""The page of commands, from click: what `--help` says, without this distribution's neighbours."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from deploy.reference.tables import code, page, sentence, table
from registry.cli.main import DISTRIBUTION, Commands, wardrobe
from serve.rollout.cli import LazyCommand

SHARED = frozenset({"--root", "--url", "--key", "--json", "--help"})
"""Options that every command takes; they are told once."""

_SHARED_ROWS = (
    ("`--root DIR`", "Root of all state (or `WARDROBE_ROOT`; default `./wardrobe-data`)."),
    ("`--url URL`", "Work over HTTP on a running server, where the command can."),
    ("`--key KEY`", "API key for `--url` (or `WARDROBE_KEY`)."),
    ("`--json`", "Print JSON; with it the last line of an error on stderr is JSON too."),
    ("`-h`, `--help`", "Show the help and exit."),
)

_CODES = """\
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted. Errors are printed on stderr as
`error: subject: fact; remedy`."""


def render() -> str:
    """Return the page."""
    context = click.Context(wardrobe, info_name="wardrobe", terminal_width=100, max_content_width=100)
    every = list(_commands(wardrobe, context))
    links = "\n".join(f"- [`{context.command_path}`](#{_anchor(context)})" for _, context in every)
    shared = "Every command takes these, before or after its name:\n\n" + table(("option", ""), _SHARED_ROWS)
    return page("Commands", shared, _CODES, links, *(_section(*one) for one in every))


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    for name in group.list_commands(context):
        if isinstance(group, Commands) and name in group.points and not _is_own(group, name):
            continue
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, LazyCommand):
            command = command.loaded()
        below = click.Context(
            command, info_name=name, parent=context, terminal_width=100, max_content_width=100
        )
        if isinstance(command, click.Group):
            yield from _commands(command, below)
        else:
            yield command, below


def _is_own(group: Commands, name: str) -> bool:
    found = group.points[name].dist
    return found is not None and found.name == DISTRIBUTION


def _section(command: click.Command, context: click.Context) -> str:
    usage = command.get_usage(context).removeprefix("Usage: ")
    own = [one for one in command.get_params(context) if SHARED.isdisjoint(one.opts)]
    rows = [record for one in own if (record := one.get_help_record(context)) is not None]
    options = table(("option", ""), ((_names(first), sentence(second)) for first, second in rows))
    text = inspect.cleandoc(command.help or "").replace("\b\n", "").replace("\f", "")
    parts = [f"## `{context.command_path}`", f"```text\n{' '.join(usage.split())}\n```", text, options]
    return "\n\n".join(part for part in parts if part)


def _names(text: str) -> str:
    return ", ".join(code(one.strip()) for one in text.split(", ")) if text.startswith("-") else code(text)


def _anchor(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")
