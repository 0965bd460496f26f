"""What systemd is told of the launcher (man 3 sd_notify): that it is there, and that it still turns.

A datagram per word, so it takes no library. Without NOTIFY_SOCKET nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd gives to the launcher, and the engine must not inherit: it would answer in our place."""


class ServiceManager:
    """The service manager that started this process, if one did."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        address = found.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        asked = found.get("WATCHDOG_USEC", "")
        self._watchdog = float(asked) / 1e6 if asked.isascii() and asked.isdigit() and address else 0.0

    @property
    def interval_seconds(self) -> float | None:
        """Return how often it wants to hear from us, None where it does not."""
        return self._watchdog / 3 if self._watchdog else None

    def ready(self, status: str) -> None:
        """Say that clients are answered from now on."""
        self._tell(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Say in words how it is; `systemctl status` shows it."""
        self._tell(f"STATUS={status}")

    def alive(self) -> None:
        """Say that the launcher's loop turns."""
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1")

    def _tell(self, words: str) -> None:
        if not self._address:
            return
        # Nobody there, no descriptor: the next word may get through, and a service manager is not a
        # condition.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)  # noqa: FBT003 - socket's signature
            connection.sendto(words.encode(), self._address)
