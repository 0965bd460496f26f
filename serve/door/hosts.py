"""Under which names this server may be called: the defence against DNS rebinding (pure).

A page of another site can have its own name point to this machine, and then ask this server as if it were
its own: the browser sees one origin. What gives it away is the name, which the browser sends as Host. So
where no key is asked for, only names that cannot be somebody else's are answered. With keys a page has
nothing to send, and a name is checked only where `allowed_hosts` says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from serve.errors import ForeignHost

ANY_HOST = "*"

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
_REMEMBERED = 256


class Hosts:
    """The names of one server that listens on `bound`; `allowed` are the operator's own, `*` is any."""

    def __init__(self, bound: str, allowed: Iterable[str]) -> None:
        names = [plain_host(name.encode()) or name.lower() for name in (bound, *allowed)]
        self.restricted = bool(names[1:])
        self._any = ANY_HOST in names
        self._names = frozenset(names)
        # Whoever listens beyond loopback without keys was told so; an address in a URL cannot be rebound.
        self._addresses = not _is_loopback(names[0])
        self._verdicts: dict[bytes, bool] = {}

    def check(self, host: bytes | None, http_version: str) -> None:
        """Pass when a request with this Host was meant for this server.

        Raises: ForeignHost.
        """
        if host is not None and self._verdicts.get(host):
            return
        if host is None:
            if http_version == "1.0":
                return  # before there was a Host; no browser speaks it
            fact = "is missing"
        elif self._knows(host):
            return
        else:
            fact = f"{host[:100].decode('latin-1')!r} is not this server"
        raise ForeignHost("host", fact, "use its own name, or add it to allowed_hosts", param="host")

    def _knows(self, host: bytes) -> bool:
        verdict = self._verdicts.get(host)
        if verdict is None:
            verdict = self._any or self._is_ours(plain_host(host))
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[host] = verdict
        return verdict

    def _is_ours(self, name: str) -> bool:
        if not name:
            return False
        return name in self._names or _is_loopback(name) or (self._addresses and _address(name) is not None)


def plain_host(host: bytes) -> str:
    """Return the name of a Host header, '' where it is none: small letters, no port, no final dot."""
    found = _HOST.fullmatch(host)
    if found is None:
        return ""
    name = (found[1] or found[2]).decode().lower()
    return name.removesuffix(".")


def _is_loopback(name: str) -> bool:
    address = _address(name)
    return name == "localhost" if address is None else address.is_loopback


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
