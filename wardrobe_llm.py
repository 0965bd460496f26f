"""The way in: what the command `wardrobe` calls, also `python -P -m wardrobe_llm`.

It imports nothing of ours before it knows that ours would be found: a user's `registry.py` on PYTHONPATH
would otherwise end every command with somebody else's traceback. The rest is `registry.cli.main`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

_HOME = Path(__file__).resolve().parent


def main() -> NoReturn:
    """Run the command line of this process and end the process."""
    foreign = _foreign()
    if foreign is not None:
        sys.stderr.write(
            f"error: package registry: {foreign} is imported in place of Wardrobe's own; "
            f"take {foreign.parent} off PYTHONPATH, or rename it\n"
        )
        sys.exit(2)
    from registry.cli.main import main as run

    run()


def _foreign() -> Path | None:
    """Return what is imported as `registry` and is not ours."""
    spec = find_spec("registry")
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    place = Path(places[0]).resolve()
    return None if place == _HOME / "registry" else place


if __name__ == "__main__":
    main()
