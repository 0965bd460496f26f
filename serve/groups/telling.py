"""Limits as clients are told of them: headers of answers, and the 429 of what was refused.

OpenAI's `x-ratelimit-…` and Anthropic's `anthropic-ratelimit-…` have one place for tokens and several limits
to tell of: they tell of the one of which least is left. Figures are this replica's part of a limit.
"""

from __future__ import annotations

import math
import time

from serve.errors import LimitReached, QuotaSpent
from serve.groups.accounts import DAY, INPUT, OUTPUT, REQUESTS, WORDS, LimitRefusal, Meter
from serve.protocol.paths import Dialect

WAIT_HEADER = b"retry-after-ms"
"""On a 429 of a limit that will let the request in, and on no other."""

Lines = list[tuple[bytes, bytes]]

_TOKENS = (INPUT, OUTPUT, DAY)
_ANTHROPIC = {INPUT: b"input-tokens", OUTPUT: b"output-tokens"}


def headers_of(meters: tuple[Meter, ...], now: float, dialect: Dialect) -> Lines:
    """Return what an answer tells of the limits of who asked."""
    requests = tokens = None
    least_requests = least_tokens = 0
    for meter in meters:
        measure = meter.measure
        if measure in _TOKENS:
            room = meter.room(now)
            if tokens is None or room < least_tokens:
                tokens, least_tokens = meter, room
        elif measure == REQUESTS:
            room = meter.room(now)
            if requests is None or room < least_requests:
                requests, least_requests = meter, room
    lines: Lines = []
    if dialect is Dialect.MESSAGES:
        _tell_anthropic(lines, b"requests", requests, now)
        _tell_anthropic(lines, b"tokens", tokens, now)
        for meter in meters:
            if meter.measure in _ANTHROPIC:
                _tell_anthropic(lines, _ANTHROPIC[meter.measure], meter, now)
        return lines
    if requests is not None:
        lines += (
            (b"x-ratelimit-limit-requests", b"%d" % requests.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % max(0, least_requests)),
            (b"x-ratelimit-reset-requests", duration(requests.reset(now))),
        )
    if tokens is not None:
        lines += (
            (b"x-ratelimit-limit-tokens", b"%d" % tokens.limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % max(0, least_tokens)),
            (b"x-ratelimit-reset-tokens", duration(tokens.reset(now))),
        )
    return lines


def _tell_anthropic(lines: Lines, name: bytes, meter: Meter | None, now: float) -> None:
    if meter is None:
        return
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(time.time() + meter.reset(now))))
    lines.append((b"anthropic-ratelimit-%b-limit" % name, b"%d" % meter.limit))
    lines.append((b"anthropic-ratelimit-%b-remaining" % name, b"%d" % max(0, meter.room(now))))
    lines.append((b"anthropic-ratelimit-%b-reset" % name, at.encode()))


def duration(seconds: float) -> bytes:
    """Return a duration as OpenAI writes it, in whole seconds: `12s`, `3m20s`, `19h0m5s`."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, rest)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest


def refused(refusal: LimitRefusal, meters: tuple[Meter, ...], now: float, dialect: Dialect) -> LimitReached:
    """Return the error of a request that was not let in."""
    measure, words = refusal.measure, WORDS[refusal.measure]
    if refusal.hopeless:
        fact = f"allows {refusal.limit} {words} on this server, and this request may use {refusal.needed}"
        remedy = "ask for a shorter answer (max_tokens) or send less at once"
    else:
        fact = (
            f"has {refusal.room} of {refusal.limit} {words} left, and this request may use {refusal.needed}"
        )
        remedy = f"try again in {_words(refusal.wait_seconds)}"
        if measure in _TOKENS:
            remedy += ", or ask for a shorter answer (max_tokens)"
    make = QuotaSpent if measure == DAY else LimitReached
    error = make(refusal.owner, fact, remedy)
    if make is LimitReached:
        error.type = "tokens" if measure in _TOKENS else "requests"
    error.retry_after_seconds = max(1, math.ceil(refusal.wait_seconds))
    error.headers = headers_of(meters, now, dialect)
    if not refusal.hopeless:
        error.headers.append((WAIT_HEADER, b"%d" % max(1, math.ceil(refusal.wait_seconds * 1_000))))
    if refusal.hopeless or measure == DAY:
        # Clients would send it again by themselves, to the same end.
        error.headers.append((b"x-should-retry", b"false"))
    return error


def _words(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds < 7_200:
        return f"{math.ceil(seconds / 60)} min"
    return f"{math.ceil(seconds / 3_600)} h"
