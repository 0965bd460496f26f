"""BLEU and chrF of a corpus, from counts that add up over items. By sacrebleu, imported on first use.

NOTE: the two private methods are those that sacrebleu's own paired bootstrap uses; a test compares the
result with its public `corpus_score`, so an upgrade that changes them is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

from registry.errors import UsageError
from train.evaluation.formats.specs import Bleu, Chrf
from train.evaluation.grading.grades import Grade

Kind = Literal["bleu", "chrf"]


def counts_of(spec: Bleu | Chrf) -> Callable[[str, Sequence[str]], Grade]:
    """Return the function that counts one answer against its expected texts.

    Raises: UsageError: sacrebleu is not installed.
    """
    metric, alone = _metric(spec.type), _sentence_metric(spec.type)

    def count(text: str, expected: Sequence[str]) -> Grade:
        statistics = metric._extract_corpus_statistics([text], [[one] for one in expected])  # noqa: SLF001
        score = alone.sentence_score(text, list(expected)).score / 100
        return Grade(min(1.0, score), tuple(float(value) for value in statistics[0]))

    return count


def corpus_score(kind: Kind, sums: Sequence[float]) -> float:
    """Return the corpus figure, 0 to 1, of counts that were added up."""
    metric = _metric(kind)
    whole = [round(value) for value in sums]
    return float(metric._compute_score_from_stats(whole).score) / 100  # noqa: SLF001


def signature(kind: Kind) -> str:
    """Return sacrebleu's signature (version, tokenisation, smoothing) for the report."""
    metric = _metric(kind)
    if metric.num_refs < 0:
        metric.num_refs = 1
    return str(metric.get_signature())


@cache
def _metric(kind: Kind) -> Any:
    classes = _classes()
    return classes[kind]()


@cache
def _sentence_metric(kind: Kind) -> Any:
    # One sentence has no 4-gram as often as not: sacrebleu wants that said.
    return _classes()["bleu"](effective_order=True) if kind == "bleu" else _classes()["chrf"]()


def _classes() -> dict[str, Any]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise UsageError("BLEU and chrF", "need sacrebleu", "pip install 'wardrobe-llm[eval]'") from error
    return {"bleu": BLEU, "chrf": CHRF}
