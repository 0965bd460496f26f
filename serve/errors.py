"""The errors of the server, under the tree of `registry.errors`.

    NotFound
    ├── ModelNotFound        `model` names nothing that exists                  404
    ├── ResponseNotFound     a response that is not kept                        404
    ├── RouteNotFound        a path that is not on the allow-list               404
    └── TaskNotServed        a path that the base model cannot answer           404
    UsageError
    ├── BadBody              a request body that is not what we can route       400
    │   ├── FieldNotServed   a field that would be ignored                      400
    │   ├── PreviousNotFound a response to go on from that is not kept          400
    │   ├── ToolsNotServed   tools, and the engine parses no calls              400
    │   ├── TooComplex       one that holds more than a request may             400
    │   └── PromptTooLong    a prompt that no context of this model can hold    400
    ├── EncodedBody          a body that came compressed                        415
    ├── MalformedRequest     bytes that are no HTTP request                     400
    └── MethodNotAllowed     a known path with another method                   405
    Denied
    ├── ForeignHost          a request that was meant for another host          421
    ├── UpgradeRefused       a request for another protocol than HTTP           403
    └── ScopeMissing         a valid key that may not do this                   403
    LimitExceeded
    ├── TooManyRequests      over a limit on concurrency                        429
    │   ├── BudgetSpent      a key's feedback over what is kept in an hour      429
    │   └── LimitReached     over a limit of its group, or its key              429
    │       └── QuotaSpent   over its tokens of the day                         429
    ├── HeadTooLarge         a request's head over its limit                    431
    ├── TargetTooLong        a request's first line over it                     414
    └── TooManyConnections   more connections than are allowed                  503
    NotServable
    ├── LoadFailed           the version could not be loaded or proved          503
    ├── Busy                 no room, draining, not started: come back later    503
    ├── KeysUnknown          the keys could not be read for too long            503
    └── EngineDead           the engine died; the launcher restarts it          503
    WardrobeError
    ├── EngineFailed         an answer that broke off                           500
    ├── Forwarded            what vLLM refused or failed, in our words          4xx, 5xx
    ├── TooSlow              a head or a body that did not arrive in time       408
    └── TimedOut             over the limit on a request's total time           504

`retry_after_seconds` becomes the Retry-After header of an answer; `rejection` is the reason under which
the router counts it, from that metric's closed set.
"""

from __future__ import annotations

from registry.errors import Denied, LimitExceeded, NotFound, NotServable, UsageError, WardrobeError


class ModelNotFound(NotFound):
    """A `model` that names no base, adapter, version or alias."""

    code = "model_not_found"


class RouteNotFound(NotFound):
    """A path that this server does not serve."""

    code = "unknown_url"


class TaskNotServed(NotFound):
    """A known path that the base model cannot answer: it generates, or it only embeds and scores."""

    code = "task_not_supported"


class ResponseNotFound(NotFound):
    """A response that is not kept here (any more), or that another key was given."""

    code = "response_not_found"


class BadBody(UsageError):
    """A body that is no JSON object, or that holds a field we refuse."""

    code = "invalid_body"


class FieldNotServed(BadBody):
    """A field, or a kind of tool, that would be taken and ignored though it changes the answer."""

    code = "unsupported_parameter"


class ToolsNotServed(BadBody):
    """Tools, where the base's template or the settings allow none; the remedy says what is missing."""

    code = "tools_not_enabled"


class PreviousNotFound(BadBody):
    """A `previous_response_id` that is not kept; the conversation has to be sent whole."""

    code = "previous_response_not_found"


class TooComplex(BadBody):
    """A body with more nesting, values, messages, tools or grammar than a request may hold."""

    code = "body_too_complex"
    rejection = "body_too_complex"


class PromptTooLong(BadBody):
    """A prompt that is longer than the context; told by its characters alone where they cannot fit."""

    code = "context_length_exceeded"
    rejection = "prompt_too_long"


class EncodedBody(UsageError):
    """A body with a content-encoding: it would have to be unpacked before its size is known."""

    http_status = 415
    code = "unsupported_encoding"
    rejection = "bad_request"


