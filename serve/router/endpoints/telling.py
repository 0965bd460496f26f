"""What the router says of itself: whether it is ready, which models there are, and its metrics.

Invariant: nothing here tells a caller of what does not exist for it; who needs no key is told no names where
some are hidden from somebody.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.entries.keyring import Caller
from serve.errors import ModelNotFound
from serve.groups.sight import Sight
from serve.protocol.paths import Endpoint
from serve.router.endpoints.models import base_card, render_model, render_models
from serve.router.endpoints.openai_errors import send_json
from serve.router.runtime import Runtime

_OF_GROUPS = "wardrobe_group_"
"""How the names of metrics begin that are told by group."""

_READY = b'{"status":"ready"}'


async def tell_ready(runtime: Runtime | None, send: Send) -> None:
    """Say whether new requests are taken, and what is not as it should be."""
    if runtime is not None and runtime.ready():
        problems = _nameless(runtime, runtime.problems())
        body = msgspec.json.encode({"status": "degraded", "problems": problems}) if problems else _READY
        await send_json(send, 200, body)
        return
    draining = runtime is not None and runtime.draining
    reasons = _nameless(runtime, runtime.refusals()) if runtime is not None and not draining else []
    told: dict[str, object] = {"status": "draining" if draining else "not ready"}
    body = msgspec.json.encode(told | ({"reasons": reasons} if reasons else {}))
    await send_json(send, 503, body, [(b"retry-after", b"1")])


def _nameless(runtime: Runtime, sentences: list[str]) -> list[str]:
    """Return what may be told without a key: sentences name adapters, and some may not see them all."""
    if not sentences or not runtime.access.hides:
        return sentences
    return [f"{len(sentences)}, told by `wardrobe status`"]


async def tell_models(runtime: Runtime, endpoint: Endpoint, sight: Sight, send: Send) -> None:
    """Tell of all models of `sight`, or of the one that the path names.

    Raises: ModelNotFound, Quarantined: as a request for it.
    """
    view, resident = sight.view(runtime.watcher.view), frozenset(runtime.resident())
    engine, digest = runtime.engine, runtime.registry.base.fingerprint
    name = engine.base_name if sight.base else ""
    base = base_card(name, digest, runtime.began, engine.abilities.max_model_len)
    item, only = endpoint.item, endpoint.model
    if item and only not in {"", item}:
        raise ModelNotFound(item, f"is not under /a/{only}", "ask GET /v1/models", param="model")
    if item:
        await send_json(send, 200, render_model(view, base, resident, item))
        return
    body = render_models(view, base, resident, only)
    await send_json(send, 200, body)


async def tell_metrics(
    app: ASGIApp, collectors: CollectorRegistry, caller: Caller, scope: Scope, receive: Receive, send: Send
) -> None:
    """Give all metrics of `app`, or its group's alone to who has limits or does not see everything."""
    group = caller.group
    if caller.sees_all or (group.unrestricted and not group.limits.named()):
        await app(scope, receive, send)
        return
    body = generate_latest(_GroupSeries(collectors, group.name))
    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _GroupSeries(CollectorRegistry):
    """The samples of a registry that carry one group's name, in families that are about groups."""

    def __init__(self, collectors: CollectorRegistry, group: str) -> None:
        super().__init__()
        self._collectors = collectors
        self._group = group

    def collect(self) -> Iterator[Metric]:
        """Yield the families with what is left in them."""
        for family in self._collectors.collect():
            if not family.name.startswith(_OF_GROUPS):
                continue
            shown = Metric(family.name, family.documentation, family.type, family.unit)
            shown.samples = [one for one in family.samples if one.labels.get("group") == self._group]
            if shown.samples:
                yield shown
