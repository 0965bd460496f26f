"""One foreign config file into one of ours: which trainer wrote it, the translation, the check.

Invariant: what comes out is a config that `train run` accepts, as far as the data files exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from registry.errors import UsageError
from train.config import parse_config
from train.importing.detection import NAMES, TRAINER_OF, Form, Trainer, detect, refuse_other
from train.importing.draft import Draft, Note, Taken, Unusable, Weight, shown
from train.importing.places import Folders
from train.importing.reading import read_settings
from train.importing.shared import UNKNOWN
from train.importing.trainers import axolotl, llama_factory, llama_factory_v1, torchtune, trl

_FEW_UNKNOWN = 2
_UNKNOWN_SHARE = 0.25
"""Of a config's keys: the trainers' own examples have up to a tenth (measured on all of them), configs of
others that share some names from a quarter on.
"""

_TRANSLATORS: Mapping[Form, Callable[[Draft], None]] = {
    "axolotl": axolotl.translate,
    "axolotl-sections": axolotl.translate,
    "llama-factory-0": llama_factory.translate,
    "llama-factory-1": llama_factory_v1.translate,
    "trl": trl.translate,
    "alignment-handbook": trl.translate,
    "torchtune": torchtune.translate,
}


@dataclass(frozen=True, slots=True)
class Imported:
    """Our config as a document, whose config it was, what was taken over and what was not."""

    form: Form
    config: dict[str, Any]
    taken: tuple[Taken, ...]
    notes: tuple[Note, ...]

    @property
    def trainer(self) -> str:
        """Return whose config it was, and in which form."""
        return NAMES[self.form]

    @property
    def grave(self) -> tuple[Note, ...]:
        """Return what makes the result another one: what changed first, then what is lost."""
        return self._of(Weight.CHANGED) + self._of(Weight.LOST)

    @property
    def harmless(self) -> tuple[Note, ...]:
        """Return what has no counterpart and changes nothing that is learnt."""
        return self._of(Weight.SAME)

    def text(self) -> str:
        """Return the config as YAML, with what is not carried over as comments at its top."""
        notes = [f"# Imported from {self.trainer}."]
        notes += [f"# {one.weight}: {one.key}: {shown(one.value)}: {one.reason}" for one in self.grave]
        if self.harmless:
            keys = ", ".join(dict.fromkeys(one.key for one in self.harmless))
            notes.append(f"# Without a counterpart, and nothing that is learnt depends on it: {keys}")
        return "\n".join(notes) + "\n" + yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)

    def _of(self, weight: Weight) -> tuple[Note, ...]:
        return tuple(note for note in self.notes if note.weight is weight)


def import_config(
    path: Path,
    trainer: Trainer | None = None,
    *,
    out: Path | None = None,
    method: str | None = None,
    layers: Callable[[], int | None] = lambda: None,
) -> Imported:
    """Translate the file at `path`; `trainer` None finds out who wrote it.

    `out` is the folder that our config will lie in (default: the working directory), from which its paths
    count. `method` says which of TRL's trainers the file is for; `layers` tells how many the root's base has.

    Raises: UsageError: it is not a config that is read, asks for a method that is not here, or has a value
    that ours refuses.
    """
    source = read_settings(path)
    if trainer is None:
        refuse_other(path, source)
    form = detect(path, source, trainer)
    here = Path.cwd()
    folders = Folders(here, path.resolve().parent, (out or here).resolve())
    draft = Draft(path, source, folders, layers=layers, method=method)
    try:
        _TRANSLATORS[form](draft)
    except Unusable as error:
        fact = f"has a value that cannot be imported: {error}"
        raise UsageError(str(path), fact, "correct it in the file") from error
    except (TypeError, AttributeError) as error:
        # A value of another kind than its key ever has (a list for a number) meets code that trusts the kind.
        last = draft.seen[-1] if draft.seen else Taken("it", source, "")
        fact = f"{last.key}: {shown(last.value)} holds a value of a kind that the key does not have"
        raise UsageError(str(path), fact, "correct it in the file", param=last.key) from error
    if trainer is None:
        _check_known(draft, form)
    parse_config(draft.config, f"{path}, imported", folders.out)
    return Imported(form, draft.config, draft.taken, tuple(draft.notes))


def _check_known(draft: Draft, form: Form) -> None:
    """Refuse what shares some names with a trainer's configs and is another's.

    Raises: UsageError.
    """
    unknown = [note.key for note in draft.notes if note.reason.startswith(UNKNOWN)]
    named = {one.key for one in draft.seen} | {one.key for one in draft.notes if one.value != "(not given)"}
    known = {re.split(r"[.\[]", key)[0] for key in named} - set(unknown)
    count = len(unknown) + len(known)
    if len(unknown) <= _FEW_UNKNOWN or len(unknown) < _UNKNOWN_SHARE * count:
        return
    keys = ", ".join(unknown[:6]) + (", …" if len(unknown) > 6 else "")
    fact = f"looks like {NAMES[form]}'s config, but {len(unknown)} of its {count} keys are none of it: {keys}"
    remedy = f"if it is one, say `--from {TRAINER_OF[form]}`; else write a config of ours"
    raise UsageError(str(draft.path), fact, remedy)
