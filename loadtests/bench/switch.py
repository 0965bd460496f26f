"""A middleware of the benchmarks: one server that answers with the router and without it.

Two servers would differ by more than the router (memory layout, threads, temperature); here both arms of
a pair share one engine, one process and one socket. It is never part of a served configuration.
"""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.router.app import Router

BARE = (b"x-bench-bare", b"1")
"""The header that leads around the router."""


class Switch:
    """Sends a request to the router, or straight to the application behind it."""

    def __init__(self, app: ASGIApp) -> None:
        self._bare = app
        self._routed = Router(app)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Choose by the header; everything but HTTP belongs to the router."""
        bare = scope["type"] == "http" and BARE in scope["headers"]
        return self._bare(scope, receive, send) if bare else self._routed(scope, receive, send)
