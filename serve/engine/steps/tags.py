"""The order in which the engine takes requests of several groups, as one number: vLLM's `priority`.

The router writes it, the scheduler reads it; the lower one is first.
"""

from __future__ import annotations

PRIORITY = b"x-vllm-priority"
PRIORITY_HEADERS = frozenset({PRIORITY, b"x-data-parallel-rank"})
"""What vLLM takes from a request's headers, and no client may say: its order, and its engine."""

TAGGED = 1 << 40
"""Numbers from here on are the router's; below it they are somebody else's, and before all of ours."""

YIELDS = 1
"""The bit that says: in pieces, because somebody lighter may come."""

LAST = 1 << 62
"""The tag of what comes after everybody: a line of a batch."""


def tag(start: float, *, yields: bool) -> int:
    """Return the tag of a request whose group had been given `start` tokens when it got its seat."""
    return min(TAGGED + 2 * int(start), LAST - 2) + (YIELDS if yields else 0)
