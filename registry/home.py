"""`~` in a path that somebody wrote: their home folder, wherever the shell left it as it was.

A shell expands `~` at the beginning of a word only: not in `--root=~/x`, not in a file of settings, not in
the environment of a service. Every path that comes from outside passes here. Invariant: no folder called `~`
is ever made for somebody who meant their home.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from registry.errors import UsageError

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


def at_home(path: str | os.PathLike[str]) -> Path:
    """Return `path` with a leading `~` or `~user` replaced by the home folder.

    Raises: UsageError: there is no such user, or none whose home is known.
    """
    text, found = os.fspath(path), Path(path)
    if not text.startswith("~"):
        # `Path` drops the `./` by which somebody says that a folder is called `~`.
        return found.absolute() if str(found).startswith("~") else found
    try:
        return found.expanduser()
    except RuntimeError as error:
        fact = f"{text.partition('/')[0]} is nobody's home folder here"
        remedy = f"write the whole path, or ./{text} for a folder of that name"
        raise UsageError(text, fact, remedy) from error


class _AtHome:
    """Has pydantic pass a path through `at_home`; this module imports no pydantic, `--help` is quick."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(at_home, handler(source))


HomePath = Annotated[Path, _AtHome()]
"""A path in a file of settings."""
