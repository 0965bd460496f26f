"""`wardrobe groups create, set, show, list, history`: whom keys belong to, and what they may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from registry.cli import output
from registry.cli.limits import given_limits, limit_options, listed
from registry.cli.session import Session, common_options, pass_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.api.group_documents import GroupDocument


@click.group()
@common_options
def groups() -> None:
    """Make, change and show groups of keys.

    A group says which adapters exist for its keys, what they may do and how much they may use. Keys that
    name none are of the group `default`, which may do everything until it is changed.
    """


def _rights(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.option(
                "--adapters",
                metavar="PATTERN,…",
                help="Adapters that exist for its keys: names, * for any text; others do not.",
            ),
            click.option("--base/--no-base", default=None, help="Whether it may ask the base model itself."),
            click.option(
                "--scopes",
                metavar="SCOPE,…",
                help="What its keys may do: infer, tune, feedback, read, admin.",
            ),
            limit_options,
            click.option("--weight", type=float, metavar="W", help="Its part of the engine under load (1)."),
            click.option(
                "--evidence/--no-evidence",
                default=None,
                help="Whether its requests and ratings count in rollouts.",
            ),
            click.option(
                "--may-set-priority/--may-not-set-priority",
                "priority",
                default=None,
                help="Whether its clients may set the field `priority`.",
            ),
        )
    ):
        command = option(command)
    return command


@groups.command()
@click.argument("name")
@_rights
@common_options
@pass_session
def create(session: Session, /, name: str, **options: Any) -> None:
    """Make the group NAME; what no option says, it may do.

    `wardrobe keys create --group NAME` makes keys for it.
    """
    from registry.api import group_operations
    from registry.api.group_documents import NewGroupRequest

    wanted = NewGroupRequest(group=name, **_given(options))
    _print(session, group_operations.create_group(session.client(), wanted))


@groups.command("set")
@click.argument("name")
@_rights
@common_options
@pass_session
def set_(session: Session, /, name: str, **options: Any) -> None:
    """Change the group NAME; what no option says stays as it is, and a limit of none is taken away.

    Servers follow within a second.
    """
    from registry.api import group_operations
    from registry.api.group_documents import GroupRequest

    wanted = GroupRequest(**_given(options))
    _print(session, group_operations.change_group(session.client(), name, wanted))


@groups.command()
@click.argument("name")
@common_options
@pass_session
def show(session: Session, name: str) -> None:
    """Show what the group NAME may do."""
    from registry.api import group_operations

    _print(session, group_operations.show_group(session.client(), name))


@groups.command()
@click.argument("name")
@common_options
@pass_session
def history(session: Session, name: str) -> None:
    """Show who changed what of the group NAME, oldest first."""
    from registry.api import group_operations

    found = group_operations.show_group_history(session.client(), name)
    if session.as_json:
        output.print_json(found.changes)
        return
    rows = [
        (
            str(one.seq),
            output.moment(one.at),
            one.who,
            "; ".join(f"{what}: {value}" for what, value in one.changed.items()) or "nothing",
        )
        for one in found.changes
    ]
    output.print_table(("#", "when", "who", "changed"), rows)


@groups.command("list")
@common_options
@pass_session
def list_(session: Session) -> None:
    """List every group."""
    from registry.api import group_operations

    found = group_operations.list_groups(session.client())
    for name, problem in found.problems.items():
        output.print_warning(f"group {name} cannot be read, and nobody gets in with its keys: {problem}")
    if session.as_json:
        output.print_json(found.groups)
        return
    rows = [
        (
            one.group,
            ", ".join(one.adapters) or "none",
            _yes(one.base),
            " ".join(one.scopes),
            str(one.keys),
            f"{one.weight:g}",
            ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in one.limits.named().items())
            or "none",
        )
        for one in found.groups
    ]
    output.print_table(("group", "adapters", "base", "scopes", "keys#", "weight#", "limits"), rows)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request for the options that were given."""
    fields = {name: options.pop(name) for name in ("base", "weight", "evidence", "priority")}
    for name in ("adapters", "scopes"):
        fields[name] = listed(f"--{name}", options.pop(name))
    return {**fields, "limits": given_limits(options)}


def _print(session: Session, group: GroupDocument) -> None:
    if session.as_json:
        output.print_json(group)
        return
    limits = group.limits.named()
    output.print_facts(
        [
            ("group", group.group),
            ("adapters", ", ".join(group.adapters) or "none"),
            ("base model", _yes(group.base)),
            ("scopes", ", ".join(group.scopes)),
            ("active keys", str(group.keys)),
            ("weight", f"{group.weight:g}"),
            ("counts in rollouts", _yes(group.evidence)),
            ("may set priority", _yes(group.priority)),
            *((name.replace("_", " "), str(value)) for name, value in limits.items()),
            *(() if limits else (("limits", "none"),)),
        ]
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
