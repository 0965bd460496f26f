"""The admin API without a router around it: a state that holds two facts, and a door that checks keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.api.operation import SCOPE
from registry.entries.keyring import KeyRing
from registry.errors import Denied
from registry.store import Registry
from registry.watcher import Watcher
from serve.control.app import build_control
from serve.control.layer import error_response
from serve.rollout.webhooks import WebhookNotifier
from serve.router.endpoints.auth import authorize
from serve.settings import RequestLimits
from tests.fakes.http_server import served


class FakeState:
    """A `ControlState` of a replica that holds nothing."""

    def __init__(self, registry: Registry, limits: RequestLimits | None = None) -> None:
        self.limits = limits or RequestLimits()
        self.replica = "fake-1"
        self.draining = False
        self.capacity = 4
        self.notifier = WebhookNotifier()
        self.watcher = Watcher(registry)
        self.watcher.refresh()

    def drain(self, on: bool) -> None:
        """Begin or end draining."""
        self.draining = on

    def resident(self) -> tuple[str, ...]:
        """Return nothing: no engine."""
        return ()

    def ready(self) -> bool:
        """Return whether it takes work."""
        return not self.draining


class Door:
    """Does for the admin API what the router does: asks for a key and says who comes."""

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self._app = app
        self._ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer it."""
        self._ring.refresh()
        try:
            who = authorize(self._ring, dict(scope["headers"]), {SCOPE}).who
        except Denied as error:
            await error_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["who"] = who
        await self._app(scope, receive, send)


@contextmanager
def admin_server(root: Path, limits: RequestLimits | None = None) -> Iterator[str]:
    """Serve the admin API of `root` over a real socket and give its URL."""
    registry = Registry.open(root)
    app = build_control(registry, FakeState(registry, limits))
    with served(Door(app, KeyRing(root))) as url:
        yield url
