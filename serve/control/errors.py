"""How the OpenAPI document describes refusals: one shape for every status."""

from __future__ import annotations

from typing import Any

from registry.documents import ErrorDocument

_MEANINGS = {
    400: "The request is malformed.",
    401: "No valid key.",
    403: "The key's scope does not include admin.",
    404: "No such adapter, version or alias.",
    409: "The present state forbids it.",
    413: "Over a limit of size.",
    422: "The folder must not become a version.",
    500: "The server failed.",
    503: "Not now.",
}

# FastAPI's own type for this parameter.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorDocument, "description": meaning} for status, meaning in _MEANINGS.items()
}
