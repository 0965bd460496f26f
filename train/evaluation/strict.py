"""Typed files for people: an unknown key is an error that names the nearest known one.

Owns the base class of every setting here and how a mistake in a YAML, JSON or JSONL file is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from registry.errors import UsageError
from registry.misspelt import nearest
from registry.wording import fact_of
from registry.yaml_text import parse_yaml


class Strict(BaseModel):
    """A setting: frozen, and nothing in it that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Advice(ValueError):
    """A refused value whose remedy is known; validators of settings raise it."""

    def __init__(self, fact: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(fact)


_Model = TypeVar("_Model", bound=BaseModel)


def parse(
    subject: str, value: object, model: type[_Model], *, see: str = "train/evaluation/README.md"
) -> _Model:
    """Check `value` against `model`; an error about a value points to `see`.

    Raises: UsageError: naming `subject` and the key, with the nearest known key for an unknown one.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _usage_error(subject, error, model, see) from error


def read_yaml(path: Path) -> object:
    """Return what the YAML (or JSON) file at `path` holds.

    Raises: UsageError: it cannot be read or parsed.
    """
    try:
        return parse_yaml(read_text(path))
    except yaml.YAMLError as error:
        raise UsageError(str(path), f"cannot be parsed: {error}", "correct the file") from error


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises: UsageError.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(str(path), f"cannot be read ({reason})", "name a file that is there") from error


def _usage_error(subject: str, error: ValidationError, model: type[BaseModel], see: str) -> UsageError:
    first = error.errors()[0]
    places = [str(part) for part in first["loc"]]
    key = ".".join(places)
    if first["type"] == "extra_forbidden":
        return UsageError(subject, f"{key} is not a setting", _suggestion(places, model), param=key)
    fact = f"{key}: {fact_of(first)}" if key else fact_of(first)
    reason = first.get("ctx", {}).get("error")
    remedy = reason.remedy if isinstance(reason, Advice) else f"see {see}"
    return UsageError(subject, fact, remedy, param=key or None)


def _suggestion(places: Sequence[str], model: type[BaseModel]) -> str:
    beside = sorted(_beside(places, model))
    if near := nearest(places[-1], beside):
        return f"did you mean {near}?"
    dotted = {key.rpartition(".")[2]: key for key in _keys(model)}
    if near := nearest(places[-1], dotted, cutoff=0.75):
        return f"did you mean {dotted[near]}?"
    return f"known settings: {', '.join(beside or sorted(dotted.values()))}"


def _beside(places: Sequence[str], model: type[BaseModel]) -> set[str]:
    """Return the keys known at the place of the unknown one; empty where the path is not followed.

    The path through a list or a union of tagged kinds holds indices and tags, which name the kind.
    """
    here: list[type[BaseModel]] = [model]
    for place in places[:-1]:
        inner = [kind for one in here for name, kind in _inner(one) if name == place or _tag(kind) == place]
        here = inner or [kind for kind in here if _tag(kind) == place] or here
        tagged = [kind for kind in here if _tag(kind) == place]
        here = tagged or here
    return {name for kind in here for name in _names(kind)}


def _names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name in _names(model):
        yield f"{prefix}{name}"
    for name, kind in _inner(model):
        yield from _keys(kind, f"{prefix}{name}.")


def _inner(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for kind in _models(field.annotation):
            yield name, kind


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _models(argument)


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    values = get_args(field.annotation) if field is not None else ()
    return str(values[0]) if values else None
