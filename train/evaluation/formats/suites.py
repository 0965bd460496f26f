"""Suites: what is asked, what is expected, and who judges. YAML with JSON Lines of items.

Owns the file formats and their checks; asks no model. Invariants: ids are unique; every item has what its
graders need; a suite's `sha256` covers everything that decides its figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from registry.errors import UsageError
from registry.home import at_home
from registry.settings.file import read_rows, read_settings, read_text
from registry.validation.canonical import canonical_json, sha256_hex
from train.evaluation.formats.forms import Sampling, SuiteFile, SuiteItem, SuiteMessage, judges
from train.evaluation.formats.specs import Agreement, Python, Spec

_SEE = "train/evaluation/README.md"
OWN = Path(__file__).parent / "suites"
_VARIABLE = re.compile(r"\{\{\s*item\.([A-Za-z0-9_]+)\s*\}\}")
NEEDS_EXPECTED = frozenset(
    {"exact", "includes", "accuracy", "macro_f1", "rouge_l", "bleu", "chrf", "perplexity", "refusal"}
)
"""The graders that hold an answer against the expected ones."""

NEEDS_TOOLS = frozenset({"calls", "arguments"})
"""The graders that look at calls."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite that is ready: every item has an id and, in `questions`, its messages or text.

    `slices` are the tags that are reported apart; `sha256` identifies items, prompts, graders, sampling.
    """

    name: str
    description: str
    items: tuple[SuiteItem, ...]
    shots: tuple[SuiteItem, ...]
    questions: tuple[tuple[SuiteMessage, ...], ...]
    shot_questions: tuple[tuple[SuiteMessage, ...], ...]
    api: Literal["chat", "completions"]
    sampling: Sampling
    graders: tuple[Spec, ...]
    slices: tuple[str, ...]
    sha256: str

    def grader(self, name: str) -> Spec:
        """Return a grader by the name of its figure.

        Raises: UsageError: lists the names that there are.
        """
        for spec in self.graders:
            if spec.label == name:
                return spec
        known = ", ".join(spec.label for spec in self.graders)
        raise UsageError(f"suite {self.name}", f"has no grader {name}", f"its graders: {known}")

    def only(self, wanted: Callable[[SuiteItem], bool]) -> Suite:
        """Return the suite with the items that are wanted, under a digest of its own."""
        chosen = [at for at, item in enumerate(self.items) if wanted(item)]
        if len(chosen) == len(self.items):
            return self
        return replace(
            self,
            items=tuple(self.items[at] for at in chosen),
            questions=tuple(self.questions[at] for at in chosen),
            sha256=sha256_hex(f"{self.sha256} only {chosen}".encode()),
        )

    def limited(self, count: int | None) -> Suite:
        """Return the suite with its first `count` items only, under a digest of its own."""
        if count is None or count >= len(self.items):
            return self
        return replace(
            self,
            items=self.items[:count],
            questions=self.questions[:count],
            sha256=sha256_hex(f"{self.sha256} first {count}".encode()),
        )


def load_suite(path: Path) -> Suite:
    """Read and check the suite at `path`; its item files count from its folder.

    Raises: UsageError: naming file, line and key.
    """
    written = read_settings(path, see=_SEE).checked(SuiteFile)
    folder = path.resolve().parent
    written = written.model_copy(update={"graders": _with_sources(written.graders, folder)})
    items = _items(written.items, folder, str(path))
    shots = _items(written.shots, folder, str(path))
    return build_suite(str(path), written, items, shots)


def build_suite(
    subject: str, written: SuiteFile, items: Iterable[SuiteItem], shots: Iterable[SuiteItem] = ()
) -> Suite:
    """Make a suite of items that were made elsewhere (a guard suite); `subject` is for errors.

    Raises: UsageError.
    """
    numbered = tuple(_with_id(written, item, index) for index, item in enumerate(items, start=1))
    examples = tuple(_with_id(written, item, index) for index, item in enumerate(shots, start=1))
    _check(subject, written, numbered)
    questions = tuple(_question(subject, written, item) for item in numbered)
    return Suite(
        name=written.name,
        description=written.description,
        items=numbered,
        shots=examples,
        questions=questions,
        shot_questions=tuple(_question(subject, written, item) for item in examples),
        api=written.api,
        sampling=written.sampling,
        graders=written.graders,
        slices=written.slices,
        sha256=_digest(written, numbered, examples, questions),
    )


def read_items(path: Path) -> list[SuiteItem]:
    """Read a JSON Lines file of items; empty lines are passed over.

    Raises: UsageError: naming the line.
    """
    return [item for _, item in read_rows(path, SuiteItem, see=_SEE)]


def _items(given: str | tuple[SuiteItem, ...], folder: Path, subject: str) -> list[SuiteItem]:
    items = read_items(folder / at_home(given)) if isinstance(given, str) else list(given)
    if not items and isinstance(given, str):
        raise UsageError(subject, f"its file {given} holds no items", "add items")
    return items


def _with_sources(graders: Iterable[Spec], folder: Path) -> tuple[Spec, ...]:
    return tuple(_with_source(spec, folder) if isinstance(spec, Python) else spec for spec in graders)


def _with_source(spec: Python, folder: Path) -> Python:
    if (spec.source is None) == (spec.file is None):
        raise UsageError(f"grader {spec.label}", "needs `source` or `file`, one of them", "give the code")
    if spec.file is None:
        return spec
    return spec.model_copy(update={"source": read_text(folder / at_home(spec.file)), "file": None})


def _with_id(written: SuiteFile, item: SuiteItem, number: int) -> SuiteItem:
    """Return the item with an id, and with the suite's tools where it has none."""
    found: dict[str, Any] = {} if item.id else {"id": str(number)}
    if written.tools and not item.tools:
        found["tools"] = written.tools
    return item.model_copy(update=found) if found else item


