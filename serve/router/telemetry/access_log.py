"""One log line per request: who answered, how it ended, how long it took, how many tokens. No prompts.

A line of JSON has the fields; a line of text is for eyes. Kept where `access_log` is on.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from serve.logs import FIELDS
from serve.router.telemetry.accounts import Account, RequestAccount

if TYPE_CHECKING:
    from pydantic import JsonValue

_log = logging.getLogger("wardrobe.access")


class AccessLog:
    """A keeper that logs each request at its end."""

    def __init__(self) -> None:
        # Independent of `log_level`: it is on or off by a setting of its own.
        _log.setLevel(logging.INFO)

    def begin(self, request: RequestAccount) -> None:
        """Wait for its end."""

    def forward(self, request: RequestAccount, headers: list[tuple[bytes, bytes]]) -> None:
        """Change nothing."""

    def end(self, request: RequestAccount) -> None:
        """Log it."""
        fields = access_fields(request, monotonic() - request.began)
        _log.info("%s", _sentence(request, fields), extra={FIELDS: fields})


def access_fields(request: RequestAccount, seconds: float) -> dict[str, JsonValue]:
    """Return the fields of a request's line; what is not known is left out."""
    fields: dict[str, JsonValue] = {
        "operation": request.operation,
        "status": request.status,
        "outcome": request.outcome,
        "seconds": round(seconds, 6),
        "request_id": request.request_id,
        "id": request.inner_id,
        "key": request.who,
        "reason": request.reason,
        "trace_id": request.trace_id,
    }
    if request.last is not None:
        fields |= _answered(request.last)
    if len(request.tries) > 1:
        fields["rescued_from"] = request.tries[0].model
    return {name: value for name, value in fields.items() if value not in {"", None}}


def _answered(account: Account) -> dict[str, JsonValue]:
    fields: dict[str, JsonValue] = {
        "adapter": account.adapter,
        "version": account.version,
        "arm": account.arm,
        "stream": account.stream,
        "finish": account.finish,
        "ttft_seconds": None if account.first_token is None else round(account.first_token, 6),
    }
    if account.usage is not None:
        fields["input_tokens"] = account.usage.input
        fields["output_tokens"] = account.usage.output
        fields["cached_tokens"] = account.usage.cached
    return fields


def _sentence(request: RequestAccount, fields: dict[str, JsonValue]) -> str:
    last = request.last
    who = f"{last.model} {last.arm}" if last is not None else request.reason
    tokens = f" {last.usage.input}+{last.usage.output} tokens" if last is not None and last.usage else ""
    return f"{request.operation} {who} {request.status} {request.outcome} {fields['seconds']:.3f} s{tokens}"
