"""How alike two texts are, 0 to 1: the metrics of `text_similarity`. Pure.

Words are those of ROUGE (`grading/rouge.py`) for ROUGE and METEOR, runs without white space for GLEU; BLEU is
sacrebleu's of one sentence. `cosine` needs a model for embeddings and is refused. METEOR matches words
exactly: without the stems and synonyms of its paper, which need a dictionary of one language.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from registry.errors import UsageError
from train.evaluation.grading.rouge import common_length, rouge_l, words

MAX_CHARACTERS = 20_000
"""Longest text of `fuzzy_match` and ROUGE-L: they take the product of both lengths in steps."""


def similarity(metric: str, text: str, reference: str) -> float:
    """Return how alike two texts are.

    Raises: UsageError: a metric that is not to be had here, or a text that is too long for it.
    """
    require_metric(metric)
    if metric in _SQUARE and max(len(text), len(reference)) > MAX_CHARACTERS:
        fact = f"takes texts of {MAX_CHARACTERS} characters at most, not {max(len(text), len(reference))}"
        raise UsageError(f"evaluation_metric {metric}", fact, "use bleu or rouge_1")
    return _METRICS[metric](text, reference)


def require_metric(metric: str) -> None:
    """Pass where this metric is to be had here.

    Raises: UsageError.
    """
    if metric not in _METRICS:
        fact, remedy = (
            "needs a model for embeddings, which is not served",
            f"use one of {', '.join(_METRICS)}",
        )
        raise UsageError(f"evaluation_metric {metric}", fact, remedy, param="grader")


def _fuzzy(text: str, reference: str) -> float:
    # As rapidfuzz's `ratio`: what is common in order, of the length of both.
    whole = len(text) + len(reference)
    return 2 * common_length(list(text), list(reference)) / whole if whole else 1.0


def _bleu(text: str, reference: str) -> float:
    from train.evaluation.formats.specs import Bleu
    from train.evaluation.grading.corpus import counts_of

    return counts_of(Bleu(type="bleu"))(text, [reference]).score or 0.0


def _gleu(text: str, reference: str) -> float:
    """Return Google's BLEU (arXiv 1609.08144): the lesser of precision and recall over 1- to 4-grams."""
    mine, theirs = text.split(), reference.split()
    found = wanted = common = 0
    for size in range(1, 5):
        ours, of_reference = _grams(mine, size), _grams(theirs, size)
        found, wanted = found + ours.total(), wanted + of_reference.total()
        common += (ours & of_reference).total()
    return common / max(found, wanted) if max(found, wanted) else 1.0


def _rouge(size: int, text: str, reference: str) -> float:
    ours, theirs = _grams(words(text), size), _grams(words(reference), size)
    common = (ours & theirs).total()
    if not common:
        return 0.0
    precision, recall = common / ours.total(), common / theirs.total()
    return 2 * precision * recall / (precision + recall)


def _meteor(text: str, reference: str) -> float:
    """Return METEOR (Banerjee and Lavie 2005; alpha 0.9, beta 3, gamma 0.5) with exact matches alone."""
    mine, theirs = words(text), words(reference)
    matched = _matched(mine, theirs)
    if not matched:
        return 0.0
    precision, recall = len(matched) / len(mine), len(matched) / len(theirs)
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    pairs = itertools.pairwise(matched)
    chunks = 1 + sum(after != (before[0] + 1, before[1] + 1) for before, after in pairs)
    return mean * (1 - 0.5 * (chunks / len(matched)) ** 3)


def _matched(mine: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of equal words, each once; behind the last match first, so that chunks are long."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(theirs):
        places.setdefault(word, []).append(place)
    found: list[tuple[int, int]] = []
    for place, word in enumerate(mine):
        free = places.get(word)
        if free:
            wanted = found[-1][1] + 1 if found else 0
            chosen = wanted if wanted in free else free[0]
            free.remove(chosen)
            found.append((place, chosen))
    return found


def _grams(tokens: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1))


_METRICS: Mapping[str, Callable[[str, str], float]] = {
    "fuzzy_match": _fuzzy,
    "bleu": _bleu,
    "gleu": _gleu,
    "meteor": _meteor,
    **{f"rouge_{size}": partial(_rouge, size) for size in range(1, 6)},
    "rouge_l": lambda text, reference: rouge_l(text, [reference]),
}
_SQUARE = frozenset({"fuzzy_match", "rouge_l"})
