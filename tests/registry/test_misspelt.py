"""A misspelt key is answered with the near one of its own place, or with all that may stand there."""

from __future__ import annotations

from pydantic import BaseModel

from registry.settings.misspelt import keys_beside, keys_of, nearest, remedy_for


class Inner(BaseModel):
    weight: int
    seconds: float


class Outer(BaseModel):
    steps: tuple[Inner, ...]
    guard: Inner | None = None


def remedy(path: tuple[int | str, ...]) -> str:
    return remedy_for(path, keys_beside(Outer, path), keys_of(Outer))


def test_the_near_key_of_the_same_place_is_named() -> None:
    assert remedy(("stps",)) == "did you mean steps?"
    assert remedy(("steps", 0, "wieght")) == "did you mean steps.0.weight?"
    assert remedy(("guard", "secnds")) == "did you mean guard.seconds?"


def test_where_none_is_near_all_of_the_place_are_named() -> None:
    assert remedy(("steps", 3, "xyz")) == "known here: seconds, weight"


def test_transposed_letters_come_before_a_word_that_is_as_near() -> None:
    assert nearest("prot", ("host", "port", "root")) == "port"
    assert nearest("xyz", ("host", "port", "root")) is None
