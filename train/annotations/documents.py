"""The JSON documents of `data annotations`: what `--json` prints."""

from __future__ import annotations

from registry.api.documents import Document


class AnnotatorDocument(Document):
    """One annotator: labels given, and on how many of the decided items theirs is the consensus.

    `share` has Wilson's 95 % limits; `alpha_without` is the alpha of all others, None where there is none.
    """

    name: str
    labels: int
    decided: int
    agreed: int
    share: float | None
    low: float
    high: float
    alpha_without: float | None


class DisputedDocument(Document):
    """An item without a consensus: where it stands first, why, and everybody's label."""

    item: str
    row: int
    why: str
    labels: dict[str, str]


class ConfusedDocument(Document):
    """Two labels that annotators gave to one item, and how many pairs of annotators did."""

    labels: tuple[str, str]
    pairs: int


class AnnotationsDocument(Document):
    """Agreement and consensus of one file.

    `alpha` is Krippendorff's, over the `compared` items that have two labels and more, with a 95 % interval
    over items; null where there is nothing to compare. `labels` and `consensus` count by label.
    """

    file: str
    items: int
    annotations: int
    compared: int
    level: str
    alpha: float | None
    low: float | None
    high: float | None
    rule: str
    least: int
    labels: dict[str, int]
    consensus: dict[str, int]
    decided: int
    annotators: list[AnnotatorDocument]
    confused: list[ConfusedDocument]
    disputed: list[DisputedDocument]
    out: str | None
    disputed_out: str | None
