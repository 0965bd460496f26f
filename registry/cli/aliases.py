"""`wardrobe alias set, alias remove, promote, rollback`: which version an alias points to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, common_options, pass_session, user_name
from registry.errors import UsageError
from registry.names import STABLE, parse_version
from registry.records import AliasMove

if TYPE_CHECKING:
    from registry.api.documents import ForgottenNameDocument


@click.group()
@common_options
def alias() -> None:
    """Set and remove aliases."""


_force = click.option(
    "--force",
    is_flag=True,
    help="Move stable although the version misses requirements. Needs --why; recorded.",
)
_why = click.option("--why", default="", metavar="TEXT", help="The reason for --force.")


@alias.command("set")
@click.argument("name")
@click.argument("alias_name", metavar="ALIAS")
@click.argument("number", type=click.IntRange(min=1), metavar="N")
@_force
@_why
@common_options
@pass_session
def set_(session: Session, name: str, alias_name: str, number: int, force: bool, why: str) -> None:
    """Point ALIAS of adapter NAME to version N.

    Each server follows when it has the version loaded and proved; until then the one before answers, under
    its own name. If it cannot be loaded, the one before goes on, and `wardrobe status` says so.

    For `stable` the version must meet the root's requirements (`[publishing] require`).
    """
    from registry.api import documents as doc
    from registry.api import operations

    wanted = doc.MoveRequest(version=number, force=_reason(force, why))
    _print(session, operations.set_alias(session.client(), name, alias_name, wanted))


@alias.command("remove")
@click.argument("name")
@click.argument("alias_name", metavar="ALIAS")
@common_options
@pass_session
def remove(session: Session, name: str, alias_name: str) -> None:
    """Remove ALIAS of adapter NAME, at once; its history stays.

    Requests for NAME@ALIAS are then answered with 404. Without `stable` so are those for NAME, until a
    version is promoted; NAME@N is served as before.
    """
    from registry.api import operations

    _print(session, operations.remove_alias(session.client(), name, alias_name))


@click.command(short_help="Make a version the stable one.")
@click.argument("name", metavar="NAME@N")
@_force
@_why
@common_options
@pass_session
def promote(session: Session, name: str, force: bool, why: str) -> None:
    """Make NAME@N the stable version.

    Each server follows when it has the version loaded and proved; until then the one before answers, under
    its own name. If it cannot be loaded, the one before goes on, and `wardrobe status` says so.

    It must meet the root's requirements (`[publishing] require`), unless --force and --why are given.
    """
    from registry.api import documents as doc
    from registry.api import operations

    adapter, number = parse_version(name)
    wanted = doc.MoveRequest(version=number, force=_reason(force, why))
    _print(session, operations.promote(session.client(), adapter, wanted))


@click.command(short_help="Undo the last forward move of stable.")
@click.argument("name")
@common_options
@pass_session
def rollback(session: Session, name: str) -> None:
    """Undo the last forward move of NAME's stable.

    Twice goes two versions back. Each server follows as after `promote`; the version before stays loaded for
    a while (`residency.keep_previous_seconds`), so that this is at once.
    """
    from registry.api import operations

    _print(session, operations.rollback(session.client(), name))


def _reason(force: bool, why: str) -> str:
    if force and not why.strip():
        raise UsageError("--force", "is recorded with its reason, and none is given", "add --why TEXT")
    if why and not force:
        raise UsageError("--why", "is the reason of --force, which is not given", "add --force")
    return why.strip()


def _print(session: Session, move: AliasMove) -> None:
    if session.as_json:
        output.print_json(move, AliasMove)
        return
    subject = f"{move.adapter}@{move.alias}"
    if move.version is not None:
        output.print_line(f"{subject} -> {move.adapter}@{move.version}  {move.digest}")
        return
    output.print_line(f"{subject} removed")
    if move.alias == STABLE:
        fact = f"requests for it get 404 until a version is promoted: `wardrobe promote {move.adapter}@N`"
        output.print_warning(f"{move.adapter} has no stable version; {fact}")


def forget_name(session: Session, name: str) -> ForgottenNameDocument:
    """Take the name of a tuned model out of use; a server takes `DELETE /v1/models/ft:…`.

    Raises: UsageError: with `--url`; NotFound.
    """
    from registry.api.documents import ForgottenNameDocument
    from registry.storage.reserve import urgently
    from registry.store import Registry

    registry = Registry.open(session.require_local("delete ft:…"))
    tuned = registry.catalogue.tuned
    model = urgently(registry.root, lambda: tuned.remove(name, who=user_name()))
    return ForgottenNameDocument(name=name, version=model.target)
