"""One request of a locust user, read as a stream, and told to locust as TTFT, TPOT and E2E.

Locust's own `iter_lines` waits for 1,024 bytes at a time and hides a connection that broke; here lines
are taken as they come. Names of the rows are `adapter|arm`, from the answer's own headers. Invariant: a
request is one event of locust's, its E2E; TTFT and TPOT are rows of locust's tables beside it and in no
total, else its aggregated row would count each request three times and mix seconds with milliseconds a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent

from loadtests.runner.plan import Planned, request_body, request_path
from loadtests.runner.reading import AnswerReader
from loadtests.runner.records import CANCELLED, ERROR, OK, RequestRecord

if TYPE_CHECKING:
    from locust.contrib.fasthttp import FastHttpSession, ResponseContextManager
    from locust.stats import RequestStats

    from loadtests.swarm.journal import SwarmJournal

_MILLI = 1_000.0


def ask(
    client: FastHttpSession, stats: RequestStats, journal: SwarmJournal, planned: Planned, key: str
) -> RequestRecord:
    """Send one planned request and return its record; locust is told, the journal keeps it."""
    scenario = journal.scenario
    now = journal.clock()
    at = now if journal.closed_loop else planned.at
    record = RequestRecord(planned.index, at, planned.model, planned.max_tokens, planned.stream, sent=now)
    reading = AnswerReader(record)
    journal.begin(record)
    limit = planned.cancel_after if planned.cancel_after is not None else scenario.timeout_seconds
    body = request_body(scenario, planned, planned.messages)
    with gevent.Timeout(limit, exception=False) as patience:
        done = False
        with client.post(
            request_path(scenario),
            data=body,
            headers=_headers(planned, key),
            name=planned.model,
            stream=True,
            catch_response=True,
        ) as response:
            try:
                _read(response, reading, journal)
                done = True
            except gevent.Timeout as timeout:
                if timeout is not patience:
                    raise
            if not done or isinstance(getattr(response, "error", None), gevent.Timeout):
                _out_of_time(record, planned, limit)
            reading.close(journal.clock())
            _tell(response, record)
    journal.keep(record)
    _tell_parts(stats, record)
    return record


def _headers(planned: Planned, key: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "x-session-id": f"locust-{planned.index}"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    if planned.cancel_after is not None:
        headers["connection"] = "close"  # its socket may hold half an answer and must not be used again
    return headers


def _read(response: ResponseContextManager, reading: AnswerReader, journal: SwarmJournal) -> None:
    raw = response._response  # noqa: SLF001 - the only way to its lines as they come
    if raw is None:
        error = getattr(response, "error", None)
        reading.record.fail(_kind(error), f"{type(error).__name__}: {error}")
        return
    reading.headers(int(response.status_code), response.headers or {})
    if response.status_code != 200 or not reading.record.stream:
        reading.whole(bytes(response.content or b""))
        return
    try:
        while line := raw.readline(b"\n"):
            reading.feed(bytes(line), journal.clock())
    except (OSError, ValueError, AssertionError, RuntimeError) as error:
        reading.record.fail("cut", f"{type(error).__name__}: {error}")
    except gevent.Timeout:
        raise
    except Exception as error:  # noqa: BLE001 - geventhttpclient's parser has errors of its own
        reading.record.fail("cut", f"{type(error).__name__}: {error}")


def _kind(error: object) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "unreachable" if isinstance(error, TimeoutError) else "reset"


def _out_of_time(record: RequestRecord, planned: Planned, limit: float) -> None:
    if planned.cancel_after is not None:
        record.outcome, record.error = CANCELLED, ""
    else:
        record.outcome = ""
        record.fail("timeout", f"no end after {limit:g} s")


def _tell(response: ResponseContextManager, record: RequestRecord) -> None:
    """Let locust's own event of this request be its E2E, named by who answered."""
    meta = response.request_meta
    meta["request_type"] = "CANCEL" if record.outcome == CANCELLED else "E2E"
    meta["name"] = _name(record)
    meta["response_time"] = (record.ended - record.at) * _MILLI
    meta["response_length"] = record.output_tokens
    meta["exception"] = None
    if record.outcome == ERROR:
        response.failure(f"{record.error}: {record.detail[:80]}")
    else:
        response.success()


def _tell_parts(stats: RequestStats, record: RequestRecord) -> None:
    """Add the times within an answer to rows of their own."""
    if record.outcome != OK or record.first is None:
        return
    _add(stats, "TTFT", record, record.first - record.at)
    if record.output_tokens > 1:
        _add(stats, "TPOT", record, (record.ended - record.first) / (record.output_tokens - 1))


def _add(stats: RequestStats, kind: str, record: RequestRecord, seconds: float) -> None:
    # Not by an event of locust's: each one is a request in its total.
    stats.get(_name(record), kind).log(seconds * _MILLI, record.output_tokens)


def _name(record: RequestRecord) -> str:
    return f"{record.adapter}|{record.arm}" if record.arm else record.adapter
