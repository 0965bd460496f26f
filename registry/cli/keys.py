"""`wardrobe keys create, list, revoke`: the API keys of a root."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.limits import given_limits, limit_options
from registry.cli.session import Session, local_options, pass_session, user_name
from registry.errors import UsageError

if TYPE_CHECKING:
    from registry.api.documents import KeyDocument
    from registry.entries.keys import KeyInfo, KeyStore

_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@click.group()
@local_options
def keys() -> None:
    """Make, list and revoke API keys.

    Until the first key is made, the server asks for none and binds to loopback only. From then on every
    request needs a key, even after the last one is revoked.
    """


@keys.command()
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("infer",),
    show_default=True,
    type=click.Choice(("infer", "tune", "feedback", "read", "admin")),
    help="What the key may do, more than one if given again; infer includes feedback, admin everything.",
)
@click.option("--expires", metavar="AGE", help="Lifetime such as 12h, 90d or 52w (default: none).")
@click.option(
    "--group", default="default", show_default=True, metavar="NAME", help="The group that it belongs to."
)
@limit_options
@click.option("--note", default="", metavar="TEXT", help="Note kept with the key, for instance who has it.")
@local_options
@pass_session
def create(
    session: Session,
    /,
    scopes: tuple[str, ...],
    expires: str | None,
    group: str,
    note: str,
    **limits: int | None,
) -> None:
    """Make a key and print its token once; only its hash is stored.

    It may do what both its scopes and its group's allow; limits given here are its own, beside its group's.
    """
    from registry.api.documents import NewKeyDocument
    from registry.entries.rights import Scope, check_limits

    lifetime = None if expires is None else _seconds(expires)
    info, token = _store(session).create(
        [Scope(name) for name in scopes],
        who=user_name(),
        note=note,
        lifetime_seconds=lifetime,
        group=group,
        limits=check_limits(given_limits(limits)),
    )
    if session.as_json:
        output.print_json(NewKeyDocument(**_describe(info).model_dump(), token=token))
        return
    output.print_line(token)
    output.print_notice(f"key {info.id}: this is the only time its token is shown")


@keys.command("list")
@local_options
@pass_session
def list_(session: Session) -> None:
    """List every key ever made; secrets are not stored."""
    found = [_describe(info) for info in _store(session).list()]
    if session.as_json:
        output.print_json(found)
        return
    rows = [
        (
            key.id,
            key.group,
            " ".join(key.scopes),
            key.state,
            output.moment(key.created_at),
            output.moment(key.expires_at),
            key.who,
            key.problem or key.note,
        )
        for key in found
    ]
    output.print_table(("id", "group", "scopes", "state", "created", "expires", "who", "note"), rows)


@keys.command()
@click.argument("key_id", metavar="ID")
@local_options
@pass_session
def revoke(session: Session, key_id: str) -> None:
    """Revoke a key for good; servers refuse it within a second.

    ID may also be the whole token.
    """
    document = _describe(_store(session).revoke(key_id))
    output.print_json(document) if session.as_json else output.print_line(f"{document.id} revoked")


def _store(session: Session) -> KeyStore:
    from registry.entries.keys import KeyStore
    from registry.store import Registry

    # Opening the root first: keys in a folder that is not a root would protect nothing.
    return KeyStore(Registry.open(session.require_local("keys")).root)


def _describe(info: KeyInfo) -> KeyDocument:
    from registry.api.documents import KeyDocument

    return KeyDocument.of(info, time.time())


def _seconds(text: str) -> float:
    match = _LIFETIME.fullmatch(text)
    if match is None:
        fact = f"{text!r} is not a lifetime: a number and one of s m h d w"
        raise UsageError("--expires", fact, "write for instance 90d", param="expires")
    return float(int(match[1]) * _SECONDS[match[2]])
