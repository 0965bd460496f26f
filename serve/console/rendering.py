"""Pages from templates: everything that is put in is text, never markup.

Owns the filters of the templates. Invariant: autoescape is on, and nothing is ever marked as safe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from serve.console.files import asset_url

PAGES: tuple[tuple[str, str, str], ...] = (
    ("overview", "", "Overview"),
    ("adapters", "/adapters", "Adapters"),
    ("audit", "/audit", "Audit"),
    ("keys", "/keys", "Keys"),
)
"""The pages: their word, their path below the console's, and what a reader calls them."""


@cache
def templates() -> Environment:
    """Return the templates, parsed once."""
    folder = Path(__file__).with_name("templates")
    found = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found.filters |= {
        "bytes": told_bytes, "iso": iso, "seconds": told_seconds, "share": told_share, "json": told_json,
        "short": short_digest, "compact": compact_json,
    }  # fmt: skip
    found.globals |= {"asset": asset_url, "pages": PAGES}
    return found


def page(template: str, context: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """Return a page, which nobody may keep."""
    text = templates().get_template(template).render(context)
    return HTMLResponse(text, status, {"cache-control": "no-store"})


def told_bytes(size: int) -> str:
    """Return a size for people."""
    number, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1_000 or unit == "GB":
            break
        number /= 1_000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"


def iso(at: float) -> str:
    """Return UNIX seconds as a day and time in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def told_seconds(seconds: float | None) -> str:
    """Return a duration for people."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def told_share(share: float | None) -> str:
    """Return a share (0 … 1) in percent."""
    return "–" if share is None else f"{100 * share:.3g} %"


def told_json(value: object) -> str:
    """Return a value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def compact_json(value: object) -> str:
    """Return a value as JSON in one line."""
    return json.dumps(value, separators=(",", ":"))


def short_digest(digest: str) -> str:
    """Return as much of a digest as tells two apart."""
    return digest.removeprefix("sha256:")[:12]
