"""`wardrobe rollout …`: start, watch, steer and explain rollouts, on the root or over HTTP.

Light at the top: numpy and the statistics are imported only by commands that judge. `simulate` is
loaded when it is called.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from registry.cli import output
from registry.cli.session import Session, common_options, pass_session, user_name
from registry.names import check_adapter_name, parse_version

if TYPE_CHECKING:
    from pydantic import BaseModel

    from registry.api.operation import Client, Operation
    from serve.rollout.documents import RolloutStatus, StartRequest

_why = click.option("--why", default="", metavar="TEXT", help="Reason, kept in the rollout's log.")


class LazyCommand(click.Command):
    """Stands in for a command whose module is imported when it is called."""

    def __init__(self, name: str, target: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._target = target

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Import the command and let it parse its own arguments."""
        return self.loaded().make_context(info_name, args, parent, **extra)

    def loaded(self) -> click.Command:
        """Import and return the command itself."""
        module, attribute = self._target.split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(short_help="Move stable to another version by canary, with automatic rollback.")
def rollout() -> None:
    """Move `stable` from one version to another by canary.

    The new version gets a growing share of the traffic while no harm is found. When harm is found, the
    rollout rolls back automatically. The servers decide; these commands start, watch and steer.
    """


@rollout.command(short_help="Begin a rollout of a version.")
@click.argument("name", metavar="NAME@N")
@click.option(
    "--policy", default="default", metavar="FILE|PRESET", help="default, fast, low-traffic, or YAML."
)
@click.option(
    "--force",
    is_flag=True,
    help="Start a version that was rolled back recently, or misses requirements (needs --why). Recorded.",
)
@_why
@click.option("--note", default="", hidden=True)  # the former name of --why
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@common_options
@pass_session
def start(session: Session, name: str, policy: str, force: bool, why: str, note: str, dry_run: bool) -> None:
    """Begin a rollout of NAME@N against NAME's stable version (the base model where there is none).

    A rollout of NAME that is still open ends as superseded. Once a server runs, it loads both versions,
    proves them, and begins to send the canary its share. The version must have what the root requires
    (`[publishing] require`) and what the policy requires (`require: [gate, parity, tokens]`).
    """
    from serve.rollout import operations
    from serve.rollout.display import pages
    from serve.rollout.documents import StartRequest
    from serve.rollout.presets import load_policy

    adapter, number = parse_version(name)
    request = StartRequest(version=number, policy=load_policy(policy), force=force, note=why or note)
    if dry_run:
        plan = operations.plan_rollout(_client(session), adapter, request)
        output.print_json(plan) if session.as_json else pages.print_plan(plan)
        return
    _start(session, adapter, request)


def _start(session: Session, adapter: str, request: StartRequest) -> None:
    from serve.rollout import operations

    started = operations.start_rollout(_client(session), adapter, request)
    for warning in started.warnings:
        output.print_warning(warning)
    if session.as_json:
        output.print_json(started)
        return
    if started.superseded is not None:
        output.print_line(f"{started.superseded}: its rollout was superseded")
    status = started.status
    forced = " (forced)" if status.forced else ""
    output.print_line(f"{status.canary}: rollout {status.rollout} against {status.stable} has begun{forced}")
    output.print_line(f"policy {status.policy}; watch it: wardrobe rollout status {adapter} --watch")


@rollout.command(short_help="Show a rollout: state, arms, verdicts, what is missing.")
@click.argument("name", metavar="NAME")
@click.option("--watch", is_flag=True, help="Follow the rollout until it ends.")
@click.option(
    "--every",
    "seconds",
    default=1.0,
    type=click.FloatRange(min=0.1),
    help="Seconds between updates, with --watch.",
)
@common_options
@pass_session
def status(session: Session, name: str, watch: bool, seconds: float) -> None:
    """Show NAME's last rollout: state, both arms, every verdict, and what it waits for.

    With --watch the display follows until the rollout ends: exit 1 if it was rolled back, 130 on Ctrl-C.
    In a pipe, or with --json, it prints one line per change.
    """
    from serve.rollout import operations
    from serve.rollout.display import pages

    client, adapter = _client(session), check_adapter_name(name)
    if watch:
        from serve.rollout.display.watch import watch as follow

        def look() -> RolloutStatus:
            return operations.show_rollout(client, adapter)

        follow(look, seconds, as_json=session.as_json, sleep=time.sleep)
        return
    found = operations.show_rollout(client, adapter)
    output.print_json(found) if session.as_json else pages.print_status(found)


