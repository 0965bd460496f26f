"""Webhooks: a message to people's chat or to a program whenever a rollout changes its state.

Owns the message (Slack-compatible: `text`, and ours under `rollout`), its delivery in order per URL from
threads of their own, and the retries. Invariants: `notify` never blocks and never raises; a URL is never
logged beyond its host, since its path is often the secret; nothing is delivered twice on success.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from registry.records import RolloutEntry
from serve.rollout.display.explain import standing
from serve.rollout.documents import version_name

if TYPE_CHECKING:
    from pydantic import JsonValue

VARIABLE = "WARDROBE_WEBHOOKS"
"""URLs for every rollout, separated by spaces or commas; a policy may name more."""

QUEUE_SIZE = 100
MAX_URLS = 16
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_TIMEOUT = httpx.Timeout(5.0)
_CLOSE_SECONDS = 3.0
_THREAD = "wardrobe-webhook"

_log = logging.getLogger("wardrobe.rollout")


class WebhookNotifier:
    """Tells webhooks of changes of state; close it to wait shortly for what is under way."""

    def __init__(
        self,
        urls: Sequence[str] | None = None,
        *,
        backoff_seconds: Sequence[float] = BACKOFF_SECONDS,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self._urls = tuple(from_environment() if urls is None else urls)
        self._backoff = tuple(backoff_seconds)
        self._queue_size = queue_size
        logging.getLogger("httpx").addFilter(_is_not_ours)
        self._channels: dict[str, _Channel] = {}
        self._lock = threading.Lock()

    def notify(self, before: RolloutEntry | None, after: RolloutEntry) -> None:
        """Send word of a change of state to every webhook; returns at once. Other changes are silent."""
        if before is not None and (before.rollout, before.state) == (after.rollout, after.state):
            return
        try:
            body = message(before, after)
            for url in dict.fromkeys((*self._urls, *_of_policy(after.policy))):
                self._put(url, body)
        except Exception:  # noqa: BLE001 - a chat must not stop a rollback
            _log.exception("a webhook could not be prepared")

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Wait up to `seconds` for messages under way, then let go of the rest."""
        with self._lock:
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.finish()
        deadline = time.monotonic() + seconds
        for channel in channels:
            channel.join(max(0.0, deadline - time.monotonic()))

    def _put(self, url: str, body: dict[str, JsonValue]) -> None:
        if not _is_web(url):
            _log.warning("a webhook was not sent: it is not an http or https URL")
            return
        with self._lock:
            channel = self._channels.get(url)
            if channel is None:
                if len(self._channels) >= MAX_URLS:
                    _log.warning("webhook %s was not sent: %d others are in use", host_of(url), MAX_URLS)
                    return
                channel = self._channels[url] = _Channel(url, self._backoff, self._queue_size)
        channel.put(body)


class _Channel:
    """One URL: its messages in order, delivered by a thread of its own."""

    def __init__(self, url: str, backoff: Sequence[float], size: int) -> None:
        self._url = url
        self._backoff = backoff
        self._queue: queue.Queue[dict[str, JsonValue] | None] = queue.Queue(size)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)
        self._thread.start()

    def put(self, body: dict[str, JsonValue]) -> None:
        try:
            self._queue.put_nowait(body)
        except queue.Full:
            _log.warning("webhook %s does not keep up; a message was dropped", host_of(self._url))

    def finish(self) -> None:
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            self._stopping.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        self._stopping.set()
        if self._thread.is_alive():
            _log.warning("webhook %s did not answer in time; it may not have been told", host_of(self._url))

    def _run(self) -> None:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
            while not self._stopping.is_set():
                body = self._queue.get()
                if body is None:
                    return
                try:
                    deliver(client, self._url, body, self._backoff, self._stopping.wait)
                except Exception as error:  # noqa: BLE001 - one message must not end the channel
                    _log.warning("webhook %s failed: %s", host_of(self._url), type(error).__name__)


def deliver(
    client: httpx.Client,
    url: str,
    body: Mapping[str, JsonValue],
    backoff: Sequence[float],
    wait: Callable[[float], bool],
) -> bool:
    """Post `body`, again after each of `backoff` seconds; return whether it was taken.

    `wait(seconds)` is True when nobody needs the delivery any more. A refusal by the receiver (4xx but
    for 408 and 429) is final.
    """
    fault = ""
    for pause in (*backoff, None):
        try:
            # Only the head counts: a body that trickles would hold the channel for ever.
            with client.stream("POST", url, json=body) as answer:
                status = answer.status_code
            fault = f"it answered {status}"
            if status < 300:
                return True
            if status < 500 and status not in {408, 429}:
                break
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fault = type(error).__name__  # its text may hold the URL
        if pause is None or wait(pause):
            break
    _log.warning("webhook %s was not delivered: %s", host_of(url), fault)
    return False


def message(before: RolloutEntry | None, after: RolloutEntry) -> dict[str, JsonValue]:
    """Return what is posted: `text` for people, and the change in fields under `rollout`."""
    same = before is not None and before.rollout == after.rollout
    previous = before.state if same and before is not None else ""
    canary, stable = version_name(after.adapter, after.canary), version_name(after.adapter, after.stable)
    way = f"{previous} → " if previous else ""
    now = standing(after.state, after.weight)
    text = f"{canary} (stable {stable}): {way}{now}. {after.sentence}".rstrip()
    return {
        "text": text,
        "rollout": {
            "adapter": after.adapter,
            "rollout": after.rollout,
            "seq": after.seq,
            "state": after.state,
            "previous": previous,
            "stable": stable,
            "canary": canary,
            "weight": after.weight,
            "step": after.step,
            "event": after.event,
            "reason": after.reason,
            "sentence": after.sentence,
            "who": after.who,
            "at": after.at,
        },
    }


def from_environment() -> list[str]:
    """Return the URLs of `WARDROBE_WEBHOOKS`."""
    return [url for url in re.split(r"[\s,]+", os.environ.get(VARIABLE, "")) if url]


def host_of(url: str) -> str:
    """Return the part of a URL that may be logged."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"


def _is_not_ours(record: logging.LogRecord) -> bool:
    # httpx logs the whole URL of each request.
    return record.threadName != _THREAD


def _of_policy(policy: Mapping[str, JsonValue]) -> list[str]:
    urls = policy.get("webhooks")
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list | tuple) else []


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False
