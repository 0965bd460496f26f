"""Agreement and consensus of a file's items, as one document. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from train.annotations.agreement import MeasurementLevel, alpha, point
from train.annotations.consensus import ConsensusRule, Decision, decide
from train.annotations.documents import (
    AnnotationsDocument,
    AnnotatorDocument,
    ConfusedDocument,
    DisputedDocument,
)
from train.annotations.reading import AnnotatedItem
from train.evaluation.statistics.paired import wilson

_MOST_CONFUSED = 20


@dataclass(frozen=True, slots=True)
class AnnotationQuestion:
    """How labels are compared and made one; `order` holds every label once."""

    level: MeasurementLevel
    rule: ConsensusRule
    least: int
    order: Sequence[str]


def decisions(items: Sequence[AnnotatedItem], asked: AnnotationQuestion) -> list[Decision]:
    """Return the decision on each item."""
    return [decide(item.labels, asked.rule, asked.least, asked.order) for item in items]


def describe(
    file: str,
    items: Sequence[AnnotatedItem],
    made: Sequence[Decision],
    asked: AnnotationQuestion,
    outputs: Sequence[str | None],
) -> AnnotationsDocument:
    """Return the document; `outputs` are the files of the consensus and of what is disputed."""
    units = [list(item.labels.values()) for item in items]
    whole = alpha(units, asked.order, asked.level)
    labels = Counter(label for unit in units for label in unit)
    consensus = Counter(one.label for one in made if one.label is not None)
    return AnnotationsDocument(
        file=file,
        items=len(items),
        annotations=labels.total(),
        compared=sum(len(unit) > 1 for unit in units),
        level=asked.level.value,
        alpha=whole.value,
        low=whole.low,
        high=whole.high,
        rule=asked.rule.value,
        least=asked.least,
        labels=dict(labels.most_common()),
        consensus=dict(consensus.most_common()),
        decided=consensus.total(),
        annotators=list(_annotators(items, made, asked)),
        confused=_confused(items),
        disputed=[
            DisputedDocument(item=item.id, row=item.row, why=one.why, labels=item.labels)
            for item, one in zip(items, made, strict=True)
            if one.label is None
        ],
        out=outputs[0],
        disputed_out=outputs[1],
    )


def _annotators(
    items: Sequence[AnnotatedItem], made: Sequence[Decision], asked: AnnotationQuestion
) -> Iterator[AnnotatorDocument]:
    for name in dict.fromkeys(name for item in items for name in item.labels):
        theirs = [
            (item.labels[name], one.label)
            for item, one in zip(items, made, strict=True)
            if name in item.labels
        ]
        decided = [(mine, common) for mine, common in theirs if common is not None]
        agreed = sum(mine == common for mine, common in decided)
        low, high = wilson(agreed, len(decided))
        others = [[label for who, label in item.labels.items() if who != name] for item in items]
        yield AnnotatorDocument(
            name=name,
            labels=len(theirs),
            decided=len(decided),
            agreed=agreed,
            share=agreed / len(decided) if decided else None,
            low=low,
            high=high,
            alpha_without=point(others, asked.order, asked.level),
        )


def _confused(items: Sequence[AnnotatedItem]) -> list[ConfusedDocument]:
    pairs: Counter[tuple[str, str]] = Counter()
    for item in items:
        for one, other in combinations(sorted(item.labels.values()), 2):
            if one != other:
                pairs[one, other] += 1
    return [ConfusedDocument(labels=pair, pairs=count) for pair, count in pairs.most_common(_MOST_CONFUSED)]
