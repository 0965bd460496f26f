"""The config file of a training run: typed, frozen, every default in one place.

Owns what a run may be told and how a mistake is reported. Reads YAML, TOML and JSON. Invariant: an
unknown key is an error that names the nearest known one, and every path is absolute once loaded
(relative paths count from the config file's folder).
"""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from registry.errors import UsageError
from registry.names import check_adapter_name, check_alias_name

Schedule = Literal["constant", "linear", "cosine"]

ALL_LINEAR = "all-linear"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Settings):
    """Where the rows lie: JSON Lines, chat or prompt/completion."""

    train: Path
    eval: Path | None = None


class LoraSettings(_Settings):
    """The shape of the adapter.

    `target_modules` is `all-linear` or names of modules; `alpha` defaults to twice the rank.
    """

    rank: int = Field(default=16, ge=1, le=512)
    alpha: int | None = Field(default=None, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"

    @property
    def scale_alpha(self) -> int:
        """Return `alpha`, or its default of twice the rank."""
        return self.alpha if self.alpha is not None else 2 * self.rank


class OptimiserSettings(_Settings):
    """How long and how fast it learns.

    `steps` wins over `epochs` and may exceed one pass; `warmup` is the share of all steps during which
    the rate rises; `max_length` counts tokens of the rendered conversation.
    """

    learning_rate: float = Field(default=2e-4, gt=0, lt=1)
    epochs: float = Field(default=3.0, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=8, ge=1)
    max_length: int = Field(default=1024, ge=2)
    schedule: Schedule = "linear"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)


class TrainConfig(_Settings):
    """Everything that decides a run; the same config, data and base give the same digest on one machine.

    `name` is the adapter that gets the new version; `alias` is set to it when given.
    """

    name: str
    data: DataSettings
    lora: LoraSettings = LoraSettings()
    training: OptimiserSettings = OptimiserSettings()
    seed: int = Field(default=0, ge=0, lt=2**32)
    alias: str | None = None
    note: str = ""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_adapter_name(self.name)
        if self.alias is not None:
            check_alias_name(self.alias)
        return self


def load_config(path: Path) -> TrainConfig:
    """Read and check the config file at `path`.

    Raises: UsageError: for a file that cannot be read or parsed, an unknown key, or a value out of range.
    """
    parsed = _parse(path)
    try:
        config = TrainConfig.model_validate(parsed)
    except ValidationError as error:
        raise _usage_error(path, error) from error
    return _with_absolute_paths(config, path.resolve().parent)


def known_keys() -> tuple[str, ...]:
    """Return every key that a config may hold, dotted (`lora.rank`), sorted."""
    return tuple(sorted(_dotted(TrainConfig, "")))


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(str(path), f"cannot be read ({reason})", "name a config file") from error
    try:
        parsed = _parsers().get(path.suffix.lower(), yaml.safe_load)(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(str(path), f"cannot be parsed: {error}", "correct the file") from error
    if not isinstance(parsed, dict):
        raise UsageError(str(path), "holds no settings", "see train/README.md for an example")
    return parsed


def _parsers() -> dict[str, Any]:
    return {".toml": tomllib.loads, ".json": json.loads}


def _usage_error(path: Path, error: ValidationError) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return UsageError(str(path), f"{key} is not a setting", _suggestion(key), param=key)
    fact = f"{key}: {first['msg']}" if key else str(first["msg"])
    return UsageError(str(path), fact, "see `wardrobe train check --help`", param=key or None)


def _suggestion(key: str) -> str:
    known = known_keys()
    leaves = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not near:
        close = difflib.get_close_matches(key.rpartition(".")[2], leaves, n=1, cutoff=0.6)
        near = [leaves[name] for name in close]
    return f"did you mean {near[0]}?" if near else f"known settings: {', '.join(known)}"


def _dotted(model: type[BaseModel], prefix: str) -> list[str]:
    names: list[str] = []
    for name, field in model.model_fields.items():
        inner = next((kind for kind in _types(field.annotation) if issubclass(kind, BaseModel)), None)
        names += _dotted(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return names


def _types(annotation: Any) -> list[type]:
    return [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]


def _with_absolute_paths(config: TrainConfig, folder: Path) -> TrainConfig:
    data = config.data
    absolute = DataSettings(train=folder / data.train, eval=folder / data.eval if data.eval else None)
    return config.model_copy(update={"data": absolute})
