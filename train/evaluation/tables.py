"""What a person sees of an evaluation or a gate on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry.cli import output
from train.evaluation.gating.trial import GateCheckDocument, GateDocument
from train.evaluation.results import EvaluatedArmDocument, EvaluationDocument
from train.evaluation.statistics.differences import DifferenceDocument
from train.evaluation.statistics.figures import ALL, ArmFigure

WORDS = {"pass": "pass", "fail": "FAIL", "cannot_tell": "cannot tell"}
"""How a verdict is written for people."""


def print_evaluation(document: EvaluationDocument) -> None:
    """Print every figure of every arm, whole and by slice, then what is worth a remark."""
    arms = [arm.label for arm in document.arms]
    output.print_table(("figure", "slice", "items#", *(f"{arm}#" for arm in arms)), _rows(document))
    if document.differences:
        output.print_line("")
        columns = (f"{arms[0]} against", "figure", "slice", "changed#", "gain#", "95 %", "p#")
        output.print_table(columns, [_difference_row(one) for one in document.differences])
    for arm in document.arms:
        for name, table in arm.confusion.items():
            output.print_notice(f"{arm.label}, {name}: {_mistakes(table)}")
        if arm.errors:
            output.print_warning(f"{arm.label}: {arm.errors} questions have no answer")
    for note in document.notes:
        output.print_notice(note)


def print_gate(document: GateDocument) -> None:
    """Print every check of a gate and its verdict."""
    output.print_table(
        ("check", "suite", "slice", "against", "items#", "mine#", "other#", "gain#", "95 %", "verdict"),
        [_check_row(check) for check in document.checks],
    )
    needed = f" ({document.needed:,} more items would probably tell)" if document.needed else ""
    output.print_line(f"{document.candidate}: {WORDS[document.verdict]}{needed}")
    output.print_line(document.sentence)


def shown_figure(figure: ArmFigure | None) -> str:
    """Return a figure with its interval, `-` where there is none."""
    if figure is None or figure.value is None:
        return "-"
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"


def _rows(document: EvaluationDocument) -> Iterator[Sequence[str]]:
    names = dict.fromkeys(name for arm in document.arms for name in arm.figures)
    for name in names:
        slices = next(arm.figures[name] for arm in document.arms if name in arm.figures)
        for label in slices:
            found = [_figure(arm, name, label) for arm in document.arms]
            items = max((one.items for one in found if one is not None), default=0)
            yield (name if label == ALL else "", label, str(items), *(shown_figure(one) for one in found))


def _figure(arm: EvaluatedArmDocument, name: str, label: str) -> ArmFigure | None:
    return arm.figures.get(name, {}).get(label)


def _difference_row(found: DifferenceDocument) -> tuple[str, ...]:
    interval = f"{found.low:+.3f} to {found.high:+.3f}"
    head = (found.against, found.figure, found.slice, f"{found.changed} of {found.items}")
    return (*head, f"{found.gain:+.3f}", interval, f"{found.p_value:.3g}")


def _mistakes(table: list[list[int]]) -> str:
    total = sum(map(sum, table))
    right = sum(row[index] for index, row in enumerate(table))
    nothing = sum(row[-1] for row in table)
    return f"{right} of {total} right, {total - right - nothing} another label, {nothing} no label"


def _check_row(check: GateCheckDocument) -> tuple[str, ...]:
    interval = "-" if check.low is None else f"{check.low:+.3f} to {check.high:+.3f}"
    numbers = ["-" if value is None else f"{value:.3f}" for value in (check.mine, check.other)]
    gain = "-" if check.gain is None else f"{check.gain:+.3f}"
    head = (check.kind, check.suite, check.slice, check.against, str(check.items))
    return (*head, *numbers, gain, interval, WORDS[check.verdict])
