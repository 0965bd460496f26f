"""The console's application: its pages and their addresses, and what surrounds each answer.

Owns who is let in where; what a page shows is its own module's. Invariants: what is sent needs the session's
token and no foreign Origin; what is refused is a page with the sentence of the refusal; no answer leaves
without the headers of `SECURITY`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.errors import Denied, WardrobeError
from serve.console import acts, login
from serve.console.entrance import HOME
from serve.console.files import send_asset
from serve.console.forms import read_form
from serve.console.pages import adapters, changes, keys, overview, rollouts
from serve.console.place import Console, ConsoleParts
from serve.console.rendering import page
from serve.console.viewers import TOKEN_FIELD, Viewer, keep
from serve.control.layer import ApiLayer, public
from serve.errors import MethodNotAllowed, RouteNotFound

SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",  # with none a form's own Origin would be `null`
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_LINES = [(name.encode(), value.encode()) for name, value in SECURITY.items()]

PageHandler = Callable[[Console, Request, Viewer], Awaitable[Response]]

_PAGES: tuple[tuple[str, PageHandler], ...] = (
    ("", overview.show_overview),
    ("/live", overview.show_live),
    ("/traffic", overview.show_traffic),
    ("/pulse", overview.show_pulse),
    ("/adapters", adapters.show_adapters),
    ("/adapters/{name}", adapters.show_adapter),
    ("/adapters/{name}/{number:int}", adapters.show_version),
    ("/adapters/{name}/do/{word}", acts.show_act),
    ("/rollouts/{name}", rollouts.show_page),
    ("/rollouts/{name}/do/{word}", rollouts.show_act),
    ("/audit", changes.show_audit),
    ("/keys", keys.show_keys),
    ("/keys/{name}/do/{word}", keys.show_revoke),
)
_SENT: tuple[tuple[str, PageHandler], ...] = (
    ("/logout", login.log_out),
    ("/adapters/{name}/do/{word}", acts.take_act),
    ("/rollouts/{name}/do/{word}", rollouts.take_act),
    ("/keys/{name}/do/{word}", keys.take_revoke),
)


def build_console(parts: ConsoleParts) -> ASGIApp:
    """Return the console of one server process; it finds out itself who asks."""
    console = Console(parts)
    routes = [
        Route(f"{HOME}/assets/{{name}}", send_asset),
        Route(f"{HOME}/login", partial(login.show_login, console), methods=["GET"]),
        Route(f"{HOME}/login", partial(login.take_login, console), methods=["POST"]),
        *(Route(f"{HOME}{path}", _let_in(console, handler), methods=["GET"]) for path, handler in _PAGES),
        *(Route(f"{HOME}{path}", _let_in(console, handler), methods=["POST"]) for path, handler in _SENT),
    ]
    handlers = {HTTPException: _unrouted, WardrobeError: _refused}
    pages = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]  # its handlers take any Exception
    pages.router.redirect_slashes = False
    layer = ApiLayer(pages, reads_itself=lambda _method, _path: False, answer=error_page)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_LINES]}
            await send(message)

        await layer(scope, receive, secured)

    return answer


def error_page(error: WardrobeError, viewer: Viewer | None = None) -> Response:
    """Return a refusal as a page, its sentence in it."""
    context = {"error": error, "who": None} if viewer is None else {**viewer.context(), "error": error}
    response = page("error.html", context, error.http_status)
    if error.http_status in {408, 413}:
        response.headers["connection"] = "close"
    return response


def _let_in(console: Console, handler: PageHandler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        viewer = None
        try:
            viewer = console.viewers.find(request)
            if viewer is None:
                return _to_login(request)
            if request.method == "POST":
                console.viewers.check_sent(viewer, (await read_form(request)).text(TOKEN_FIELD))
            response = await handler(console, request, viewer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told as a page
            response = error_page(public(error), viewer)
        if viewer is not None and viewer.fresh:
            keep(response, request, viewer.session)
        return response

    return endpoint


def _to_login(request: Request) -> Response:
    if request.method not in {"GET", "HEAD"} or "hx-request" in request.headers:
        # A part of a page that is asked for again and again; the page goes to the login as a whole.
        return error_page(Denied("session", "there is none, or it is over", "log in with a key"))
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = f"{HOME}/login" + (f"?next={quote(path, safe='')}" if path != HOME else "")
    return RedirectResponse(target, 303, {"cache-control": "no-store"})


async def _refused(_: Request, error: WardrobeError) -> Response:
    return error_page(public(error))


async def _unrouted(request: Request, error: HTTPException) -> Response:
    refusal: WardrobeError = RouteNotFound(request.url.path, "is no page of the console", f"open {HOME}")
    if error.status_code == 405:
        refusal = MethodNotAllowed(request.url.path, f"has no {request.method}", f"open {HOME}")
    return error_page(refusal)
