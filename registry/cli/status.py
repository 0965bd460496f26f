"""`wardrobe status`: the whole at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, common_options, pass_session

if TYPE_CHECKING:
    from registry.api.documents import StatusDocument

_NAMED = 20
"""A replica may hold a thousand versions, and nobody reads more than a few."""


@click.command(short_help="Show the base, what needs attention, the servers.")
@common_options
@pass_session
def status(session: Session) -> None:
    """Show the base model, the number of adapters, what needs attention, and the servers."""
    from registry.api import operations

    document = operations.show_status(session.client())
    if session.as_json:
        output.print_json(document)
    else:
        _print(document)


def _print(status: StatusDocument) -> None:
    output.print_facts(
        [
            ("base", f"{status.base.name}  {status.base.fingerprint}"),
            ("max LoRA rank", str(status.max_lora_rank)),
            ("API keys", "required" if status.auth else "not required (none was ever made)"),
            *((("groups", _groups(status)),) if status.groups else ()),
            ("adapters", f"{status.adapters} with {status.versions} versions"),
            ("without stable", output.in_short(status.without_stable, _NAMED) or "none"),
            ("open rollouts", _rollouts(status)),
            ("quarantined", _quarantined(status)),
        ]
    )
    if status.quarantined:
        output.print_table(("quarantined", "because"), sorted(status.quarantined.items()))
    for name, problem in sorted(status.problems.items()):
        output.print_warning(f"{name} cannot be read: {problem}")
    if not status.replicas:
        output.print_line("no server runs on this root: start one with `wardrobe serve`")
        return
    rows = [
        (
            one.replica,
            one.state if one.live else "gone",
            one.url,
            f"{len(one.resident)}/{one.capacity}",
            output.moment(one.started_at),
            output.in_short(one.resident, _NAMED),
        )
        for one in status.replicas
    ]
    output.print_table(("replica", "state", "url", "resident#", "started", "versions"), rows)
    for one in status.replicas:
        for problem in one.problems if one.live else ():
            output.print_warning(f"replica {one.replica}: {problem}")
        for note in one.notes if one.live else ():
            output.print_line(f"replica {one.replica}: {note}")


def _quarantined(status: StatusDocument) -> str:
    if not status.quarantined:
        return "none"
    stable = output.in_short(status.stable_quarantined, _NAMED)
    return f"{len(status.quarantined)}{f', stable among them: {stable}' if stable else ''}"


def _groups(status: StatusDocument) -> str:
    loose = status.ungrouped_keys
    if not loose:
        return f"{status.groups}, and every key belongs to one"
    keys = "1 key is" if loose == 1 else f"{loose} keys are"
    return f"{status.groups}, and {keys} of the group default (`wardrobe groups show default`)"


def _rollouts(status: StatusDocument) -> str:
    found = (f"{one.adapter}@{one.canary} {one.state} at {one.weight / 100:g}%" for one in status.rollouts)
    return ", ".join(found) or "none"