def _check(subject: str, written: SuiteFile, items: tuple[SuiteItem, ...]) -> None:
    if not items:
        raise UsageError(subject, "holds no items", "add items")
    _refuse_twice(subject, "id", [item.id for item in items])
    names = [spec.label for spec in written.graders]
    _refuse_twice(subject, "grader", names)
    for item in items:
        for name in item.graders or ():
            if name not in names:
                fact = f"names no grader of the suite: {name}"
                raise UsageError(f"{subject} item {item.id}", fact, f"its graders: {', '.join(names)}")
        _check_expected(subject, written, item)
    if any(isinstance(spec, Agreement) for spec in written.graders):
        _check_pairs(subject, items)


def _check_expected(subject: str, written: SuiteFile, item: SuiteItem) -> None:
    for spec in written.graders:
        if spec.type in NEEDS_EXPECTED and judges(spec, item) and not item.answers:
            fact = f"has no `expected`, which grader {spec.label} needs"
            raise UsageError(f"{subject} item {item.id}", fact, "add it, or limit the item's `graders`")
        if spec.type in NEEDS_TOOLS and judges(spec, item):
            _check_tools(subject, spec, item)
        labels = getattr(spec, "labels", ())
        if spec.type in {"accuracy", "macro_f1"} and judges(spec, item) and item.answers[0] not in labels:
            fact = f"expects {item.answers[0]!r}, which is none of the labels of {spec.label}"
            raise UsageError(f"{subject} item {item.id}", fact, f"labels: {', '.join(labels)}")


def _check_tools(subject: str, spec: Spec, item: SuiteItem) -> None:
    if not item.tools:
        fact = f"has no `tools`, which grader {spec.label} needs"
        raise UsageError(f"{subject} item {item.id}", fact, "add them, to the item or to the suite")
    if spec.type == "calls" and item.calls is None:
        fact = f"has no `calls`, which grader {spec.label} needs"
        raise UsageError(f"{subject} item {item.id}", fact, "add them; an empty list expects none")


def _check_pairs(subject: str, items: tuple[SuiteItem, ...]) -> None:
    sizes: dict[str, int] = {}
    for item in items:
        if item.pair is not None:
            sizes[item.pair] = sizes.get(item.pair, 0) + 1
    alone = sorted(pair for pair, size in sizes.items() if size < 2)
    if alone or not sizes:
        fact = f"pair {alone[0]} has one item only" if alone else "has an agreement grader and no pairs"
        raise UsageError(subject, fact, "give at least two items the same `pair`")


def _refuse_twice(subject: str, what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(subject, f"gives the {what} {name!r} twice", f"make every {what} unique")
        seen.add(name)


def _question(subject: str, written: SuiteFile, item: SuiteItem) -> tuple[SuiteMessage, ...]:
    if item.messages:
        messages = item.messages
    elif written.template is not None:
        values = {"prompt": item.prompt or "", **item.data}
        messages = (SuiteMessage(role="user", content=_fill(subject, written.template, item, values)),)
    elif item.prompt is not None:
        messages = (SuiteMessage(role="user", content=item.prompt),)
    else:
        raise UsageError(f"{subject} item {item.id}", "asks nothing", "give it `prompt` or `messages`")
    if messages[-1].role not in {"user", "tool"}:
        raise UsageError(
            f"{subject} item {item.id}", "does not end with a user's message", "drop what follows"
        )
    if written.system is not None and messages[0].role != "system":
        return (SuiteMessage(role="system", content=written.system), *messages)
    return messages


def _fill(subject: str, template: str, item: SuiteItem, values: Mapping[str, object]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            fact = f"has no data.{match[1]}, which the template needs"
            raise UsageError(f"{subject} item {item.id}", fact, "add it")
        return str(values[match[1]])

    return _VARIABLE.sub(value, template)


def _digest(
    written: SuiteFile,
    items: tuple[SuiteItem, ...],
    shots: tuple[SuiteItem, ...],
    questions: tuple[tuple[SuiteMessage, ...], ...],
) -> str:
    body: dict[str, Any] = {
        "api": written.api,
        "sampling": written.sampling.model_dump(mode="json"),
        "graders": [spec.model_dump(mode="json", by_alias=True) for spec in written.graders],
        "shots": [item.written for item in shots],
        "items": [
            {**item.written, "question": [message.written for message in question]}
            for item, question in zip(items, questions, strict=True)
        ],
    }
    return sha256_hex(canonical_json(body))
