"""The way in and out: a key for a session."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from registry.errors import WardrobeError
from serve.console.entrance import HOME
from serve.console.forms import read_form
from serve.console.place import Console
from serve.console.rendering import page
from serve.console.viewers import Viewer, forget, keep
from serve.control.layer import public

_OURS = re.compile(rf"{HOME}(?:[/?][\x21-\x7e]*)?")
_UNKEPT = {"cache-control": "no-store"}


async def show_login(console: Console, request: Request) -> Response:
    """Ask for a key, where keys are in use."""
    if not console.parts.keys.enabled:
        return RedirectResponse(HOME, 303, _UNKEPT)
    return _page(request.query_params.get("next", ""))


async def take_login(console: Console, request: Request) -> Response:
    """Give a session for a key that may look."""
    target = HOME
    try:
        form = await read_form(request)
        target = form.text("next")
        if not console.parts.keys.enabled:
            return RedirectResponse(HOME, 303, _UNKEPT)
        session = console.viewers.log_in(form.text("key"))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told above the form
        return _page(target, public(error))
    response = RedirectResponse(_within(target), 303, _UNKEPT)
    keep(response, request, session)
    return response


async def log_out(console: Console, request: Request, viewer: Viewer) -> Response:
    """End the session."""
    console.viewers.log_out(viewer)
    response = RedirectResponse(f"{HOME}/login", 303, _UNKEPT)
    forget(response, request)
    return response


def _page(target: str, error: WardrobeError | None = None) -> Response:
    context = {"who": None, "error": error, "next": _within(target)}
    return page("login.html", context, 200 if error is None else error.http_status)


def _within(target: str) -> str:
    """Return where to go after the login: a page of the console, never another site."""
    return target if _OURS.fullmatch(target) else HOME
