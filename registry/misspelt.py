"""What a misspelt key of a settings file was meant to be: the near one, or all that may stand there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the one of `known` that `word` was meant to be: the same letters in another order come first."""
    every = sorted(known)
    letters = sorted(word)
    near = get_close_matches(word, every, n=1, cutoff=cutoff)
    return next((one for one in every if sorted(one) == letters), near[0] if near else None)


def remedy_for(model: type[BaseModel], path: Sequence[int | str]) -> str:
    """Return what to do about the unknown key at `path` (as pydantic's `loc`) of a `model`'s document."""
    known = sorted(_fields(model, path[:-1]))
    near = nearest(str(path[-1]), known, cutoff=0.5)
    return f"did you mean {near}?" if near else f"known here: {', '.join(known)}"


def _fields(model: type[BaseModel], path: Sequence[int | str]) -> set[str]:
    """Return the keys that the part of a document at `path` may have."""
    kind = model
    for name in path:
        if isinstance(name, str) and name in (keys := _keys(kind)):
            kind = _model(keys[name]) or kind
    return set(_keys(kind))


def _keys(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the type of each key as a document calls it."""
    return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}


def _model(annotation: Any) -> type[BaseModel] | None:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model(inner))), None)
