"""One foreign config file into one of ours: which trainer wrote it, the translation, the check.

Invariant: what comes out is a config that `train run` accepts, as far as the data files exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from registry.errors import UsageError
from train.config import parse_config
from train.evaluation.strict import read_yaml
from train.importing import axolotl, llama_factory
from train.importing.draft import Draft, Left, Unusable

Trainer = Literal["axolotl", "llama-factory"]
_ONLY_LLAMA_FACTORY = frozenset({"stage", "finetuning_type", "model_name_or_path", "cutoff_len", "dataset"})


@dataclass(frozen=True, slots=True)
class Imported:
    """Our config as a document, who wrote the foreign one, and what of it has no counterpart."""

    trainer: Trainer
    config: dict[str, Any]
    left: tuple[Left, ...]

    def text(self) -> str:
        """Return the config as YAML, with what has no counterpart as comments at its top."""
        notes = [f"# Imported from {self.trainer}."]
        notes += [
            f"# {one.key}: {_one_line(one.value)} has no counterpart: {one.reason}" for one in self.left
        ]
        return "\n".join(notes) + "\n" + yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)


def import_config(path: Path, trainer: Trainer | None = None) -> Imported:
    """Translate the file at `path`; `trainer` None finds out who wrote it.

    Raises: UsageError: it is no config of either, asks for a method that is not here, or has a value that
    ours refuses.
    """
    source = read_yaml(path)
    if not isinstance(source, dict) or not source:
        raise UsageError(str(path), "holds no settings", "name a config of Axolotl or LLaMA-Factory")
    if any(not isinstance(key, str) for key in source):
        raise UsageError(str(path), "has a key that is no text", "correct the file")
    found = trainer or ("llama-factory" if _ONLY_LLAMA_FACTORY & set(source) else "axolotl")
    draft = Draft(str(path), dict(source))
    try:
        (axolotl if found == "axolotl" else llama_factory).translate(draft)
    except Unusable as error:
        fact = f"has a value that cannot be imported: {error}"
        raise UsageError(str(path), fact, "correct it in the file") from error
    parse_config(draft.config, f"{path}, imported", path.resolve().parent)
    return Imported(found, draft.config, tuple(draft.left))


def _one_line(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"
