"""`wardrobe eval report|list|blind|agreement`: the commands that ask no model.

Imports nothing heavy at its top.
"""

from __future__ import annotations

from pathlib import Path

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import UsageError

_PATH = UserPath()


@click.command()
@click.argument("folder", type=_PATH)
@click.option(
    "--html", type=_PATH, metavar="FILE", help="Also write the page with the answers side by side to FILE."
)
@local_options
@pass_session
def report(session: Session, folder: Path, html: Path | None) -> None:
    """Show the result of `eval run` or `eval gate` in FOLDER."""
    from registry.report.writing import write_page
    from train.evaluation.gating.trial import load_gate
    from train.evaluation.reports.evaluation import page
    from train.evaluation.reports.gate import gate_page
    from train.evaluation.results import load
    from train.evaluation.tables import print_evaluation, print_gate

    if (found := load_gate(folder)) is not None:
        gate, evaluations = found
        if html is not None:
            write_page(html, gate_page(gate, evaluations))
        output.print_json(gate) if session.as_json else print_gate(gate)
        return
    evaluation = load(folder)
    document = evaluation.document()
    if html is not None:
        write_page(html, page(evaluation, document))
    output.print_json(document) if session.as_json else print_evaluation(document)


@click.command("list")
@local_options
@pass_session
def list_(session: Session) -> None:
    """List the packaged suites and the packages they need."""
    from train.evaluation.formats.library import known_suites

    documents = known_suites()
    if session.as_json:
        output.print_json(documents)
        return
    rows = [
        (one.name, one.source, "-" if one.missing is None else f"pip install {one.missing}", one.description)
        for one in documents
    ]
    output.print_table(("suite", "from", "needs", "what"), rows)


@click.command()
@click.argument("folder", type=_PATH)
@click.option("--arms", nargs=2, metavar="ARM ARM", help="The two arms to compare (default: the first two).")
@click.option(
    "--out", type=_PATH, required=True, metavar="FILE", help="The file for the raters (JSON Lines)."
)
@click.option("--seed", type=int, default=0, show_default=True)
@local_options
@pass_session
def blind(session: Session, folder: Path, arms: tuple[str, str] | None, out: Path, seed: int) -> None:
    """Write two arms' answers without names, for people to rate.

    Raters write A, B, tie or both_bad. OUT's .key.json holds the names. Give each rater their own copy.
    """
    from train.evaluation.blind import write_blind
    from train.evaluation.listing import BlindDocument
    from train.evaluation.results import load

    evaluation = load(folder)
    if arms is None and len(evaluation.arms) < 2:
        raise UsageError(str(folder), "has one arm only", "evaluate with --against")
    first, second = arms or (evaluation.arms[0].label, evaluation.arms[1].label)
    count = write_blind(evaluation, first, second, out, seed=seed)
    document = BlindDocument(file=str(out), key=str(out.with_suffix(".key.json")), items=count)
    output.print_json(document) if session.as_json else output.print_line(f"{out}: {count} items")


@click.command()
@click.argument("names", type=_PATH, metavar="KEY.JSON")
@click.argument("rated", type=_PATH, nargs=-1, required=True)
@local_options
@pass_session
def agreement(session: Session, names: Path, rated: tuple[Path, ...]) -> None:
    """Read the raters' files: which arm won, and how far raters agree."""
    from train.evaluation.blind import read_ratings
    from train.evaluation.listing import human_facts

    document = read_ratings(names, rated)
    output.print_json(document) if session.as_json else output.print_facts(human_facts(document))
