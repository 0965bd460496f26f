"""The listening socket: bound and listening before anything slow happens, and until the very end."""

from __future__ import annotations

import errno
import ipaddress
import socket

from registry.errors import Conflict, UsageError

BACKLOG = 2048
"""Connections that wait in the kernel while parent and child change places; uvicorn uses the same."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket on `host`:`port` (0 = any free port); the caller closes it.

    Raises: Conflict: when the port is taken; UsageError: for an address that this machine does not have.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"--host {host}", f"cannot be resolved ({error})", "use an address") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from error
    return listener


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(host: str, port: int, error: OSError) -> Conflict | UsageError:
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"port {port}", f"is taken by another process on {host}", "choose another --port")
    return UsageError(
        f"{host}:{port}", f"cannot be bound ({error.strerror})", "choose another --host or --port"
    )
