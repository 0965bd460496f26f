"""What the libraries refuse, as an error of ours: a person who asked for it needs no traceback.

Owns which exceptions these are: a refused value, raised in a library's own code while a run is built. A fault
of ours keeps its traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType

from registry.errors import UsageError

_LIBRARIES = frozenset({"peft", "trl", "transformers", "accelerate", "bitsandbytes"})
_LONGEST = 300


@contextlib.contextmanager
def named_refusals(subject: str) -> Iterator[None]:
    """Turn what a library refuses within the block into an error about `subject`.

    Raises: UsageError: with the library's name and its own words.
    """
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        library = _raised_in(error.__traceback__)
        if library is None:
            raise
        words = " ".join(str(error).split())
        said = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
        remedy = "change the setting that it names; `wardrobe train check` tells what fits the base"
        raise UsageError(subject, f"cannot be trained so: {library} refuses it ({said})", remedy) from error


def _raised_in(trace: TracebackType | None) -> str | None:
    name = ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    top = name.partition(".")[0]
    return top if top in _LIBRARIES else None
