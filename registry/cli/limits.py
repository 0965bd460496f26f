"""Options for limits, as `groups` and `keys` take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import click

from registry.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., object])

NONE = "none"
"""What takes a limit away."""

# By the fields of `registry.entries.rights.GroupLimits`, which is too heavy for --help; a test compares.
LIMIT_HELP: Mapping[str, str] = {
    "requests_per_minute": "Requests in any 60 seconds.",
    "input_tokens_per_minute": "Tokens of prompts in any 60 seconds.",
    "output_tokens_per_minute": "Tokens of answers in any 60 seconds.",
    "concurrency": "Requests in flight at once.",
    "tokens_per_day": "Tokens of prompts and answers in a day (UTC).",
    "longest_prompt": "Tokens of one prompt.",
}


class LimitNumber(click.ParamType[int]):
    """A whole number from 1 on, or `none`, which is 0 here."""

    name = "N|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if isinstance(value, int):
            return value
        text = str(value)
        if text == NONE:
            return 0
        if not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text) > 0):
            self.fail(f"{text!r} is no limit; write a number from 1 on, or none", param, ctx)
        return int(text)


def limit_options(command: _Command) -> _Command:
    """Give a command an option for each limit; its function takes them as keywords of the same names."""
    for name, text in reversed(tuple(LIMIT_HELP.items())):
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, type=LimitNumber(), metavar="N", help=text)(command)
    return command


def given_limits(options: Mapping[str, int | None]) -> dict[str, int | None]:
    """Return the limits that were given, None for one that shall be none."""
    return {name: value or None for name, value in options.items() if value is not None}


def listed(option: str, text: str | None) -> list[str] | None:
    """Return what stands between the commas of an option's value, None where it was not given.

    Raises: UsageError: nothing stands between two of them.
    """
    if text is None or not text:
        return None if text is None else []
    found = [one.strip() for one in text.split(",")]
    if not all(found):
        raise UsageError(option, f"{text!r} has an empty part", "write for instance a,b", param=option)
    return found
