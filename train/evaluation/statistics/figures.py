"""Figures of one arm: from grades to a number with its interval, over all items and per slice.

Owns how items become a figure: every figure is a function of sums over items (`parts`), so means, macro-F1,
BLEU, chrF and perplexity are resampled alike. Invariant: items that were not judged are in no sum, and
`items` says how many were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from train.evaluation.formats import specs
from train.evaluation.formats.suites import Suite
from train.evaluation.grading.grades import Grade
from train.evaluation.statistics.paired import Floats, resampled, wilson

ALL = "all"
_CORPUS = ("macro_f1", "bleu", "chrf", "perplexity")


@dataclass(frozen=True, slots=True)
class ArmFigure:
    """A figure with its 95 % interval; `value` is None where no item was judged.

    `method` names the interval: `wilson` for right or wrong, `bootstrap` for the rest.
    """

    value: float | None
    low: float
    high: float
    items: int
    method: str


def figure(spec: specs.Spec, grades: Sequence[Grade], seed: int = 0) -> ArmFigure:
    """Return the figure of the grades that were given."""
    judged = [grade for grade in grades if grade.score is not None]
    if not judged:
        return ArmFigure(None, 0.0, 0.0, 0, "none")
    if is_binary(spec, judged):
        right = sum(grade.score or 0.0 for grade in judged)
        low, high = wilson(right, len(judged))
        return ArmFigure(right / len(judged), low, high, len(judged), "wilson")
    sums = parts(spec, judged)
    of = figure_of(spec)
    low, high = np.quantile(resampled(of, sums, seed), [0.025, 0.975])
    value = float(of(sums.sum(0)[None])[0])
    return ArmFigure(value, float(min(low, value)), float(max(high, value)), len(judged), "bootstrap")


def is_binary(spec: specs.Spec, judged: Sequence[Grade]) -> bool:
    """Tell whether every item is right or wrong, and the figure their share."""
    return spec.type not in _CORPUS and all(grade.score in {0.0, 1.0} for grade in judged)


def is_mean(spec: specs.Spec) -> bool:
    """Tell whether the figure is the mean of the items' scores."""
    return spec.type not in _CORPUS


def parts(spec: specs.Spec, judged: Sequence[Grade]) -> Floats:
    """Return the sums' summands, (items, parts), of grades that have a score."""
    if isinstance(spec, specs.MacroF1):
        return _label_parts(judged, len(spec.labels))
    if is_mean(spec):
        return np.array([[grade.score, 1.0] for grade in judged], dtype=np.float64)
    return np.array([grade.parts for grade in judged], dtype=np.float64)


def figure_of(spec: specs.Spec) -> Callable[[Floats], Floats]:
    """Return the function from sums (rows, parts) to figures (rows,)."""
    if isinstance(spec, specs.MacroF1):
        return _macro_f1
    if isinstance(spec, specs.Perplexity):
        return lambda sums: np.exp(np.minimum(-sums[:, 0] / np.maximum(sums[:, 1], 1.0), 700.0))
    if isinstance(spec, specs.Bleu | specs.Chrf):
        from train.evaluation.grading.corpus import corpus_score

        kind = spec.type
        return lambda sums: np.array([corpus_score(kind, row.tolist()) for row in sums])
    return lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1.0)


def slices(suite: Suite) -> Iterator[tuple[str, list[int]]]:
    """Yield `all` and then each slice (`kind=refusal`) with the indices of its items."""
    yield ALL, list(range(len(suite.items)))
    for tag in suite.slices:
        for value in sorted({item.tags[tag] for item in suite.items if tag in item.tags}):
            yield f"{tag}={value}", [i for i, item in enumerate(suite.items) if item.tags.get(tag) == value]


def confusion(
    spec: specs.Accuracy | specs.MacroF1, expected: Sequence[str], found: Sequence[str]
) -> list[list[int]]:
    """Return counts by expected label (rows) and found label (columns, the last one: no label)."""
    size = len(spec.labels)
    table = [[0] * (size + 1) for _ in range(size)]
    for wanted, said in zip(expected, found, strict=True):
        column = spec.labels.index(said) if said in spec.labels else size
        table[spec.labels.index(wanted)][column] += 1
    return table


def _label_parts(judged: Sequence[Grade], labels: int) -> Floats:
    """Return per item and label: right, expected, found."""
    found = np.zeros((len(judged), labels, 3))
    for row, grade in enumerate(judged):
        expected, said = int(grade.parts[0]), int(grade.parts[1])
        found[row, expected, 1] = 1.0
        if said >= 0:
            found[row, said, 2] = 1.0
            found[row, said, 0] = float(said == expected)
    return found.reshape(len(judged), labels * 3)


def _macro_f1(sums: Floats) -> Floats:
    counts = sums.reshape(len(sums), -1, 3)
    total = counts[:, :, 1] + counts[:, :, 2]
    scores = 2 * counts[:, :, 0] / np.maximum(total, 1.0)
    present = (total > 0).sum(axis=1)
    return np.asarray(scores.sum(axis=1) / np.maximum(present, 1))
