"""Write the versions installed in this environment to `constraints.txt`: names and versions, no hosts."""

from __future__ import annotations

import sys
from importlib.metadata import distributions
from pathlib import Path

HEADER = """\
# Names and versions that were installed and tested together on Python 3.11 for the CPU set-up.
# Used by deploy/setup_env.py as pip constraints; regenerate with: make constraints
"""
# The project itself, and what pip brings along.
LEFT_OUT = frozenset({"wardrobe-llm", "pip", "setuptools", "wheel"})


def lines() -> list[str]:
    """Return `name==version` for every installed distribution, without local version labels."""
    found = {dist.metadata["Name"]: dist.version.partition("+")[0] for dist in distributions()}
    kept = sorted((name, version) for name, version in found.items() if name.lower() not in LEFT_OUT)
    return [f"{name}=={version}" for name, version in sorted(kept, key=lambda pair: pair[0].lower())]


def main() -> int:
    """Write the file beside pyproject.toml and print how many lines it holds."""
    target = Path(__file__).resolve().parent.parent / "constraints.txt"
    # The companions of torch that set-up removed again stay pinned: pip installs them first.
    before = target.read_text().splitlines() if target.exists() else []
    kept = [line for line in before if line.startswith(("torchvision==", "torchaudio==", "torchcodec=="))]
    body = sorted({*lines(), *kept}, key=str.lower)
    target.write_text(HEADER + "\n".join(body) + "\n")
    print(f"{target.name}: {len(body)} versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
