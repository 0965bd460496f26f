"""How the OpenAPI document describes refusals: one shape for every status, and for each operation its own.

Invariant: an operation lists what it can answer, and nothing else.
"""

from __future__ import annotations

from typing import Any

from registry.api.documents import ErrorDocument

_MEANINGS = {
    400: "The request is malformed.",
    401: "No valid key.",
    403: "The key's scope does not include admin.",
    404: "No such adapter, version, alias, rollout, group or key.",
    408: "The body did not arrive in time.",
    409: "The present state forbids it.",
    413: "Over a limit of size.",
    415: "The body has a content-encoding.",
    421: "The Host is not this server.",
    422: "The folder must not become a version.",
    500: "The server failed.",
    503: "Not now: the server starts or ends, or the root is away.",
    507: "The disk is full (`disk_full`), or refused a read or a write (`storage_failed`).",
}

# FastAPI's own type for this parameter.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorDocument, "description": meaning} for status, meaning in _MEANINGS.items()
}
"""What any operation may answer; `refusals_of` says which of them one does."""

_ALWAYS = frozenset({400, 401, 403, 421, 500, 503})
_WITH_BODY = frozenset({408, 413, 415})
_IN_MEMORY = frozenset({"list_adapters", "show_drain", "drain"})
_NO_CONFLICT = frozenset({"drain", "verify", "collect_garbage", "receive_alerts", "revoke_key"})


def refusals_of(method: str, path: str, operation: dict[str, Any]) -> frozenset[int]:
    """Return the statuses of `_MEANINGS` that an operation of the document can answer."""
    name, found = operation["operationId"], set(_ALWAYS)
    if "requestBody" in operation:
        found |= _WITH_BODY
    if "{name}" in path or "{group}" in path or "{key_id}" in path or name == "verify":
        found.add(404)
    if method != "get" and name not in _NO_CONFLICT:
        found.add(409)
    if name == "upload_version":
        found.add(422)
    if name not in _IN_MEMORY:
        found.add(507)
    return frozenset(found)


def keep_own_refusals(document: dict[str, Any]) -> None:
    """Take from every operation the refusals that it never answers."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            own = refusals_of(method, path, operation)
            for status in REFUSALS:
                if status not in own:
                    operation["responses"].pop(str(status), None)
