"""What both halves of the comparison are told on the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def _cache() -> Path:
    return Path(os.environ.get("WARDROBE_CACHE") or ".cache")


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How long and how often, and where the environments of the peers are kept.

    `rounds` and `seconds` are those of the routers: how often every arm is driven, and how long each time.
    `quick` prints instead of writing, and measures the engines with fewer requests.
    """

    rounds: int = 5
    seconds: int = 2
    quick: bool = False
    cache: Path = field(default_factory=_cache)
