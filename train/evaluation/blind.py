"""Blind comparison by people: two arms' answers without names, and what the raters say read back.

Owns the rating file (JSON Lines: question, answers A and B, an empty `rating`), the key file that says who
is who, and the way back to shares and agreement. Invariants: which arm is A is drawn per item, from the
seed; the rating file names no model; a rating counts only with the key of the same evaluation.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from registry.api.documents import Document
from registry.errors import Conflict, UsageError
from registry.settings.file import read_rows, read_settings
from registry.settings.models import Strict
from train.evaluation.results import EvaluationResult
from train.evaluation.statistics.agreement import cohen_kappa, krippendorff_alpha
from train.evaluation.statistics.paired import wilson

_SEE = "train/evaluation/README.md"


class BlindRating(Strict):
    """One line of a rating file; `rating` is A, B, tie or both_bad, empty where not rated yet."""

    item: str
    question: list[dict[str, str]]
    a: str
    b: str
    rating: Literal["A", "B", "tie", "both_bad", ""] = ""
    comment: str = ""


class BlindKey(Strict):
    """Who is who: for each item the arm shown as A."""

    items_sha256: str
    first: str
    second: str
    a: dict[str, str]


class HumanReport(Document):
    """What raters preferred. Wins and ties by item and rater; `low` and `high` are Wilson limits (95 %)
    of the first arm's share among decided ratings. Kappas are None with one rater, or nothing in common.
    """

    first: str
    second: str
    raters: int
    ratings: int
    wins: dict[str, int]
    share: float | None
    low: float
    high: float
    cohen_kappa: float | None
    krippendorff_alpha: float | None
    preferred_a: float | None


def write_blind(evaluation: EvaluationResult, first: str, second: str, target: Path, *, seed: int) -> int:
    """Write `target` (for raters) and `target` with `.key.json` (keep it away from them); return the items.

    Items to which both arms gave the same answer, or one gave none, are left out.

    Raises: UsageError: no such arm; Conflict: a file is there already.
    """
    one, two = evaluation.arm(first), evaluation.arm(second)
    key_path = target.with_suffix(".key.json")
    for path in (target, key_path):
        if path.exists():
            raise Conflict(str(path), "exists already", "choose another name")
    draw = random.Random(seed)  # noqa: S311  no secret: the key is beside it
    order = list(range(len(evaluation.suite.items)))
    draw.shuffle(order)
    shown: dict[str, str] = {}
    lines = []
    for index in order:
        samples = (one.samples[index], two.samples[index])
        swap = draw.random() < 0.5
        if samples[0].text != samples[1].text and not any(sample.error for sample in samples):
            item = evaluation.suite.items[index]
            shown[item.id] = second if swap else first
            lines.append(_blind_line(evaluation, index, samples[swap].text, samples[not swap].text))
    key = BlindKey(items_sha256=evaluation.items_sha256, first=first, second=second, a=shown)
    target.write_text("".join(lines), encoding="utf-8")
    key_path.write_text(key.model_dump_json(indent=2), encoding="utf-8")
    return len(lines)


def read_ratings(key_path: Path, rated: Sequence[Path]) -> HumanReport:
    """Read what raters filled in, one file each.

    Raises: UsageError: naming file and line: no such item, a rating that is none, an item twice.
    """
    name_it = "name the .key.json file"
    key = read_settings(key_path, see=_SEE, language="JSON", absent=name_it).checked(BlindKey)
    tables = [_ratings(path, key) for path in rated]
    votes = [(item, rating) for table in tables for item, rating in table.items()]
    wins = Counter(_winner(key, item, rating) for item, rating in votes)
    decided = wins[key.first] + wins[key.second]
    low, high = wilson(wins[key.first], decided)
    lettered = Counter(rating for _, rating in votes)
    letters = lettered["A"] + lettered["B"]
    by_arm = [{item: _winner(key, item, rating) for item, rating in table.items()} for table in tables]
    return HumanReport(
        first=key.first,
        second=key.second,
        raters=len(tables),
        ratings=len(votes),
        wins={name: wins[name] for name in (key.first, key.second, "tie", "both_bad")},
        share=wins[key.first] / decided if decided else None,
        low=low,
        high=high,
        cohen_kappa=cohen_kappa(by_arm[0], by_arm[1]) if len(by_arm) == 2 else None,
        krippendorff_alpha=krippendorff_alpha(by_arm),
        preferred_a=lettered["A"] / letters if letters else None,
    )


def _blind_line(evaluation: EvaluationResult, index: int, a: str, b: str) -> str:
    row: dict[str, Any] = {
        "item": evaluation.suite.items[index].id,
        "question": [message.written for message in evaluation.suite.questions[index]],
        "a": a,
        "b": b,
        "rating": "",
        "comment": "",
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _ratings(path: Path, key: BlindKey) -> dict[str, str]:
    found: dict[str, str] = {}
    for subject, row in read_rows(path, BlindRating, see=_SEE):
        if row.item not in key.a:
            raise UsageError(subject, f"rates {row.item!r}, which the key does not know", "use its own key")
        if row.item in found:
            raise UsageError(subject, f"rates {row.item!r} a second time", "one line per item and rater")
        if row.rating:
            found[row.item] = row.rating
    return found


def _winner(key: BlindKey, item: str, rating: str) -> str:
    if rating not in {"A", "B"}:
        return rating
    shown = key.a[item]
    other = key.second if shown == key.first else key.first
    return shown if rating == "A" else other
