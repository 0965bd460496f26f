"""Measure Wardrobe beside its peers.

    python -m loadtests.bench.peers [routers|engines] [--rounds N] [--seconds S] [--quick]

Without a word both halves run, one after the other. Each writes its own two files in bench-results/ and its
table in docs/peers.md; the exit is 1 when a bar was missed or a peer could not be measured.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from loadtests.bench.peers import page
from loadtests.bench.peers.options import PeerOptions

HALVES = {"routers": "routers", "engines": "engines.__main__"}
"""The word for each half, and the module whose `run` measures it."""


def main() -> int:
    """Run the halves that were asked for, and return 0 when all of them held their bars."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = PeerOptions()
    parser.add_argument("half", nargs="?", choices=HALVES, help="one half only")
    parser.add_argument("--rounds", type=positive, default=defaults.rounds, help="turns of every router")
    parser.add_argument("--seconds", type=positive, default=defaults.seconds, help="length of one turn")
    parser.add_argument("--quick", action="store_true", help="print instead of writing; the engines in short")
    parser.add_argument("--cache", type=Path, default=defaults.cache, help="folder of the environments")
    given = parser.parse_args()
    options = PeerOptions(given.rounds, given.seconds, given.quick, given.cache)
    held = [_run(half, options) for half in ([given.half] if given.half else HALVES)]
    return 0 if all(held) else 1


def positive(text: str) -> int:
    """Return a whole number above zero.

    Raises: ValueError: for anything else.
    """
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _run(half: str, options: PeerOptions) -> bool:
    """Import one half only when it runs: the other one's needs are not everybody's."""
    module = importlib.import_module(f"loadtests.bench.peers.{HALVES[half]}")
    held = bool(module.run(options))
    if not options.quick:
        page.refresh(half)
    return held


if __name__ == "__main__":
    sys.exit(main())
