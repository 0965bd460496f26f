"""The hot path with accounts: what `Inference` does, and a report of each request to those who keep them.

Chosen when the router starts, so a server that keeps no accounts runs none of this. Invariant: a keeper that
fails costs nobody an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.entries.keyring import Caller
from registry.errors import WardrobeError
from serve.bounds.arrival import Arrivals
from serve.door.hosts import Hosts
from serve.protocol.paths import Endpoint
from serve.router.exchange import Exchange
from serve.router.inference import Inference, RawHeaders
from serve.router.runtime import Runtime
from serve.router.telemetry.accounts import RequestAccount, RequestObserver

_log = logging.getLogger("wardrobe.router")
# Each request is a task of its own, so this is its own too; a shadow copy's task gets another.
_present: ContextVar[RequestAccount] = ContextVar("wardrobe_request")


class ObservedInference(Inference):
    """Forwards requests and tells `keepers` of each."""

    __slots__ = ("_keepers",)

    def __init__(
        self,
        app: ASGIApp,
        runtime: Runtime,
        refused_fields: frozenset[str],
        arrivals: Arrivals,
        hosts: Hosts,
        keepers: Sequence[RequestObserver],
    ) -> None:
        super().__init__(app, runtime, refused_fields, arrivals, hosts)
        self._keepers = tuple(keepers)

    async def handle(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and report it."""
        request = RequestAccount(endpoint.operation, dict(scope["headers"]))
        _present.set(request)
        self._tell(lambda keeper: keeper.begin(request))
        try:
            await super().handle(endpoint, scope, receive, send)
        finally:
            self._tell(lambda keeper: keeper.end(request))

    def _admit(self, headers: RawHeaders) -> Caller:
        caller = super()._admit(headers)
        _present.get().who = caller.who
        return caller

    def _prepare(self, exchange: Exchange) -> Scope:
        scope = super()._prepare(exchange)
        request = _present.get()
        request.forwarded = exchange
        request.request_id = exchange.request_id.decode("latin-1")
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        request.inner_id = headers[-1][1].decode("latin-1")
        self._tell(lambda keeper: keeper.forward(request, headers))
        return scope

    async def _carry(self, exchange: Exchange, seconds: float | None) -> None:
        try:
            await super()._carry(exchange, seconds)
        finally:
            request = _present.get()
            if request.forwarded is exchange:
                request.tries.append(exchange.account())

    async def _copy(self, exchange: Exchange) -> None:
        request = RequestAccount(exchange.endpoint.operation, exchange.headers)
        _present.set(request)
        self._tell(lambda keeper: keeper.begin(request))
        try:
            await super()._copy(exchange)
        finally:
            self._tell(lambda keeper: keeper.end(request))

    async def _refuse(
        self, send: Send, endpoint: Endpoint, headers: RawHeaders, error: WardrobeError
    ) -> None:
        request = _present.get()
        request.refused = error.http_status
        request.reason = error.code
        await super()._refuse(send, endpoint, headers, error)

    def _name_refusal(self, endpoint: Endpoint, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
        named = super()._name_refusal(endpoint, headers)
        _present.get().request_id = named[0][1].decode("latin-1")
        return named

    def _tell(self, what: Callable[[RequestObserver], None]) -> None:
        for keeper in self._keepers:
            try:
                what(keeper)
            except Exception:  # noqa: BLE001 - an account that cannot be kept must not cost an answer
                _log.exception("an account of a request could not be kept")