class MalformedRequest(UsageError):
    """Bytes that are no HTTP request, or none that is served."""

    code = "malformed_request"


class MethodNotAllowed(UsageError):
    """A known path asked with a method that it does not have."""

    http_status = 405
    code = "method_not_allowed"


class ForeignHost(Denied):
    """A request whose Host is not this server: a page of another site may have sent it (DNS rebinding)."""

    http_status = 421
    type = "invalid_request_error"
    code = "foreign_host"
    rejection = "foreign_host"


class UpgradeRefused(Denied):
    """A request to go on in another protocol than HTTP."""

    http_status = 403
    type = "invalid_request_error"
    code = "upgrade_refused"


class ScopeMissing(Denied):
    """A valid key without the scope that the path needs."""

    http_status = 403
    type = "permission_error"
    code = "insufficient_scope"


class TooManyRequests(LimitExceeded):
    """A request over the limit on concurrency."""

    http_status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retry_after_seconds = 1
    rejection = "concurrency"


class BudgetSpent(TooManyRequests):
    """Feedback of a key over what is kept of it in an hour."""

    retry_after_seconds = 60
    rejection = "feedback_budget"


class LimitReached(TooManyRequests):
    """A request over what its group, or its key, may use in a minute or at once; `type` says of what.

    `headers` tell how much is left of what.
    """

    rejection = "group_limit"

    def __init__(self, subject: str, fact: str, remedy: str = "") -> None:
        super().__init__(subject, fact, remedy)
        self.headers: list[tuple[bytes, bytes]] = []


class QuotaSpent(LimitReached):
    """A request over the tokens that its group, or its key, may use in a day (UTC)."""

    type = "insufficient_quota"
    code = "insufficient_quota"


class HeadTooLarge(LimitExceeded):
    """A head with more bytes or more lines than a request may have."""

    http_status = 431
    code = "head_too_large"


class TargetTooLong(LimitExceeded):
    """A first line that is longer than a whole head may be."""

    http_status = 414
    code = "target_too_long"


class TooManyConnections(LimitExceeded):
    """A connection beyond those that are allowed, all of which are at work."""

    http_status = 503
    type = "server_error"
    code = "too_many_connections"
    retry_after_seconds = 1


class LoadFailed(NotServable):
    """A version that could not be loaded or proved; it is tried again later, alone."""

    code = "load_failed"
    retry_after_seconds = 10


class Busy(NotServable):
    """A server that takes no new work now; `rejection` says why, from the metric's closed set."""

    code = "server_is_overloaded"
    retry_after_seconds = 1

    def __init__(self, subject: str, fact: str, remedy: str = "", *, rejection: str) -> None:
        super().__init__(subject, fact, remedy)
        self.rejection = rejection


class KeysUnknown(NotServable):
    """Keys that could not be read for so long that one may have been revoked; nobody is let in."""

    code = "keys_unknown"
    retry_after_seconds = 5
    rejection = "keys_unknown"


class EngineDead(NotServable):
    """An engine that has died; the launcher is about to restart the process."""

    code = "engine_dead"
    retry_after_seconds = 5
    rejection = "engine_busy"


class EngineFailed(WardrobeError):
    """An answer that the engine's side did not begin or did not finish; its log says why."""

    code = "engine_error"


class TooSlow(WardrobeError):
    """A head or a body that did not arrive in time; the rest of it is not waited for."""

    http_status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    rejection = "too_slow"


class TimedOut(WardrobeError):
    """A request over the limit on its total time."""

    http_status = 504
    code = "timeout"


class ClientLeft(Exception):
    """Raised when the client went away before it was answered; nobody is there to be told anything."""


class Forwarded(WardrobeError):
    """What vLLM itself refused or failed, told with this server's types and codes; its status is vLLM's."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "",
        param: str | None = None,
        code: str = "invalid_request",
    ) -> None:
        super().__init__("", message, param=param)
        self.http_status = status
        self.type = kind or ("invalid_request_error" if status < 500 else "server_error")
        self.code = code


_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_type(status: int) -> str:
    """Return the `type` of an error with this status in Anthropic's protocol."""
    return _ANTHROPIC.get(status) or ("invalid_request_error" if status < 500 else "api_error")
