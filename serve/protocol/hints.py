"""What a client meant that asked for a path which does not exist: most have a wrong base URL.

Pure: a function of the path and of what exists. Invariant: it only names paths that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches

Known = Callable[[str], bool]

_MOST_SEGMENTS = 12
_LONGEST = 100
_SHOWN = 40

_ALIKE = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings",
    "/v1/models", "/v1/tokenize", "/v1/detokenize", "/v1/feedback", "/livez", "/readyz", "/metrics",
)  # fmt: skip
"""Paths that a misspelt one is held against."""

_DOCUMENT = "the admin API is described by GET /admin/openapi.json, the rest in docs/reference/http.md"
_PLAIN: Mapping[str, str] = {
    "/docs": _DOCUMENT,
    "/redoc": _DOCUMENT,
    "/openapi.json": _DOCUMENT,
    "/v1/openapi.json": _DOCUMENT,
    "/version": "GET /admin/openapi.json names the release",
    "/ping": "ask GET /livez, or GET /readyz",
    "/healthz": "ask GET /livez, or GET /readyz",
}

_NO_PAGE = (
    "this is an API without a page here: ask POST /v1/chat/completions, GET /v1/models or GET /readyz; "
    "docs/reference/http.md lists all paths"
)


def hint(path: str, known: Known) -> str:
    """Return what to ask instead of `path`; `known` tells which paths exist."""
    plain = _PLAIN.get(path.rstrip("/"))
    if plain is not None:
        return plain
    if path.startswith("/a/") and (words := _below_a_name(path, known)):
        return words
    found = _within(path, known) or _alike(path)
    if found is None:
        return _NO_PAGE
    reason = _reason(path, found)
    return f"did you mean {found}? {reason}".rstrip()


def _below_a_name(path: str, known: Known) -> str:
    """Return what is wrong with a path under `/a/`: the name, or what follows it; '' where neither helps."""
    name, _, below = path.removeprefix("/a/").partition("/")
    if not known(f"/a/{name}/v1/models"):
        found = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
        return f"{found!r} is no adapter's name: after /a/ comes NAME, NAME@N or NAME@ALIAS"
    if below.strip("/") in {"", "v1"}:
        return f"/a/{name}/v1 is a base URL: ask POST /a/{name}/v1/chat/completions, GET /a/{name}/v1/models"
    meant = _within(f"/{below}", lambda one: known(f"/a/{name}{one}")) or _alike(f"/{below}")
    return f"did you mean /a/{name}{meant}?" if meant and known(f"/a/{name}{meant}") else ""


def _within(path: str, known: Known) -> str | None:
    """Return the known path that is left when what a gateway, Azure or a doubled base URL adds is dropped."""
    segments = [one for one in path.split("/") if one][:_MOST_SEGMENTS]
    for start in range(len(segments)):
        rest = "/".join(segments[start:])
        for candidate in (f"/{rest}", f"/v1/{rest}"):
            if candidate != path and known(candidate):
                return candidate
    return None


def _alike(path: str) -> str | None:
    near = get_close_matches(path[:_LONGEST].rstrip("/").lower(), _ALIKE, n=1, cutoff=0.85)
    return near[0] if near else None


def _reason(path: str, found: str) -> str:
    if "/deployments/" in path or "/engines/" in path:
        return "The model is named in the body, as `model`."
    versions = path.split("/").count("v1")
    if found.startswith("/v1/messages") and versions > 1:
        return "The base URL of Anthropic's clients has no /v1."
    if found.startswith("/v1/") and versions != 1:
        return "The base URL of OpenAI's clients ends in /v1."
    return ""
