"""What the admin API asks of the server process that it lives in.

The router's runtime implements it; `tests.fakes.control` does for tests.
"""

from __future__ import annotations

from typing import Protocol

from registry.views.view import View
from serve.rollout.webhooks import WebhookNotifier
from serve.settings import RequestLimits


class Refreshable(Protocol):
    """The part of `registry.watcher.Watcher` that the admin API uses."""

    @property
    def view(self) -> View:
        """Return the present snapshot."""
        ...

    def refresh(self) -> None:
        """Read the registry again now; blocks."""
        ...


class ControlState(Protocol):
    """One server process, as its own admin API sees it."""

    @property
    def replica(self) -> str:
        """Return the replica's name."""
        ...

    @property
    def draining(self) -> bool:
        """Return whether new work is refused."""
        ...

    @property
    def capacity(self) -> int:
        """Return how many versions the engine can hold."""
        ...

    @property
    def limits(self) -> RequestLimits:
        """Return the limits on one request; of an upload, its size."""
        ...

    @property
    def watcher(self) -> Refreshable:
        """Return the watcher of the registry: it is refreshed after every write."""
        ...

    @property
    def notifier(self) -> WebhookNotifier:
        """Return what tells webhooks of rollouts; its owner closes it."""
        ...

    def drain(self, on: bool) -> None:
        """Begin or end refusing new work."""
        ...

    def resident(self) -> tuple[str, ...]:
        """Return the engine names that are loaded now."""
        ...

    def ready(self) -> bool:
        """Return whether the process answers requests."""
        ...
