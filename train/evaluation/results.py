"""A finished evaluation: its figures, and the folder that keeps it.

Owns `run.json` (what was asked of whom, and every figure) and `items.jsonl` (one line per item with every
arm's answer and grades). Invariants: the folder appears by one rename and is never written again; reading
it back gives the same figures; `items_sha256` is what an attestation commits to.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, TypeAdapter

from registry.api.documents import Document
from registry.errors import Conflict, UsageError
from registry.settings.file import read_text
from registry.validation.canonical import sha256_hex
from train.evaluation.formats import specs
from train.evaluation.formats.forms import Sampling, SuiteItem, SuiteMessage
from train.evaluation.formats.suites import Suite
from train.evaluation.grading.grades import Grade, ModelAnswer
from train.evaluation.runner import ArmResult
from train.evaluation.statistics.differences import DifferenceDocument, differences
from train.evaluation.statistics.figures import ArmFigure, confusion, figure, slices

FORMAT = "wardrobe.evaluation/1"
_SPECS: TypeAdapter[tuple[specs.Spec, ...]] = TypeAdapter(tuple[specs.Spec, ...])


class EvaluatedArmDocument(Document):
    """One arm: its figures by grader and slice, questions without an answer, tokens and seconds of answers.

    `confusion` is by grader: rows expected, columns found, the last column "no label".
    """

    label: str
    model: str
    digest: str | None
    shots: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    answer_seconds: float
    figures: dict[str, dict[str, ArmFigure]]
    confusion: dict[str, list[list[int]]]


class EvaluationDocument(Document):
    """One evaluation; `via` is `server` or `offline`, `notes` are sacrebleu's signatures and the like.

    `differences` hold the first arm against each other one.
    """

    format: str
    suite: str
    suite_sha256: str
    items: int
    items_sha256: str
    via: str
    created_at: float
    arms: list[EvaluatedArmDocument]
    differences: list[DifferenceDocument]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """A suite, what every arm said about it, and when."""

    suite: Suite
    arms: tuple[ArmResult, ...]
    via: str
    created: float

    @classmethod
    def finished(cls, suite: Suite, arms: Sequence[ArmResult], via: str) -> EvaluationResult:
        """Return the evaluation that ended now."""
        return cls(suite, tuple(arms), via, time.time())

    @property
    def items_sha256(self) -> str:
        """Return the digest of every answer and grade."""
        return sha256_hex(self.lines())

    def arm(self, label: str) -> ArmResult:
        """Return an arm.

        Raises: UsageError: lists those that there are.
        """
        for arm in self.arms:
            if arm.label == label:
                return arm
        known = ", ".join(arm.label for arm in self.arms)
        raise UsageError(f"arm {label}", f"is not in the evaluation of {self.suite.name}", f"arms: {known}")

    def document(self) -> EvaluationDocument:
        """Return every figure of it."""
        return EvaluationDocument(
            format=FORMAT,
            suite=self.suite.name,
            suite_sha256=self.suite.sha256,
            items=len(self.suite.items),
            items_sha256=self.items_sha256,
            via=self.via,
            created_at=self.created,
            arms=[_describe(self.suite, arm) for arm in self.arms],
            differences=list(differences(self.suite, self.arms)),
            notes=_notes(self.suite),
        )

    def lines(self) -> bytes:
        """Return one JSON line per item, with every arm's answer and grades."""
        return b"".join(_line(self, index) for index in range(len(self.suite.items)))


def save(evaluation: EvaluationResult, folder: Path) -> EvaluationDocument:
    """Keep an evaluation in the new folder `folder`.

    Raises: Conflict: it exists.
    """
    if folder.exists():
        raise Conflict(str(folder), "exists already", "choose a folder that does not exist")
    document = evaluation.document()
    suite = evaluation.suite
    kept: dict[str, Any] = {
        **document.model_dump(mode="json"),
        "description": suite.description,
        "api": suite.api,
        "sampling": suite.sampling.model_dump(mode="json"),
        "graders": [spec.model_dump(mode="json", by_alias=True) for spec in suite.graders],
        "slices": list(suite.slices),
    }
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "items.jsonl").write_bytes(evaluation.lines())
    (partial / "run.json").write_text(json.dumps(kept, indent=2), encoding="utf-8")
    partial.rename(folder)
    return document


