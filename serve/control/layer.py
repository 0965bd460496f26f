"""The outermost layer of an API of ours: what is refused before any route, and what any failure looks like.

Owns the OpenAI shape of errors, the cap on the size and the nesting of bodies, and the refusal of requests
that a foreign web page makes a browser send (the router says which pages are known). The admin API has it as
it is; `serve.openai` has words of its own.
Invariant: every answer that is not a success has the shape `{"error": {"message", "type", "param", "code"}}`,
and none tells of the server's insides.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.api import operations
from registry.api.documents import ErrorBody, ErrorDocument
from registry.api.operation import PREFIX
from registry.errors import Denied, LimitExceeded, UsageError, WardrobeError
from registry.wording import fact_of
from serve.bounds.arrival import declared_bytes
from serve.bounds.structure import check_encoding, check_structure, check_surrogates
from serve.errors import MethodNotAllowed, RouteNotFound

MAX_JSON_BYTES = 1024 * 1024
MAX_NESTING = 64

_log = logging.getLogger("wardrobe.control")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_UPLOAD = re.compile(PREFIX + operations.register.path.format(name="[^/]+"))


class ApiLayer:
    """An ASGI layer around an API; `reads_itself(method, path)` says whose body is not capped here."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        reads_itself: Callable[[str, str], bool] | None = None,
        answer: Callable[[WardrobeError], Response] | None = None,
    ) -> None:
        self._app = app
        self._reads_itself = reads_itself or _is_upload
        self._answer = answer or error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            headers = Headers(scope=scope)
            if not scope.get("state", {}).get("known_origin", False):
                _refuse_foreign_page(scope["method"], headers)
            check_encoding(headers.get("content-encoding", "").encode("latin-1"))
            if not self._reads_itself(scope["method"], scope["path"]):
                receive = await _read_body(receive, headers.get("content-length", "").encode("latin-1"))
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as error:
            if started:
                raise
            await self._answer(public(error))(scope, receive, send)


def error_response(
    error: WardrobeError, headers: Mapping[str, str] | None = None, param: str | None = None
) -> JSONResponse:
    """Return the OpenAI-shaped answer for `error`; `param` is what the request calls the field at fault."""
    every = dict(headers or {})
    if error.http_status == 401:
        every["www-authenticate"] = "Bearer"
    if error.http_status in {408, 413}:
        # Else the server would go on reading, and throwing away, all that the client still sends.
        every["connection"] = "close"
    if error.http_status in {429, 503}:
        every["retry-after"] = str(getattr(error, "retry_after_seconds", 1))
    body = ErrorBody(message=str(error), type=error.type, param=param or error.param, code=error.code)
    return JSONResponse(ErrorDocument(error=body).model_dump(), error.http_status, every)


def add_handlers(app: FastAPI) -> None:
    """Answer our own refusals, validation errors and unknown routes in the OpenAI shape."""

    @app.exception_handler(WardrobeError)
    async def refused(request: Request, error: WardrobeError) -> JSONResponse:
        return error_response(public(error), param=_field(request, error.param))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"][1:]]
        param = ".".join(path) or str(first["loc"][0])
        return error_response(UsageError(param, fact_of(first), "see /admin/openapi.json", param=param))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> JSONResponse:
        subject = f"{request.method} {request.url.path}"
        refusal: WardrobeError
        if error.status_code == 404:
            refusal = RouteNotFound(subject, "is not served here", "see /admin/openapi.json")
        elif error.status_code == 405:
            refusal = MethodNotAllowed(subject, "does not allow this method", "see /admin/openapi.json")
        else:
            refusal = UsageError(subject, str(error.detail), "see /admin/openapi.json")
        return error_response(refusal, error.headers)


def _field(request: Request, param: str | None) -> str | None:
    """Return what the request calls the field at fault: `name` of a path is `adapter` in a body."""
    return "adapter" if param == "name" and "name" not in request.path_params else param


def public(error: Exception) -> WardrobeError:
    """Return what a client may know of `error`; the rest goes to the log."""
    if isinstance(error, WardrobeError) and error.http_status != 500:
        return error
    _log.error("a request failed", exc_info=error)
    if isinstance(error, WardrobeError):
        return error
    return WardrobeError("server", "failed unexpectedly", "its log has the reason")


def _refuse_foreign_page(method: str, headers: Headers) -> None:
    # Without keys (loopback only) any web page open in a local browser could send a form here.
    origin = headers.get("origin")
    if method in _SAFE_METHODS or origin is None:
        return
    if urlsplit(origin).netloc != headers.get("host"):
        error = Denied("origin", f"{origin!r} is not this server", "call it from its own host")
        error.http_status = 403
        error.code = "foreign_origin"
        raise error


def _is_upload(method: str, path: str) -> bool:
    """Return True for the one route whose body is larger, and is read by the route itself."""
    return method == "POST" and _UPLOAD.fullmatch(path) is not None


def _too_large() -> LimitExceeded:
    return LimitExceeded("body", f"is larger than {MAX_JSON_BYTES} bytes", "send a smaller one", param="body")


async def _read_body(receive: Receive, declared: bytes) -> Receive:
    """Read a whole small body and return a `receive` that gives it once more."""
    chunks: list[bytes] = []
    size = 0
    if declared_bytes(declared) > MAX_JSON_BYTES:
        raise _too_large()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_JSON_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            break
    body = b"".join(chunks)
    check_structure(body, MAX_NESTING, MAX_JSON_BYTES)
    check_surrogates(body)
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    return replay
