"""What a migration reads from: an account over HTTP, or a folder that was exported from one.

Owns what both give, and the names under which it may be kept. Invariant: an id that comes from outside is a
plain name before it becomes a file's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from registry.errors import UsageError, WardrobeError

JobDocument = Mapping[str, Any]
"""A fine-tuning job as OpenAI's API tells it."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class AccountFailed(WardrobeError):
    """Something that the account did not give; the other jobs are not concerned."""

    http_status = 502
    code = "account_failed"


class BrokenOff(AccountFailed):
    """A content that ended before its end; fetched anew it may be whole."""


class AccountAway(AccountFailed):
    """No answer at all: nothing else of the account can be asked for either."""


class JobSource(Protocol):
    """Where jobs, their files and the answers of their models come from."""

    def jobs(self) -> list[JobDocument]:
        """Return every fine-tuning job, the newest first.

        Raises: WardrobeError.
        """

    def content(self, file: str) -> Iterator[bytes]:
        """Yield the content of a file.

        Raises: NotFound: it was deleted; BrokenOff; WardrobeError.
        """


def plain_id(found: object, what: str) -> str:
    """Return an id of a job or file that may be a file's name.

    Raises: UsageError: it is none.
    """
    if isinstance(found, str) and _PLAIN.fullmatch(found):
        return found
    raise UsageError(f"{what} {str(found)[:80]!r}", "is not the id of one", "check where the jobs come from")
