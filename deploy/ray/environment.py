"""An environment with Ray and nothing else of ours, for tests and drills: `python -m deploy.ray.environment`.

It lives under `.cache`, takes 490 MB, and is made once: 20 seconds where a package index is near.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def ray_python() -> Path:
    """Return the Python of the environment, which is made on need.

    Raises: subprocess.CalledProcessError: when pip fails; it has said why.
    """
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [wanted] = extras["ray"]
    folder = REPOSITORY / ".cache" / f"ray-{wanted.rpartition('==')[2]}"
    python = folder / "bin" / "python"
    if not ((folder / "done").exists() and python.exists()):
        venv.create(folder, clear=True)
        pip = [sys.executable, "-P", "-m", "pip", "--python", str(python), "install", "--quiet"]
        pip += ["--disable-pip-version-check"]
        subprocess.run([*pip, "-c", str(REPOSITORY / "constraints.txt"), wanted], check=True)
        (folder / "done").touch()
    return python


def main() -> int:
    """Make it and print its Python."""
    print(ray_python())
    return 0


if __name__ == "__main__":
    sys.exit(main())
