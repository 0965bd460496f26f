"""`wardrobe plan`: how many adapters a server of this root has room for, also for adapters to come."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, common_options, pass_session

if TYPE_CHECKING:
    from pathlib import Path

    from serve.engine.sizing.choice import SizePlan


@click.command(short_help="Show how many adapters a server here has room for, and why.")
@click.option("--adapters", type=click.IntRange(min=0), metavar="N", help="As if there were N adapters.")
@click.option("--rank", type=click.IntRange(min=1), metavar="R", help="As if R were the largest rank.")
@click.option("--modules", metavar="M,M…", help="As if they adapted these modules, such as q_proj,v_proj.")
@click.option("--config", type=UserPath(), metavar="FILE", help="Settings (default ROOT/serve.toml).")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM-OPTIONS]")
@common_options
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
    from serve.engine.args import size_plan
    from serve.engine.sizing.adapters import ExpectedAdapters, registered
    from serve.settings import load_settings

    root = session.require_local("plan").absolute()
    registry = Registry.open(root)
    expected = registered(registry)
    expected = ExpectedAdapters(
        expected.versions if adapters is None else adapters,
        expected.rank if rank is None else rank,
        tuple(sorted(modules.split(","))) if modules else expected.modules,
    )
    settings = load_settings({"root": root}, config)
    limits = registry.limits
    if rank is not None and rank > limits.max_lora_rank:
        limits = replace(limits, max_lora_rank=rank)
    found = size_plan(settings, registry.base, limits, extra=vllm_options, expected=expected)
    _print(found, as_json=session.as_json)
    return 0 if found.fits else 1


def _print(plan: SizePlan, *, as_json: bool) -> None:
    from serve.engine.sizing.words import beyond, document, lines, room, summary

    if as_json:
        click.echo(json.dumps(document(plan), indent=2))
        return
    output.print_line(summary(plan))
    rows = [(one.option, str(one.value), one.memory, one.why) for one in lines(plan)]
    output.print_table(("option", "value", "memory", "because"), rows)
    output.print_line(f"memory: {room(plan)}")
    for text in beyond(plan):
        output.print_line(f"beyond: {text}")
