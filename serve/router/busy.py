"""Says to the launcher when this process begins to have requests in flight, and when it has none again.

What trains beside the engine stands still meanwhile (`serve.launcher.yielding`). Invariant: a launcher that
does not read costs a request nothing; without one, nothing is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from serve.settings import BUSY_VARIABLE

Say = Callable[[bytes], None]


def busy_line(environment: Mapping[str, str] = os.environ) -> Say | None:
    """Return what says `BUSY` or `FREE`, None where nobody listens."""
    named = environment.get(BUSY_VARIABLE, "")
    if not named.isdigit():
        return None
    descriptor = int(named)

    def say(word: bytes) -> None:
        try:
            os.write(descriptor, word)
        except OSError:  # nobody reads
            return

    return say
