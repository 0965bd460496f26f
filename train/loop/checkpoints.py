"""Checkpoints: everything that a run needs to go on with the same bytes, written in one step.

    <step>/weights.safetensors   what is trained, by parameter name
           optimizer.pt, scheduler.pt, rng_state.pth, trainer_state.json   transformers' own
           run.json              our own measurements so far

Owns their form, the order of their writing and which ones stay. Invariants: a folder whose name is a number
is whole (it got that name by a rename after every file was synced); the torch files are read from here only,
with `weights_only`; weights go by parameter name, so a frozen reference adapter beside the trained one
cannot take its place (transformers' own resume loads the reference alone when there is one).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from registry.errors import CorruptStore, Missing, StorageFailed
from registry.storage import disk, files
from train.model.sharding import put, trainable, whole_weights

WEIGHTS, STATE, RUN = "weights.safetensors", "trainer_state.json", "run.json"


@dataclass(frozen=True, slots=True)
class CheckpointManager:
    """Writes and reads the checkpoints in `folder`; the newest `keep` stay, and the best one."""

    folder: Path
    keep: int

    def attach(self, trainer: Any, facts: Callable[[], Mapping[str, JsonValue]]) -> None:
        """Make `trainer` write and read its checkpoints here; `facts` go into `run.json`."""

        # NOTE: transformers has no public seam for the place and form of a checkpoint; these three methods
        # are where its loop writes and reads one. Held by the resume tests with the real trainer.
        def save(_model: Any, _trial: Any) -> None:
            self._save(trainer, facts())

        def load(folder: str, model: Any = None) -> None:
            load_weights(trainer.model if model is None else model, Path(folder))

        load_random = trainer._load_rng_state  # noqa: SLF001

        def restore_random(folder: str | None) -> None:
            # At the end of an epoch the next one seeds itself (`Course`), as it did in the first run.
            if folder is not None and trainer.state.epoch != int(trainer.state.epoch or 0):
                load_random(folder)

        trainer._save_checkpoint = save  # noqa: SLF001
        trainer._load_from_checkpoint = load  # noqa: SLF001
        trainer._load_rng_state = restore_random  # noqa: SLF001

    def facts(self, step: int) -> dict[str, Any]:
        """Return `run.json` of a checkpoint.

        Raises: CorruptStore.
        """
        path = self.folder / str(step) / RUN
        try:
            found = json.loads(disk.read(path))
        except (Missing, ValueError, RecursionError) as error:
            raise CorruptStore(str(path), "is not a checkpoint's record", "remove the folder") from error
        return dict(found)

    def _save(self, trainer: Any, facts: Mapping[str, JsonValue]) -> None:
        step = int(trainer.state.global_step)
        final = self.folder / str(step)
        if final.exists():
            return
        staged = self.folder / f".{step}.writing"
        first = bool(trainer.args.should_save)
        try:
            if first:
                files.remove_tree(staged)
                files.make_directory(staged)
            trainer.accelerator.wait_for_everyone()
            _write(trainer, staged, facts)
            trainer.accelerator.wait_for_everyone()
            if first:
                _sync(staged)
                files.move(staged, final)
        except _write_errors() as error:
            files.remove_tree(staged)
            raise self._refused(step, error) from error
        if first:
            self._forget(facts.get("best_step"))

    def _refused(self, step: int, error: Exception) -> StorageFailed:
        kept = self._steps()
        way_on = f"`--resume` goes on from step {kept[-1]}" if kept else "there is no earlier one"
        fact = f"the checkpoint of step {step} could not be written ({error})"
        return StorageFailed(str(self.folder), fact, f"free space on the disk; {way_on}")

    def _steps(self) -> list[int]:
        return disk.numbers(self.folder)

    def _forget(self, best: object) -> None:
        for step in self._steps()[: -self.keep]:
            if step != best:
                files.remove_tree(self.folder / str(step))


def load_weights(model: Any, folder: Path) -> None:
    """Put the weights of a checkpoint's folder into `model`, in place.

    Raises: CorruptStore: they are another model's.
    """
    from safetensors.torch import load_file

    saved = load_file(folder / WEIGHTS)
    named = dict(trainable(model))
    if set(saved) != set(named):
        fact = f"holds {len(saved)} tensors, which are not the {len(named)} that are trained now"
        raise CorruptStore(str(folder), fact, "start afresh, without --resume")
    for name, value in saved.items():
        put(named[name], value)


def _write(trainer: Any, folder: Path, facts: Mapping[str, JsonValue]) -> None:
    from safetensors.torch import save_file

    weights = whole_weights(trainer.accelerator.unwrap_model(trainer.model))
    if trainer.args.should_save:
        save_file(weights, folder / WEIGHTS)
        trainer.state.save_to_json(str(folder / STATE))
        (folder / RUN).write_text(json.dumps(dict(facts)), encoding="utf-8")
    trainer._save_optimizer_and_scheduler(str(folder))  # noqa: SLF001
    trainer._save_scaler(str(folder))  # noqa: SLF001
    trainer._save_rng_state(str(folder))  # noqa: SLF001


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    files.sync_directory(folder)


def _write_errors() -> tuple[type[Exception], ...]:
    """Return what a full disk looks like: Python's and the store's errors, torch's and safetensors' own."""
    from safetensors import SafetensorError

    return (OSError, RuntimeError, StorageFailed, SafetensorError)