@rollout.command("list")
@common_options
@pass_session
def list_(session: Session) -> None:
    """List the last rollout of every adapter that had one."""
    from serve.rollout import operations
    from serve.rollout.display import pages

    found = operations.list_rollouts(_client(session))
    output.print_json(found.rollouts) if session.as_json else pages.print_list(found.rollouts)
    for name, problem in sorted(found.problems.items()):
        output.print_warning(f"rollouts of {name} cannot be read: {problem}")


@rollout.command()
@click.argument("name", metavar="NAME")
@_why
@common_options
@pass_session
def pause(session: Session, name: str, why: str) -> None:
    """Freeze the canary's weight; alarms still roll it back."""
    from serve.rollout import operations

    _move(session, operations.pause_rollout, name, why, "paused")


@rollout.command()
@click.argument("name", metavar="NAME")
@_why
@common_options
@pass_session
def resume(session: Session, name: str, why: str) -> None:
    """Resume a paused rollout."""
    from serve.rollout import operations

    _move(session, operations.resume_rollout, name, why, "resumed")


@rollout.command()
@click.argument("name", metavar="NAME")
@_why
@common_options
@pass_session
def promote(session: Session, name: str, why: str) -> None:
    """Promote the canary to stable now, whatever the evidence says."""
    from serve.rollout import operations

    _move(session, operations.promote_rollout, name, why, "promoted")


@rollout.command()
@click.argument("name", metavar="NAME")
@_why
@common_options
@pass_session
def abort(session: Session, name: str, why: str) -> None:
    """Send all traffic to the stable version, at once and for good."""
    from serve.rollout import operations

    _move(session, operations.abort_rollout, name, why, "aborted")


@rollout.command(short_help="Explain every decision of the last rollout.")
@click.argument("name", metavar="NAME")
@common_options
@pass_session
def explain(session: Session, name: str) -> None:
    """Explain every decision of NAME's last rollout: who, when, why, and the numbers."""
    from serve.rollout import operations

    _show(session, operations.explain_rollout(_client(session), name), "print_explanation")


@rollout.command(short_help="Show who moved what, when and why, in all rollouts.")
@click.argument("name", metavar="NAME")
@common_options
@pass_session
def history(session: Session, name: str) -> None:
    """Show every decision of all rollouts of NAME: who moved what, when and why."""
    from serve.rollout import operations

    _show(session, operations.show_rollout_history(_client(session), name), "print_history")


rollout.add_command(
    LazyCommand(
        "simulate",
        "serve.rollout.simulation.cli:simulate",
        "Simulate a policy on synthetic traffic, next to other tools' rules.",
    )
)


def _show(session: Session, document: BaseModel, page: str) -> None:
    from serve.rollout.display import pages

    if session.as_json:
        output.print_json(document)
    else:
        getattr(pages, page)(document)


def _move(session: Session, verb: Operation[..., RolloutStatus], name: str, why: str, done: str) -> None:
    from serve.rollout.documents import WhyRequest

    status = verb(_client(session), name, WhyRequest(why=why))
    if session.as_json:
        output.print_json(status)
        return
    share = f"{status.weight / 100:g}%"
    output.print_line(f"{status.canary}: {done}; {status.state}, {share} of the traffic meets it")


def _client(session: Session) -> Client:
    """Open the root, or the server at --url; where the root is, webhooks are told before the command ends."""
    if session.url is not None:
        return session.http_client()
    from registry.api.operation import LocalClient
    from serve.rollout.webhooks import WebhookNotifier

    notifier = WebhookNotifier()
    click.get_current_context().call_on_close(notifier.close)
    return LocalClient(session.registry(), user_name(), notifier.notify)
