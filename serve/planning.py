"""`wardrobe plan`: how many adapters a server of this root has room for, also for adapters to come."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from serve.engine.sizing.choice import SizePlan


@click.command(short_help="Show how many adapters a server here has room for, and why.")
@click.option("--adapters", type=click.IntRange(min=0), metavar="N", help="As if there were N adapters.")
@click.option("--rank", type=click.IntRange(min=1), metavar="R", help="As if R were the largest rank.")
@click.option("--modules", metavar="M,M…", help="As if they adapted these modules, such as q_proj,v_proj.")
@click.option("--config", type=UserPath(), metavar="FILE", help="Settings (default ROOT/serve.toml).")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM-OPTIONS]")
@local_options
@pass_session
def plan(
    session: Session,
    /,
    vllm_options: tuple[str, ...],
    config: Path | None,
    adapters: int | None,
    rank: int | None,
    modules: str | None,
) -> int:
    """Show how many slots, of which rank, and how many adapters in memory a server of this root would have.

    And why, what memory that takes on this machine, and what happens to adapters beyond it. It starts
    nothing, and takes the settings of `serve`. Exit code 1: it is more memory than adapters may take.
    """
    from registry.store import Registry
    from serve.engine.args import READ, given_options, size_plan
    from serve.engine.sizing.adapters import ExpectedAdapters, registered
    from serve.settings import load_settings

    root = session.require_local("plan").absolute()
    registry = Registry.open(root)
    found = registered(registry)
    expected = ExpectedAdapters(
        found.versions if adapters is None else adapters,
        found.rank if rank is None else _served(rank),
        found.modules if modules is None else _modules(modules, registry.base.modules),
    )
    settings = load_settings({"root": root}, config)
    limits, now = registry.limits, registry.limits.max_lora_rank
    raised = rank is not None and rank > now
    if rank is not None and raised:
        limits = replace(limits, max_lora_rank=rank)
    sizes = size_plan(settings, registry.base, limits, extra=vllm_options, expected=expected)
    sizes = replace(sizes, limit_now=now if raised else None)
    unread = sorted(given_options(settings, vllm_options).keys() - READ)
    _print(sizes, unread, as_json=session.as_json)
    return 0 if sizes.fits else 1


def _served(rank: int) -> int:
    from serve.engine.sizing.costs import VLLM_RANKS, rank_at_least

    if rank_at_least(rank) is None:
        fact = f"{rank} exceeds {VLLM_RANKS[-1]}, the largest rank that vLLM serves"
        raise UsageError("--rank", fact, "give a smaller one", param="rank")
    return rank


def _modules(text: str, known: Collection[str]) -> tuple[str, ...]:
    """Return the modules that `--modules` names; all are believed where the base's are not known."""
    names = sorted({name.rpartition(".")[2] for name in known})
    asked = [name.strip() for name in text.split(",")]
    for name in asked:
        if not name:
            fact, remedy = f"{text!r} holds an empty name", "write them as q_proj,v_proj"
            raise UsageError("--modules", fact, remedy, param="modules")
        if names and name not in names:
            near = get_close_matches(name, names, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
            raise UsageError("--modules", f"{name!r} is no module of the base", remedy, param="modules")
    return tuple(sorted(set(asked)))


def _print(plan: SizePlan, unread: Sequence[str], *, as_json: bool) -> None:
    from serve.engine.sizing.words import beyond, document, lines, summary

    if as_json:
        click.echo(json.dumps({**document(plan), "options_not_read": list(unread)}, indent=2))
        return
    output.print_line(summary(plan))
    rows = [(one.option, str(one.value), one.memory, one.why) for one in lines(plan)]
    output.print_table(("option", "value", "memory", "because"), rows)
    output.print_line(f"memory: {plan.room.source}")
    for text in beyond(plan):
        output.print_line(f"beyond: {text}")
    if unread:
        names = ", ".join(unread)
        output.print_line(f"options: {names} not looked at here; `wardrobe serve --check` asks vLLM")
