"""Remove builds of torchvision, torchaudio and torchcodec that do not import, from this environment.

Run by the images' build; `make setup` does the same to `.venv`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.setup_env import SetupError, remove_broken_companions


def main() -> int:
    """Remove them and return the exit code."""
    try:
        remove_broken_companions(Path(sys.executable))
    except SetupError as error:
        print(f"error: companions of torch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
