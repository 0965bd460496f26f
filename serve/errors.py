"""The errors of the server, under the tree of `registry.errors`.

    NotFound
    ├── ModelNotFound        `model` names nothing that exists                  404
    └── RouteNotFound        a path that is not on the allow-list               404
    UsageError
    ├── BadBody              a request body that is not what we can route       400
    └── MethodNotAllowed     a known path with another method                   405
    Denied
    └── ScopeMissing         a valid key that may not do this                   403
    LimitExceeded
    └── TooManyRequests      over a limit on concurrency                        429
        └── BudgetSpent      a key's feedback over what is kept in an hour      429
    NotServable
    ├── LoadFailed           the version could not be loaded or proved          503
    ├── Busy                 no room, draining, not started: come back later    503
    ├── KeysUnknown          the keys could not be read for too long            503
    └── EngineDead           the engine died; the launcher restarts it          503
    WardrobeError
    ├── EngineFailed         an answer that broke off                           500
    └── TimedOut             over the limit on a request's total time           504

`retry_after_seconds` becomes the Retry-After header of an answer.
"""

from __future__ import annotations

from registry.errors import Denied, LimitExceeded, NotFound, NotServable, UsageError, WardrobeError


class ModelNotFound(NotFound):
    """A `model` that names no base, adapter, version or alias."""

    code = "model_not_found"


class RouteNotFound(NotFound):
    """A path that this server does not serve."""

    code = "unknown_url"


class BadBody(UsageError):
    """A body that is no JSON object, or that holds a field we refuse."""

    code = "invalid_body"


class MethodNotAllowed(UsageError):
    """A known path asked with a method that it does not have."""

    http_status = 405
    code = "method_not_allowed"


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


class TimedOut(WardrobeError):
    """A request over the limit on its total time."""

    http_status = 504
    code = "timeout"
