"""What a misspelt key of a settings file was meant to be: the near one, or all that may stand there."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel


def remedy_for(model: type[BaseModel], path: Sequence[int | str]) -> str:
    """Return what to do about the unknown key at `path` (as pydantic's `loc`) of a `model`'s document."""
    known = sorted(_fields(model, path[:-1]))
    near = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def _fields(model: type[BaseModel], path: Sequence[int | str]) -> set[str]:
    """Return the keys that the part of a document at `path` may have."""
    kind = model
    for name in path:
        if isinstance(name, str) and name in kind.model_fields:
            kind = _model(kind.model_fields[name].annotation) or kind
    return set(kind.model_fields)


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model(inner))), None)
