"""The two tasks of the examples, from data files of packages: medical coding and legal text.

Diagnoses of one 3-character category, and licences of one family, are one group of the split. The same
packages give the same rows.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.examples.rows import DemoRow, balance, distinct, packaged, split, unlike

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

ICD_PACKAGE = "simple-icd-10-cm"
LICENCE_PACKAGE = "licensedcode-data"

# Chapters of ICD-10-CM that are about body systems or kinds of disease, by their number. Left out: ear
# (too few terms), perinatal and congenital conditions, symptoms, injuries, external causes, and the
# administrative chapters, whose terms name other chapters' organs.
CHAPTERS: Mapping[str, str] = {
    "1": "infection",
    "2": "neoplasm",
    "3": "blood",
    "4": "endocrine",
    "5": "mental",
    "6": "nervous system",
    "7": "eye",
    "9": "circulatory",
    "10": "respiratory",
    "11": "digestive",
    "12": "skin",
    "13": "musculoskeletal",
    "14": "genitourinary",
    "15": "pregnancy",
}

# ScanCode's categories, as a lawyer would first sort a text.
CATEGORIES: Mapping[str, str] = {
    "Permissive": "permissive",
    "Copyleft": "copyleft",
    "Copyleft Limited": "copyleft",
    "Proprietary Free": "proprietary",
    "Commercial": "proprietary",
}
# The beginning says as much about the category as the whole to TF-IDF (README), and trains faster.
EXCERPT_CHARACTERS = 240
_SHORTEST_LICENCE = 80
_VERSION_OR_VARIANT = re.compile(r"[-_.]?\d|-(?:only|plus|or-later|exception)")


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One domain: the adapter's name, what it is asked, and the rows of both sides.

    `train` is balanced and shuffled, so a beginning of it is a fair smaller training set.
    """

    name: str
    title: str
    instruction: str
    labels: tuple[str, ...]
    train: tuple[DemoRow, ...]
    held_out: tuple[DemoRow, ...]

    def messages(self, row: DemoRow) -> list[ChatCompletionMessageParam]:
        """Return the question as the adapter is trained on it and asked it."""
        return [{"role": "system", "content": self.instruction}, {"role": "user", "content": row.text}]

    def helped_messages(self, row: DemoRow) -> list[ChatCompletionMessageParam]:
        """Return the question for a model that has not learnt the labels: they are listed."""
        listed = f"{self.instruction} Answer with one of: {', '.join(self.labels)}."
        return [{"role": "system", "content": listed}, {"role": "user", "content": row.text}]


def medical_task(*, per_label: int = 100, held_out_per_label: int = 20) -> DemoTask:
    """Return the diagnosis → ICD-10 chapter task (`simple-icd-10-cm`; CMS/NCHS, public domain)."""
    train, held_out = split(read_diagnoses(packaged(ICD_PACKAGE, ".xml")), share=0.2)
    return DemoTask(
        name="medical",
        title="diagnosis → ICD-10 chapter",
        instruction="ICD-10 chapter?",
        labels=tuple(sorted(set(CHAPTERS.values()))),
        train=balance(train, per_label),
        held_out=balance(held_out, held_out_per_label),
    )


def legal_task(*, per_label: int = 200, held_out_per_label: int = 70) -> DemoTask:
    """Return the licence text → category task (`licensedcode-data`; nexB, CC-BY-4.0)."""
    train, held_out = split(read_licences(packaged(LICENCE_PACKAGE, ".LICENSE")), share=0.25)
    train = unlike(train, held_out)
    return DemoTask(
        name="legal",
        title="licence text → category",
        instruction="License category?",
        labels=tuple(sorted(set(CATEGORIES.values()))),
        train=balance(train, per_label),
        held_out=balance(held_out, held_out_per_label),
    )


def read_diagnoses(files: Iterable[Path]) -> list[DemoRow]:
    """Return every inclusion term (a human synonym) of the chosen chapters, by 3-character category."""
    (tabular,) = files
    rows = []
    for chapter in ET.parse(tabular).getroot().iter("chapter"):  # noqa: S314  a file of an installed package
        label = CHAPTERS.get(chapter.findtext("name", ""))
        for diagnosis in chapter.iter("diag") if label else ():
            category = diagnosis.findtext("name", "")[:3]
            terms = [note.text or "" for note in diagnosis.findall("inclusionTerm/note")]
            rows += [DemoRow(term.strip(), label or "", category) for term in terms]
    return distinct(rows)


def read_licences(files: Iterable[Path]) -> list[DemoRow]:
    """Return the beginning of every English licence text of the chosen categories, by family."""
    rows = []
    for path in files:
        head, _, body = path.read_text(encoding="utf-8").partition("\n---\n")
        facts = dict(line.split(": ", 1) for line in head.splitlines() if re.match(r"\w+: ", line))
        label = CATEGORIES.get(facts.get("category", ""))
        text = " ".join(body.split())
        if label and len(text) > _SHORTEST_LICENCE and facts.get("language", "en") == "en":
            rows.append(DemoRow(text[:EXCERPT_CHARACTERS], label, family(path.stem)))
    return distinct(rows)


def family(key: str) -> str:
    """Return the licence's family: its key up to the first version or variant (`gpl-2.0-plus` → `gpl`)."""
    return _VERSION_OR_VARIANT.split(key, maxsplit=1)[0]


def write_rows(task: DemoTask, rows: Sequence[DemoRow], path: Path) -> None:
    """Write `rows` as chat JSON Lines, the form that `wardrobe train` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"messages": [*task.messages(row), {"role": "assistant", "content": row.label}]} for row in rows]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
