"""The config file of a training run: typed, frozen, every default in one place.

Owns what a run may be told; how the file is read is `registry.settings`', the sections are in
`train.settings`. Invariant: every path is absolute once loaded (relative paths count from the config file's
folder).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from registry.errors import UsageError
from registry.home import at_home
from registry.names import check_adapter_name, check_alias_name, parse_version
from registry.settings.file import check, read_settings
from registry.settings.misspelt import models_in
from registry.settings.models import Strict
from registry.validation.canonical import canonical_json, sha256_hex
from train.evaluation.gating.goal import Goal
from train.presets import with_given, with_preset
from train.settings.adapter import ALL_LINEAR, LoraSettings, Quantization
from train.settings.data import DataSettings
from train.settings.keeping import (
    EVAL_LOSS,
    CheckpointSettings,
    EarlyStopping,
    EvaluationSettings,
    GuardSettings,
    TrackingSettings,
)
from train.settings.method_names import check_name
from train.settings.methods import LEARNING_RATES, MethodSettings, Supervised
from train.settings.optimiser import OptimiserSettings, Schedule
from train.settings.starting import NEAREST, NearestSettings

__all__ = ["ALL_LINEAR", "Schedule", "TrainConfig", "known_keys", "load_config", "parse_config"]

_SEE = "train/README.md"


class TrainConfig(Strict):
    """Everything that decides a run; the same config, data and base give the same digest on one machine.

    `name` is the adapter that gets the new version; `alias` is set to it when given. `from` is the version
    (`NAME@N`) whose weights the run starts with: the result is one adapter that holds both; `nearest` takes
    the one with the lowest loss on the new rows. `preset` fills
    in defaults that the file does not give. `goal` is what the gate will judge.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str
    preset: Literal["few-shot"] | None = None
    method: MethodSettings = Supervised()
    start: str | None = Field(default=None, alias="from")
    nearest: NearestSettings = NearestSettings()
    data: DataSettings
    lora: LoraSettings = LoraSettings()
    quantization: Quantization | None = None
    training: OptimiserSettings = OptimiserSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    early_stopping: EarlyStopping | None = None
    guards: GuardSettings = GuardSettings()
    tracking: TrackingSettings = TrackingSettings()
    goal: Goal | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    alias: str | None = None
    note: str = ""

    @field_validator("method", mode="before")
    @classmethod
    def _method_by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"type": value}
        found = {"type": "supervised", **value} if isinstance(value, dict) else value
        if isinstance(found, dict):
            check_name(found["type"])
        return found

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_adapter_name(self.name)
        if self.alias is not None:
            check_alias_name(self.alias)
        if self.start is not None and self.start != NEAREST:
            parse_version(self.start)
        if "nearest" in self.model_fields_set and self.start != NEAREST:
            raise ValueError("nearest is for `from: nearest`")
        if self.quantization is not None and self.lora.kind in {"full", "pissa"}:
            raise ValueError(f"quantization does not go with lora.kind {self.lora.kind}; use lora or dora")
        return self

    @property
    def learning_rate(self) -> float:
        """Return the rate that is trained with: the given one, or the method's default."""
        if self.training.learning_rate is not None:
            return self.training.learning_rate
        rate = LEARNING_RATES[self.method.type]
        return rate / 10 if self.lora.kind == "full" else rate

    @property
    def sha256(self) -> str:
        """Return the digest of the config with every default written out; not its name, alias and note."""
        deciding = self.model_dump(mode="json", exclude={"name", "alias", "note"})
        return sha256_hex(canonical_json(deciding))


def load_config(path: Path) -> TrainConfig:
    """Read and check the config file at `path`.

    Raises: UsageError: for a file that cannot be read or parsed, an unknown key, or a value out of range.
    """
    file = read_settings(path, see=_SEE)
    config = file.checked(TrainConfig, _prepared(file.value, str(path)))
    return _resolved(config, file.value, path.resolve().parent)


def parse_config(value: dict[str, Any], subject: str, folder: Path) -> TrainConfig:
    """Check parsed settings; paths in them count from `folder`, errors name `subject`.

    Raises: UsageError: for an unknown key, or a value out of range.
    """
    return _resolved(check(_prepared(value, subject), TrainConfig, subject, see=_SEE), value, folder)


def _prepared(value: dict[str, Any], subject: str) -> dict[str, Any]:
    if "\\x00" in repr(value):
        raise UsageError(subject, "holds a NUL character, which no path and no name has", "correct the file")
    return with_preset(value)


def _resolved(config: TrainConfig, value: dict[str, Any], folder: Path) -> TrainConfig:
    resolved = {
        "lora": with_given(config.lora, value),
        "data": config.data.resolved(folder),
        "method": config.method.resolved(folder),
        "checkpoints": _with_suite(config, folder),
    }
    return config.model_copy(update=resolved)


def known_keys() -> tuple[str, ...]:
    """Return every key that a config may hold, dotted (`lora.rank`), sorted."""
    return tuple(sorted(set(_dotted(TrainConfig, ""))))


def _with_suite(config: TrainConfig, folder: Path) -> CheckpointSettings:
    """Return the checkpoints' settings with the suite that is measured: the named one, or the goal's."""
    settings, goal = config.checkpoints, config.goal
    suite = settings.suite
    if suite is None and goal is not None and settings.best_by not in {None, EVAL_LOSS}:
        suite = goal.suite
    if suite is not None and (found := folder / at_home(suite)).is_file():
        suite = str(found.resolve())
    return settings.model_copy(update={"suite": suite})


def _dotted(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = list(models_in(field.annotation))
        if not inner or name == "graders" or _takes_steps(field.annotation):
            yield key
        for kind in inner if name != "graders" else ():
            yield from _dotted(kind, f"{key}.")


def _takes_steps(annotation: Any) -> bool:
    """Tell whether a whole number may stand in place of a section."""
    return any(one is int or (one is not None and _takes_steps(one)) for one in get_args(annotation))
