"""`wardrobe eval import`. Imports nothing heavy at its top."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import Conflict, UsageError
from registry.storage import files

if TYPE_CHECKING:
    from train.evaluation.promptfoo.conversion import ImportedSuite
    from train.evaluation.promptfoo.documents import SuiteImport

_PATH = UserPath()


@click.command("import")
@click.argument("file", type=_PATH)
@click.option(
    "-o", "--out", type=_PATH, metavar="OUT", help="Write the suite there, a new file, its items beside it."
)
@click.option("--judge", metavar="MODEL", help="Served model that judges by rubrics (llm-rubric).")
@local_options
@pass_session
def import_(session: Session, file: Path, out: Path | None, judge: str | None) -> None:
    """Translate a Promptfoo config, which OpenAI exports evals as, into a suite.

    Takes prompts, tests, variables and assertions; names everything that is not taken over, with the way out.
    Without --out it prints the suite.
    """
    from train.evaluation.promptfoo.conversion import import_suite

    if out is not None and not out.parent.is_dir():
        raise UsageError(str(out), f"has no folder {out.parent}", "make the folder first", param="out")
    found = import_suite(file, judge)
    text = _text(found, out)
    if out is not None:
        _write(found, out, text)
    for one in found.untaken:
        output.print_warning(f"{one.place}: {one.what}; {one.remedy}")
    if session.as_json:
        output.print_json(_document(found, out))
    elif out is None:
        click.echo(text, nl=False)
    else:
        output.print_line(str(out))


def _items(out: Path) -> Path:
    return out.with_name(f"{out.stem}.items.jsonl")


def _text(found: ImportedSuite, out: Path | None) -> str:
    import yaml

    items: Any = found.items if out is None else _items(out).name
    notes = [f"# not taken over: {one.place}: {one.what}" for one in found.untaken]
    head = "\n".join(output.shown(line) for line in ["# Imported from Promptfoo.", *notes])
    return f"{head}\n" + yaml.safe_dump({**found.suite, "items": items}, sort_keys=False, allow_unicode=True)


def _write(found: ImportedSuite, out: Path, text: str) -> None:
    for path in (out, _items(out)):
        if path.exists():
            raise Conflict(str(path), "exists", "name a new file", param="out")
    lines = b"".join(json.dumps(item).encode() + b"\n" for item in found.items)
    files.claim(_items(out), lines, mode=0o644)
    files.claim(out, text.encode(), mode=0o644)


def _document(found: ImportedSuite, out: Path | None) -> SuiteImport:
    from train.evaluation.promptfoo.documents import SuiteImport

    return SuiteImport(
        name=found.suite["name"],
        items=len(found.items),
        graders=[one["name"] for one in found.suite["graders"]],
        untaken=list(found.untaken),
        suite=found.suite,
        out=None if out is None else str(out),
    )
