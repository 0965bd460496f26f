"""What `wardrobe eval import --json` answers."""

from __future__ import annotations

from typing import Any

from registry.api.documents import Document
from train.evaluation.promptfoo.draft import Untaken


class SuiteImport(Document):
    """An imported suite; `out` is null where it was only printed."""

    name: str
    items: int
    graders: list[str]
    untaken: list[Untaken]
    suite: dict[str, Any]
    out: str | None