def load(folder: Path) -> EvaluationResult:
    """Read an evaluation back.

    Raises: UsageError: the folder holds none, or its items are not those that were saved.
    """
    raw = read_text(folder / "items.jsonl")
    try:
        run = json.loads(read_text(folder / "run.json"))
        if run["format"] != FORMAT:
            raise UsageError(str(folder), f"has the format {run['format']}, not {FORMAT}", "evaluate again")
        if sha256_hex(raw.encode()) != run["items_sha256"]:
            raise UsageError(str(folder), "its items.jsonl was changed after the run", "evaluate again")
        rows = [json.loads(line) for line in raw.splitlines()]
        suite = _suite(run, rows)
        arms = tuple(_arm(arm, rows, suite) for arm in run["arms"])
        return EvaluationResult(suite, arms, run["via"], run["created_at"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            str(folder), f"holds no evaluation ({error!r})", "name a folder of `eval run`"
        ) from error


def _describe(suite: Suite, arm: ArmResult) -> EvaluatedArmDocument:
    return EvaluatedArmDocument(
        label=arm.label,
        model=arm.model,
        digest=arm.digest,
        shots=arm.shots,
        errors=arm.errors,
        prompt_tokens=sum(sample.prompt_tokens for sample in arm.samples),
        completion_tokens=sum(sample.completion_tokens for sample in arm.samples),
        answer_seconds=round(sum(sample.seconds for sample in arm.samples), 3),
        figures={name: _figures(suite, name, grades) for name, grades in arm.grades.items()},
        confusion=dict(_confusions(suite, arm)),
    )


def _figures(suite: Suite, name: str, grades: Sequence[Grade]) -> dict[str, ArmFigure]:
    spec = suite.grader(name)
    return {label: figure(spec, [grades[index] for index in indices]) for label, indices in slices(suite)}


def _confusions(suite: Suite, arm: ArmResult) -> Iterator[tuple[str, list[list[int]]]]:
    for spec in suite.graders:
        if isinstance(spec, specs.Accuracy | specs.MacroF1) and spec.label in arm.grades:
            judged = [
                (item.answers[0], grade.found)
                for item, grade in zip(suite.items, arm.grades[spec.label], strict=True)
                if grade.score is not None
            ]
            yield spec.label, confusion(spec, [one[0] for one in judged], [one[1] for one in judged])


def _notes(suite: Suite) -> list[str]:
    notes = []
    for spec in suite.graders:
        if isinstance(spec, specs.Bleu | specs.Chrf):
            from train.evaluation.grading.corpus import signature

            notes.append(f"{spec.label}: {signature(spec.type)}")
        if isinstance(spec, specs.Perplexity):
            notes.append(f"{spec.label}: comparable within one tokenizer and one template only")
    return notes


def _line(evaluation: EvaluationResult, index: int) -> bytes:
    suite = evaluation.suite
    row = {
        "item": suite.items[index].model_dump(mode="json", exclude_defaults=True),
        "question": [message.written for message in suite.questions[index]],
        "arms": {
            arm.label: {
                **asdict(arm.samples[index]),
                "grades": {name: asdict(grades[index]) for name, grades in arm.grades.items()},
            }
            for arm in evaluation.arms
        },
    }
    return (json.dumps(row, ensure_ascii=True) + "\n").encode()


def _suite(run: dict[str, Any], rows: list[dict[str, Any]]) -> Suite:
    return Suite(
        name=run["suite"],
        description=run["description"],
        items=tuple(SuiteItem.model_validate(row["item"]) for row in rows),
        shots=(),
        questions=tuple(tuple(SuiteMessage.model_validate(one) for one in row["question"]) for row in rows),
        shot_questions=(),
        api=run["api"],
        sampling=Sampling.model_validate(run["sampling"]),
        graders=_SPECS.validate_python(run["graders"]),
        slices=tuple(run["slices"]),
        sha256=run["suite_sha256"],
    )


def _arm(arm: dict[str, Any], rows: list[dict[str, Any]], suite: Suite) -> ArmResult:
    said = [row["arms"][arm["label"]] for row in rows]
    names = [spec.label for spec in suite.graders if spec.label in arm["figures"]]
    return ArmResult(
        arm["label"],
        arm["model"],
        arm["digest"],
        arm["shots"],
        tuple(
            ModelAnswer.read({key: value for key, value in one.items() if key != "grades"}) for one in said
        ),
        {name: tuple(_grade(one["grades"][name]) for one in said) for name in names},
    )


def _grade(value: dict[str, JsonValue]) -> Grade:
    read: dict[str, Any] = dict(value)
    return Grade(read["score"], tuple(read["parts"]), read["found"])
