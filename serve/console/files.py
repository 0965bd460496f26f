"""The console's own files: scripts and styles, in memory, each under a name that changes with its content.

Owns what is vendored and under which hash. Invariant: together they are at most `MAX_BYTES`, and a page asks
for four of them at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from registry.errors import NotFound
from serve.console.entrance import HOME

MAX_BYTES = 120_000
VENDORED = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""What others wrote, with its SHA-256; versions and licences are in the README."""

_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
# One style sheet is one request: uPlot's own few lines go before ours.
_PARTS = {
    "console.css": ("uPlot.min.css", "console.css"),
    "console.js": ("console.js",),
    "htmx.min.js": ("htmx.min.js",),
    "uPlot.iife.min.js": ("uPlot.iife.min.js",),
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent; `tag` is a part of its hash."""

    body: bytes
    kind: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """Return every file that is sent, by name."""
    folder = Path(__file__).with_name("assets")
    found = {}
    for name, parts in _PARTS.items():
        body = b"\n".join((folder / part).read_bytes() for part in parts)
        found[name] = Asset(body, _KINDS[Path(name).suffix], sha256(body).hexdigest()[:12])
    return found


def asset_url(name: str) -> str:
    """Return the address of a file; another one for every content."""
    return f"{HOME}/assets/{name}?v={assets()[name].tag}"


async def send_asset(request: Request) -> Response:
    """Send a file; a browser keeps it for as long as its address stands in a page."""
    found = assets().get(request.path_params["name"])
    if found is None:
        raise NotFound(request.path_params["name"], "is not a file of the console", f"open {HOME}")
    current = request.query_params.get("v") == found.tag
    kept = "public, max-age=31536000, immutable" if current else "no-cache"
    headers = {"content-type": found.kind, "cache-control": kept, "etag": f'"{found.tag}"'}
    if request.headers.get("if-none-match") == f'"{found.tag}"':
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers)
