"""Who looks at the console: a session, what its key may do now, and what it is answered with.

Owns the cookie and the question whether somebody may look or act. Invariant: a role is what the key's and its
group's scopes say at this request, never what they said at the login.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from registry.entries.keyring import Caller, KeyRing
from registry.entries.rights import Scope
from registry.errors import Denied
from serve.console.entrance import HOME
from serve.console.sessions import LIFETIME_SECONDS, BrowserSession, BrowserSessions
from serve.control.caller import AdminCaller, Control
from serve.errors import KeysUnknown, ScopeMissing

COOKIE = "wardrobe_console"
TOKEN_FIELD = "change"  # noqa: S105  a field's name
"""The field of a form that holds the session's token."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks for a page; `fresh` is a session that the answer must bring."""

    caller: Caller
    session: BrowserSession
    token: str
    fresh: bool
    keys_in_use: bool

    @property
    def may_act(self) -> bool:
        """Return whether the buttons are there."""
        return self.caller.allows(Scope.ADMIN)

    def check_acts(self) -> None:
        """Pass when this viewer may change things.

        Raises: ScopeMissing.
        """
        if not self.may_act:
            raise _missing(self.caller, Scope.ADMIN)

    def asking(self, control: Control) -> AdminCaller:
        """Return what answers operations in this viewer's name."""
        return AdminCaller(control, self.caller.who)

    def context(self) -> Mapping[str, Any]:
        """Return what every page shows of a viewer."""
        return {
            "here": "",
            "who": self.caller.who,
            "may_act": self.may_act,
            "keys_in_use": self.keys_in_use,
            "token": self.token,
            "token_field": TOKEN_FIELD,
        }


class Viewers:
    """Finds out who asks; without keys everybody is `anonymous` and gets a session unasked."""

    def __init__(self, keys: KeyRing, sessions: BrowserSessions) -> None:
        self._keys = keys
        self._sessions = sessions

    def find(self, request: Request) -> Viewer | None:
        """Return who asks, who may look at least; None where there is no session, or it is over.

        Raises: ScopeMissing: the key may not look; KeysUnknown.
        """
        session, fresh = self._sessions.read(request.cookies.get(COOKIE, "")), False
        if not self._keys.enabled:
            if session is None:
                session, fresh = self._sessions.open(self._keys.anonymous.who), True
            caller: Caller | None = self._keys.anonymous
        else:
            self._check_fresh()
            caller = self._keys.caller(session.who) if session is not None else None
        if session is None or caller is None:
            return None
        _check_looks(caller)
        return Viewer(caller, session, self._sessions.token(session), fresh, self._keys.enabled)

    def check_sent(self, viewer: Viewer, token: str) -> None:
        """Pass when a form came from a page of this session.

        Raises: Denied (403).
        """
        if not self._sessions.brings(viewer.session, token):
            error = Denied("form", "is not one of this session", "open the page again and repeat it")
            error.http_status = 403
            error.code = "foreign_form"
            raise error

    def log_in(self, text: str) -> BrowserSession:
        """Return a new session for a key.

        Raises: Denied: it is none of ours; ScopeMissing: it may not look; KeysUnknown.
        """
        self._check_fresh()
        caller = self._keys.check(text.strip())
        if caller is None:
            raise Denied("key", "is unknown, expired or revoked", "make one with `wardrobe keys create`")
        _check_looks(caller)
        return self._sessions.open(caller.who)

    def log_out(self, viewer: Viewer) -> None:
        """End the session."""
        self._sessions.end(viewer.session)

    def _check_fresh(self) -> None:
        if self._keys.stale():
            fact = f"could not be renewed for {self._keys.age():.0f} s, and one may have been revoked"
            raise KeysUnknown("keys", fact, "check that the server can read keys/api and groups in its root")


def keep(response: Response, request: Request, session: BrowserSession) -> None:
    """Give a browser its session's cookie."""
    response.set_cookie(
        COOKIE,
        session.cookie,
        max_age=LIFETIME_SECONDS,
        path=HOME,
        secure=over_tls(request),
        httponly=True,
        samesite="strict",
    )


def forget(response: Response, request: Request) -> None:
    """Take a browser's cookie away."""
    response.delete_cookie(COOKIE, path=HOME, secure=over_tls(request), httponly=True, samesite="strict")


def over_tls(request: Request) -> bool:
    """Return whether the browser came over TLS, to this server or to a proxy before it."""
    return "https" in {request.url.scheme, request.headers.get("x-forwarded-proto", "").strip().lower()}


def _check_looks(caller: Caller) -> None:
    if not caller.allows(Scope.READ):
        raise _missing(caller, Scope.READ)


def _missing(caller: Caller, scope: Scope) -> ScopeMissing:
    if caller.key is None:
        subject, fact = "server", f"does not give the scope `{scope}` to the group `{caller.group.name}`"
        return ScopeMissing(subject, fact, "use a key whose group has it")
    fact = f"has no scope `{scope}` (its group is `{caller.group.name}`)"
    return ScopeMissing(f"key {caller.who}", fact, "log in with a key that has it")
