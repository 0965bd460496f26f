"""Promptfoo's templates, which are Nunjucks: filled in as Jinja, which writes the same where both know it.

Owns rendering. Invariants: a template can reach nothing but its test's variables; a variable that no test
gives is empty, as in Promptfoo, and told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError, Undefined, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from train.evaluation.promptfoo.draft import ConfigLosses


class _Empty(Undefined):
    """A variable that is not there: an empty text."""


_ENVIRONMENT = SandboxedEnvironment(undefined=_Empty, keep_trailing_newline=True)
_ENVIRONMENT.filters |= {"dump": json.dumps, "load": json.loads}
_OVERFLOW = (RecursionError, OverflowError, MemoryError, TypeError, ValueError, ArithmeticError, LookupError)


class Unfilled(Exception):
    """A template that cannot be filled in, with the reason."""


def fill(value: Any, values: Mapping[str, Any], place: str, losses: ConfigLosses) -> Any:
    """Return `value` with every text in it filled in, however deep it lies.

    Raises: Unfilled.
    """
    if isinstance(value, str):
        return _text(value, values, place, losses)
    if isinstance(value, Mapping):
        return {key: fill(one, values, place, losses) for key, one in value.items()}
    if isinstance(value, list):
        return [fill(one, values, place, losses) for one in value]
    return value


def _text(text: str, values: Mapping[str, Any], place: str, losses: ConfigLosses) -> str:
    if "{{" not in text and "{%" not in text:
        return text
    try:
        from jinja2.meta import find_undeclared_variables

        for name in sorted(find_undeclared_variables(_ENVIRONMENT.parse(text)) - set(values)):
            losses.add(place, f"no variable is called {name}", "it is empty here, as in Promptfoo: add it")
        return _ENVIRONMENT.from_string(text).render(_shown(values))
    except (TemplateError, UndefinedError, *_OVERFLOW) as error:
        raise Unfilled(str(error) or type(error).__name__) from error


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: json.dumps(one) if isinstance(one, dict | list) else one for key, one in values.items()}
