"""What the router says of itself: whether it is ready, and which models there are."""

from __future__ import annotations

import msgspec
from starlette.types import Send

from serve.errors import ModelNotFound
from serve.protocol.paths import Endpoint
from serve.router.endpoints.models import base_card, render_model, render_models
from serve.router.endpoints.openai_errors import send_json
from serve.router.runtime import Runtime

_READY = b'{"status":"ready"}'


async def tell_ready(runtime: Runtime | None, send: Send) -> None:
    """Say whether new requests are taken, and what is not as it should be."""
    if runtime is not None and runtime.ready():
        problems = runtime.problems()
        body = msgspec.json.encode({"status": "degraded", "problems": problems}) if problems else _READY
        await send_json(send, 200, body)
        return
    draining = runtime is not None and runtime.draining
    reasons = runtime.refusals() if runtime is not None and not draining else []
    told: dict[str, object] = {"status": "draining" if draining else "not ready"}
    body = msgspec.json.encode(told | ({"reasons": reasons} if reasons else {}))
    await send_json(send, 503, body, [(b"retry-after", b"1")])


async def tell_models(runtime: Runtime, endpoint: Endpoint, send: Send) -> None:
    """Tell of all models, or of the one that the path names.

    Raises: ModelNotFound, Quarantined: as a request for it.
    """
    view, resident = runtime.watcher.view, frozenset(runtime.resident())
    engine, digest = runtime.engine, runtime.registry.base.fingerprint
    base = base_card(engine.base_name, digest, runtime.began, engine.abilities.max_model_len)
    item, only = endpoint.item, endpoint.model
    if item and only not in {"", item}:
        raise ModelNotFound(item, f"is not under /a/{only}", "ask GET /v1/models", param="model")
    if item:
        await send_json(send, 200, render_model(view, base, resident, item))
        return
    body = render_models(view, base, resident, only)
    await send_json(send, 200, body)
