"""What goes on to the server behind: its scope, and what may not go on (pure)."""

from __future__ import annotations

from starlette.types import Scope

from serve.engine.steps.tags import PRIORITY, PRIORITY_HEADERS
from serve.errors import BadBody
from serve.protocol.paths import Endpoint
from serve.router.targets import RouteTarget

_REPLACED = frozenset({b"x-request-id", b"content-length", b"transfer-encoding", *PRIORITY_HEADERS})


def foreign_template(target: RouteTarget) -> BadBody:
    """Return the refusal to render a conversation for a version that was trained on another template."""
    fact = "was trained on a chat template of its own, and this server renders with the base's"
    remedy = "send /v1/completions the rendered prompt, or register it without chat_template.jinja"
    return BadBody(target.name, fact, remedy, param="messages")


def inner_scope(endpoint: Endpoint, scope: Scope, request_id: bytes, size: int, priority: int) -> Scope:
    """Return a fresh scope with the length and the request id of what is forwarded; no `priority` is 0."""
    lines = [header for header in scope["headers"] if header[0] not in _REPLACED]
    if priority:
        lines.append((PRIORITY, b"%d" % priority))
    lines += ((b"content-length", b"%d" % size), (b"x-request-id", request_id))
    inner = dict(scope)
    inner["headers"] = lines
    if endpoint.inner_path is not None:
        inner["path"], inner["raw_path"] = endpoint.inner_path, endpoint.inner_path.encode()
    return inner
