"""What a misspelt key of a settings file was meant to be: the near one, or all that may stand there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel

_ELSEWHERE = 0.75
"""How near a key of another place must be."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the one of `known` that `word` was meant to be: the same letters in another order come first."""
    every = sorted(known)
    letters = sorted(word)
    near = get_close_matches(word, every, n=1, cutoff=cutoff)
    return next((one for one in every if sorted(one) == letters), near[0] if near else None)


def remedy_for(path: Sequence[int | str], beside: Iterable[str], every: Iterable[str]) -> str:
    """Return what to do about the unknown key at `path`: `beside` may stand there, `every` is dotted."""
    *parents, last = map(str, path)
    known = sorted(beside)
    if near := nearest(last, known, cutoff=0.5):
        return f"did you mean {'.'.join([*parents, near])}?"
    dotted = {key.rpartition(".")[2]: key for key in every}
    if near := nearest(last, dotted, cutoff=_ELSEWHERE):
        return f"did you mean {dotted[near]}?"
    return f"known here: {', '.join(known)}" if known else "remove it"


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key that a document of `model` may have, dotted."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for kind in models_in(field.annotation):
            yield from keys_of(kind, f"{key}.")


def keys_beside(model: type[BaseModel], loc: Sequence[int | str]) -> set[str]:
    """Return the keys known at the place of the last one of `loc`, which is pydantic's.

    The path through a list or a union of tagged kinds holds indices and tags, which name the kind.
    """
    here: list[type[BaseModel]] = [model]
    for place in loc[:-1]:
        inner = [kind for one in here for name, kind in _inner(one) if name == place]
        here = inner or here
        here = [kind for kind in here if _tag(kind) == place] or here
    return {field.alias or name for kind in here for name, field in kind.model_fields.items()}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field of this annotation may hold."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from models_in(argument)


def _inner(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for kind in models_in(field.annotation):
            yield field.alias or name, kind


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    values = get_args(field.annotation) if field is not None else ()
    return str(values[0]) if values else None
