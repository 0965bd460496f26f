"""The error tree of Wardrobe.

    WardrobeError             anything that Wardrobe refuses or cannot do
    ├── UsageError            the call itself is malformed                      400, exit 2
    ├── InvalidName           a name that cannot exist                          400, exit 2
    ├── JobRefused            what a fine-tuning job's state does not allow     400, exit 2
    ├── InvalidAdapter        an adapter that must not become a version         422, exit 1
    ├── NotFound              no such adapter, version, alias or key            404, exit 1
    ├── Conflict              the present state forbids it                      409, exit 1
    ├── Quarantined           a version that may not be served                  409, exit 1
    ├── ClaimLost             a worker whose job another one has in hand         409, exit 1
    ├── Unproved              a version without what is required of it          409, exit 1
    ├── NotServable           a version that this server cannot answer with now 503, exit 1
    ├── Denied                no key, a wrong key, or a missing scope           401/403, exit 1
    ├── LimitExceeded         a size or a rate over a limit                     413/429, exit 1
    ├── CorruptStore          files under the root that break its rules         500, exit 1
    ├── StorageFailed         the file system refused: read-only, denied, …     507, exit 1
    │   ├── DiskFull          no room, or over the quota                        507, exit 1
    │   ├── Missing           a file or folder that is not there                500, exit 1
    │   ├── Occupied          a name that something else has                    500, exit 1
    │   └── RootAway          the root that was opened is not there any more    503, exit 1
    └── UnsafeRoot            a root that cannot hold a store safely            500, exit 1

A new class is added only where a caller must tell it apart, or where its HTTP status differs. Every
error carries a subject, the fact, and the remedy; it is printed as `error: subject: fact; remedy`.
"""

from __future__ import annotations

from registry.spelling import spelled

CONTINUED = "\n       "
"""Between the facts of one error that tells several: each starts under the first, behind `error: `."""


class WardrobeError(Exception):
    """A failure that no other code tells of; the server's log has the reason.

    Every error is a subject, a fact and a remedy. `subject` names the thing (`support@3`, a path, a field),
    `fact` states what was found and the limit it breaks, `remedy` says what to do; an empty remedy is left
    out. `param` names the request field or option at fault, for OpenAI-shaped errors.
    """

    http_status = 500
    exit_code = 1
    type = "server_error"
    code = "wardrobe_error"

    def __init__(self, subject: str, fact: str, remedy: str = "", *, param: str | None = None) -> None:
        # They may hold the name of a file, and go into JSON.
        self.subject, self.fact, self.remedy = spelled(subject), spelled(fact), spelled(remedy)
        self.param = param
        super().__init__(self.subject, self.fact, self.remedy)

    def __str__(self) -> str:
        text = f"{self.subject}: {self.fact}" if self.subject else self.fact
        return f"{text}; {self.remedy}" if self.remedy else text


class UsageError(WardrobeError):
    """A call that is malformed: wrong option, wrong field, unknown setting."""

    http_status = 400
    exit_code = 2
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidName(UsageError):
    """A name that no adapter or alias can have."""

    code = "invalid_name"


class JobRefused(UsageError):
    """Something that a fine-tuning job's state does not allow."""

    # 400, not 409: OpenAI's clients send a 409 again.
    code = "job_refused"


class InvalidAdapter(WardrobeError):
    """A folder that must not become a version; `reason` is one of the metric's closed set.

    Reasons: bad_config, rank, base_mismatch, digest, pickle, path, nan, modules, size, shape, header.
    """

    http_status = 422
    type = "invalid_request_error"
    code = "invalid_adapter"

    def __init__(
        self, subject: str, fact: str, remedy: str = "", *, reason: str, param: str | None = None
    ) -> None:
        super().__init__(subject, fact, remedy, param=param)
        self.reason = reason


class NotFound(WardrobeError):
    """An adapter, version, alias, file or key that does not exist."""

    http_status = 404
    type = "invalid_request_error"
    code = "not_found"


class Conflict(WardrobeError):
    """A change that the present state forbids, or that somebody else won."""

    http_status = 409
    type = "invalid_request_error"
    code = "conflict"


class Quarantined(Conflict):
    """A version that may not be served; the fact holds the recorded reason."""

    code = "quarantined"


class ClaimLost(Conflict):
    """A write of a worker that no longer has the job in hand, or for a state that somebody else changed."""

    code = "claim_lost"


class Unproved(Conflict):
    """A version that lacks what is required before `stable` may move to it; the fact says what."""

    code = "unproved"


class NotServable(WardrobeError):
    """A version that this server cannot answer with now (not loaded, no proof, no room)."""

    http_status = 503
    code = "not_servable"


class Denied(WardrobeError):
    """A request without a valid key."""

    http_status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class LimitExceeded(WardrobeError):
    """A request, or a body, over a limit of size."""

    http_status = 413
    type = "invalid_request_error"
    code = "limit_exceeded"


class CorruptStore(WardrobeError):
    """Files under the root that break the rules of the store."""

    code = "corrupt_store"


class StorageFailed(WardrobeError):
    """A read or write that the file system refused; nothing half-written stays visible."""

    http_status = 507
    code = "storage_failed"


class DiskFull(StorageFailed):
    """A write for which the disk, or the quota, has no room."""

    code = "disk_full"


class Missing(StorageFailed):
    """A file or folder under the root that is not there."""

    http_status = 500
    code = "missing_file"


class Occupied(StorageFailed):
    """A name under the root that another file or folder has already."""

    http_status = 500
    code = "name_taken"


class RootAway(StorageFailed):
    """A root that is not where it was opened: unmounted, moved, or another one in its place."""

    http_status = 503
    code = "root_away"
    retry_after_seconds = 5


class UnsafeRoot(WardrobeError):
    """A root on which the atomic steps that the store needs do not work."""

    code = "unsafe_root"
