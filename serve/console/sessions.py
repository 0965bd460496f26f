"""Sessions of browsers: what the cookie holds, and the token that a change must bring.

A cookie is `KEY.EXPIRES.NONCE.MAC`: the id of the key, never its secret, signed with a key that the servers
of a root share, so that it outlives a restart and is good at every replica. What the key may do is asked of
the key ring at each request. Pure but for the clock and the sessions that were ended here.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

LIFETIME_SECONDS = 12 * 3_600
_ENDED = 10_000
_COOKIE = re.compile(r"([0-9a-z]{1,16})\.([0-9]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """One login: `who` is the id of its key, `cookie` its whole text."""

    who: str
    expires: int
    nonce: str
    cookie: str


class BrowserSessions:
    """Makes and reads the sessions of one root; `secret` gives the 32 bytes that sign them."""

    def __init__(self, secret: Callable[[], bytes], clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock
        self._ended: dict[str, int] = {}

    def open(self, who: str) -> BrowserSession:
        """Return a new session of the key with the id `who`."""
        expires, nonce = int(self._clock()) + LIFETIME_SECONDS, secrets.token_hex(16)
        text = f"{who}.{expires}.{nonce}"
        return BrowserSession(who, expires, nonce, f"{text}.{self._sign('session', text)}")

    def read(self, cookie: str) -> BrowserSession | None:
        """Return the session of a cookie, None for one that is not ours, is over, or was ended."""
        found = _COOKIE.fullmatch(cookie)
        if found is None:
            return None
        who, expires, nonce, mac = found.groups()
        if not hmac.compare_digest(mac, self._sign("session", f"{who}.{expires}.{nonce}")):
            return None
        if int(expires) <= self._clock() or nonce in self._ended:
            return None
        return BrowserSession(who, int(expires), nonce, cookie)

    def end(self, session: BrowserSession) -> None:
        """Have this process take the session no more, also from whoever copied its cookie."""
        now = self._clock()
        kept = [(nonce, expires) for nonce, expires in self._ended.items() if expires > now]
        self._ended = dict([*kept, (session.nonce, session.expires)][-_ENDED:])

    def token(self, session: BrowserSession) -> str:
        """Return what each change of this session must bring (CSRF)."""
        return self._sign("change", session.nonce)

    def brings(self, session: BrowserSession, token: str) -> bool:
        """Return whether `token` is the session's."""
        return hmac.compare_digest(self.token(session).encode(), token.encode("utf-8", "surrogateescape"))

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret(), f"{purpose}:{text}".encode(), sha256).hexdigest()
