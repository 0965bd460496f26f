"""The page of the format on disk: the registry's own sections, where they are kept beside the code."""

from __future__ import annotations

import re
from pathlib import Path

from deploy.reference.tables import page

README = Path(__file__).resolve().parents[2] / "registry" / "README.md"
SECTIONS = ("On disk", "Invariants")

_TOLD = """\
Everything is a file under one root; any number of processes may share it. From
[registry/README.md](../../registry/README.md)."""


def render() -> str:
    """Return the page.

    Raises: ValueError: a section is no longer there.
    """
    text = README.read_text()
    return page("Format on disk", _TOLD, *(_section(text, name) for name in SECTIONS))


def _section(text: str, name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"{README.name} has no section {name!r}")
    return f"## {name}\n{_moved(found[1])}"


def _moved(text: str) -> str:
    """Return a text whose relative links still lead where they led."""
    return re.sub(r"\]\((?!https?://|#|/)([^)]+)\)", r"](../../registry/\1)", text)
