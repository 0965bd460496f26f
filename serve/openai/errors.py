"""Refusals as OpenAI words them: status, type, code, param and message that its clients know.

Owns the way from what pydantic finds wrong to those words, and what every answer of an error carries.
Invariant: a client is told not to try again where trying again cannot help, so a create is never made twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from registry.api.documents import ErrorBody, ErrorDocument
from registry.errors import CorruptStore, StorageFailed, WardrobeError
from registry.tuning.graders import KINDS
from registry.wording import fact_of
from serve.control.layer import error_response, public
from serve.errors import MethodNotAllowed, RouteNotFound
from serve.openai.ranges import range_fact

_log = logging.getLogger("wardrobe.openai")

_HOPELESS = frozenset({409, 500, 501, 504, 507})
"""OpenAI's clients send these again by themselves: a create would be made twice, a full disk stays full."""

_UNREADABLE = "We could not parse the JSON body of your request."

_CODELESS = frozenset({"not_found", "invalid_request", "invalid_body"})
"""Codes of ours where OpenAI's own answers have none."""

_TYPES = {
    "string_type": "a string", "int_type": "an integer", "int_parsing": "an integer",
    "int_from_float": "an integer", "float_type": "a number", "float_parsing": "a number",
    "bool_type": "a boolean", "bool_parsing": "a boolean", "dict_type": "an object",
    "model_type": "an object", "model_attributes_type": "an object", "list_type": "an array",
    "tuple_type": "an array",
}  # fmt: skip
_FOUND: Sequence[tuple[type, str]] = (
    (bool, "a boolean"), (int, "an integer"), (float, "a number"), (str, "a string"), (dict, "an object"),
    (list, "an array"), (type(None), "null"),
)  # fmt: skip


class RequestRefused(WardrobeError):
    """A request that is refused in OpenAI's own words; `reason` is its `code`, None where OpenAI has none."""

    http_status = 400
    exit_code = 2
    type = "invalid_request_error"

    def __init__(
        self, message: str, *, param: str | None = None, reason: str | None = None, status: int = 400
    ) -> None:
        super().__init__("", message, param=param)
        self.http_status = status
        self.reason = reason


def answer_error(error: WardrobeError) -> JSONResponse:
    """Return the answer that tells a client of `error`."""
    found = error_response(error)
    code = error.reason if isinstance(error, RequestRefused) else error.code
    body = ErrorBody(
        message=_told(error), type=error.type, param=error.param, code=None if code in _CODELESS else code
    )
    headers = {name: value for name, value in found.headers.items() if name in {"connection", "retry-after"}}
    if error.http_status in _HOPELESS:
        headers["x-should-retry"] = "false"
    if error.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(ErrorDocument(error=body).model_dump(), error.http_status, headers)


def _told(error: WardrobeError) -> str:
    """Return what a client is told: of the disk what is wrong, and not where a file lies."""
    if isinstance(error, StorageFailed | CorruptStore):
        return f"storage: {error.fact}; the server's log has the place"
    return str(error)


def add_refusals(app: FastAPI) -> None:
    """Answer our own refusals, validation errors and unknown routes of `app` as OpenAI would."""

    @app.exception_handler(WardrobeError)
    async def refused(_: Request, error: WardrobeError) -> JSONResponse:
        if isinstance(error, StorageFailed):
            _log.error("a request failed: %s", error)
        return answer_error(public(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer_error(refusal_of(error.errors()[0]))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> JSONResponse:
        shown = f"{request.method} {request.url.path}"
        if error.status_code == 405:
            return answer_error(MethodNotAllowed(shown, "does not allow this method"))
        if error.status_code != 404:  # a body that is not even text
            return answer_error(RequestRefused(_UNREADABLE))
        return answer_error(RouteNotFound(shown, "is not a path here"))


def refusal_of(fault: Mapping[str, Any]) -> RequestRefused:
    """Return what OpenAI says of the first thing that pydantic finds wrong."""
    kind, where = str(fault["type"]), _path(fault["loc"])
    if kind == "json_invalid" or not where:
        return RequestRefused(_UNREADABLE)
    if kind == "missing":
        return RequestRefused(
            f"Missing required parameter: '{where}'.", param=where, reason="missing_required_parameter"
        )
    if kind == "extra_forbidden":
        return RequestRefused(f"Unknown parameter: '{where}'.", param=where, reason="unknown_parameter")
    if kind in _TYPES:
        fact = f"Invalid type for '{where}': expected {_TYPES[kind]}, but got {_kind(fault.get('input'))}."
        return RequestRefused(fact, param=where, reason="invalid_type")
    if kind in {"literal_error", "enum"}:
        allowed = str(fault.get("ctx", {}).get("expected", "")).replace(" or ", " and ")
        found = str(fault.get("input"))[:100]
        return RequestRefused(
            f"Invalid value: '{found}'. Supported values are: {allowed}.",
            param=where,
            reason="invalid_value",
        )
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _kind_refusal(f"{where}.type", fault.get("ctx", {}))
    bounds = range_fact(kind, fault.get("ctx", {}), fault.get("input"))
    if bounds is not None:
        return RequestRefused(f"Invalid '{where}': {bounds[0]}", param=where, reason=bounds[1])
    return RequestRefused(f"Invalid '{where}': {fact_of(fault)}.", param=where, reason="invalid_value")


def _kind_refusal(where: str, context: Mapping[str, Any]) -> RequestRefused:
    """Return the refusal of an object whose `type` is missing, or none that there is."""
    if "tag" not in context:
        fact = f"Missing required parameter: '{where}'."
        return RequestRefused(fact, param=where, reason="missing_required_parameter")
    fact = f"Invalid value: '{str(context['tag'])[:100]}'. Supported values are: {context['expected_tags']}."
    return RequestRefused(fact, param=where, reason="invalid_value")


def _path(place: Sequence[str | int]) -> str:
    """Return where in the request a fault lies, as `metadata.key` or `messages[0].role`."""
    parts = place[1:] if place and place[0] in {"body", "query", "path", "header"} else place
    text = ""
    for part in parts:
        if part in KINDS:  # by which pydantic tells the members of a union apart; no field is called so
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _kind(value: object) -> str:
    return next((name for kind, name in _FOUND if isinstance(value, kind)), "something else")
