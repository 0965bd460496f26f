"""`wardrobe train run|check` and `wardrobe base demo`.

Owns what a person sees of a run, and that stopping it leaves nothing registered. Imports nothing heavy
at its top.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, common_options, pass_session, user_name
from train import environment
from train.base_demo import NAME, make_demo_base
from train.interruption import Interruption
from train.merging.cli import merge
from train.proving.cli import prove

if TYPE_CHECKING:
    from train.run import Finished, Prepared

_FILE = click.Path(path_type=Path)


@click.group()
def train() -> None:
    """Train adapters on the root's base model and register them as versions."""


train.add_command(merge)


@train.command()
@click.argument("config", type=_FILE)
@click.option("--out", type=_FILE, metavar="DIR", help="Leave the adapter in DIR instead of registering it.")
@common_options
@pass_session
def run(session: Session, config: Path, out: Path | None) -> None:
    """Train as CONFIG says and register the result as the adapter's next version.

    CONFIG is YAML, TOML or JSON. Stopping with Ctrl-C or SIGTERM leaves nothing registered.
    """
    from train.config import load_config

    root = session.require_local("train run")
    started = time.monotonic()
    settings = load_config(config)
    if _is_this_command():
        environment.replace_process()
    from registry.store import Registry
    from train.progress import RunProgress
    from train.run import prepare, train_and_publish, train_to_folder

    registry = Registry.open(root)
    with Interruption() as interruption, RunProgress(settings.name, interruption.hold) as progress:
        try:
            prepared = prepare(settings, registry)
            _warn_truncated(prepared)
            if out is None:
                finished = train_and_publish(prepared, registry, progress, who=user_name())
            else:
                finished = train_to_folder(prepared, out, progress)
        except KeyboardInterrupt:
            output.print_notice(f"stopped {progress.position}: nothing was registered")
            raise
    _print_run(session, finished, out, time.monotonic() - started)


@train.command()
@click.argument("config", type=_FILE)
@common_options
@pass_session
def check(session: Session, config: Path) -> None:
    """Check CONFIG, its data and the base as `train run` would, without training.

    Renders every row with the base's chat template, so an answer that would be cut off is found here.
    """
    from registry.store import Registry
    from train.config import load_config
    from train.documents import CheckReport
    from train.run import prepare

    registry = Registry.open(session.require_local("train check"))
    prepared = prepare(load_config(config), registry)
    document = CheckReport.of(prepared)
    if session.as_json:
        output.print_json(document)
        return
    output.print_facts([("adapter", document.adapter), ("base", document.base)])
    output.print_table(
        ("data", "rows#", "tokens#", "learnt#", "longest#", "cut off#"),
        [
            (name, str(f.rows), str(f.tokens), str(f.learnt_tokens), str(f.longest), str(len(f.truncated)))
            for name, f in document.data.items()
        ],
    )


train.add_command(prove)


@click.group()
def base() -> None:
    """Base models."""


@base.command()
@click.argument("folder", type=_FILE, metavar="[DIR]", required=False)
@common_options
@pass_session
def demo(session: Session, folder: Path | None) -> None:
    """Make the packaged SmolLM2-135M-Instruct a normal model folder and print its path.

    DIR defaults to ROOT/base/smollm2-135m-instruct. A folder that is there already is left as it is.
    """
    from train.documents import BaseFolder

    target = (folder or session.require_local("base demo") / "base" / NAME).resolve()
    with output.progress(f"making {target.name}", None):
        made = make_demo_base(target)
    if session.as_json:
        output.print_json(BaseFolder(path=str(target), created=made))
    else:
        output.print_line(str(target))


def _is_this_command() -> bool:
    # Only the command's own process may be replaced, not one that merely calls the command (a test).
    return "train" in sys.argv[1:] and Path(sys.argv[0]).name in {"wardrobe", "main.py", "__main__.py"}


def _warn_truncated(prepared: Prepared) -> None:
    for name, found in prepared.reports.items():
        if found.truncated:
            rows = ", ".join(str(row) for row in found.truncated[:5])
            limit = prepared.config.training.max_length
            output.print_warning(
                f"{name}: {len(found.truncated)} rows are longer than max_length {limit} and lose their end "
                f"(rows {rows}{', …' if len(found.truncated) > 5 else ''})"
            )


def _print_run(session: Session, finished: Finished, out: Path | None, seconds: float) -> None:
    from train.documents import RunReport

    document = RunReport.of(finished, out, seconds)
    for warning in document.warnings:
        output.print_warning(warning)
    if session.as_json:
        output.print_json(document)
        return
    if document.digest is None:
        output.print_line(str(out))
    else:
        known = "" if document.created else "  (the same content was registered already)"
        output.print_line(f"{document.adapter}@{document.version}  {document.digest}{known}")
    held_out = "" if document.eval_loss is None else f", held-out loss {document.eval_loss:.3f}"
    speed = f"{document.train_seconds:.0f} s ({document.tokens_per_second:.0f} tokens/s)"
    losses = f"loss {document.first_loss:.3f} -> {document.last_loss:.3f}{held_out}"
    output.print_notice(f"{document.steps} steps in {speed}, {losses}")
