"""What the platform endpoints ask of their server process; the router's runtime implements it."""

from __future__ import annotations

from typing import Protocol

from registry.entries.keyring import KeyRing
from serve.control.state import ControlState
from serve.settings import ServeSettings


class PlatformState(ControlState, Protocol):
    """One server process, as its platform endpoints see it."""

    @property
    def settings(self) -> ServeSettings:
        """Return the settings of the process."""
        ...

    @property
    def keys(self) -> KeyRing:
        """Return the keys in memory."""
        ...
