"""Delivery: each event to each receiver once, by one server of the root, again and again until it is taken.

Owns the order, the pauses between attempts and when an event is given up. `turn` is one look at what there is
to send; it blocks, and is called from a thread. Invariants: a URL is never logged beyond its host; what was
taken is not sent again; a receiver that hangs delays the others by `TIMEOUT_SECONDS` at most for each event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import httpx

from registry.entries.openai.deliveries import Deliveries, DeliveryEntry, DeliveryState
from serve.rollout.webhooks import host_of
from serve.tuning_settings import WebhookReceiver
from serve.webhooks.events import EventSource, WebhookEvent
from serve.webhooks.signing import sign

KEEP_SECONDS = 86_400.0
"""How long an event is sent: what ended longer ago is not, so a new receiver hears of a day at most."""
BACKOFF_SECONDS = (2.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0)
"""Pauses after failed attempts; the last one repeats until the event is a day old."""
TIMEOUT_SECONDS = 5.0
HOLD_SECONDS = 60.0
"""After so long a server that began a delivery and said no more counts as dead."""
MAX_PER_TURN = 50

_log = logging.getLogger("wardrobe.webhooks")


class WebhookSender:
    """Sends the events of `sources` to `receivers`; one per server process."""

    def __init__(
        self,
        deliveries: Deliveries,
        receivers: Sequence[WebhookReceiver],
        sources: Sequence[EventSource],
        *,
        who: str,
        clock: Callable[[], float] = time.time,
        patience: float = TIMEOUT_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._deliveries = deliveries
        self._receivers = tuple(receivers)
        self._sources = tuple(sources)
        self._who = who
        self._clock = clock
        self._patience = patience
        self._transport = transport
        self._done: dict[str, float] = {}

    @property
    def wanted(self) -> bool:
        """Return whether anybody is to be told."""
        return bool(self._receivers)

    def turn(self) -> int:
        """Send what is due, and return how many attempts were made.

        Raises: StorageFailed; CorruptStore.
        """
        since = self._clock() - KEEP_SECONDS
        self._done = {name: at for name, at in self._done.items() if at >= since}
        attempts = 0
        for source in self._sources:
            for event in source(since):
                for receiver in self._receivers:
                    if attempts < MAX_PER_TURN and receiver.wants(event.kind):
                        attempts += self._try(event, receiver)
        return attempts

    def tidy(self) -> None:
        """Forget the deliveries of events that are sent no more.

        Raises: StorageFailed.
        """
        self._deliveries.tidy(self._clock() - 2 * KEEP_SECONDS)

    def _try(self, event: WebhookEvent, receiver: WebhookReceiver) -> bool:
        delivery = event.delivery_to(receiver.url)
        if event.at < self._clock() - KEEP_SECONDS or delivery in self._done:
            return False
        begun = self._deliveries.begin(delivery, self._who, HOLD_SECONDS)
        if begun is None:
            last = self._deliveries.last(delivery)
            if last is not None and last.final:
                self._done[delivery] = event.at
            return False
        fault, hopeless = self._post(event, receiver)
        self._conclude(delivery, begun, receiver, fault, hopeless=hopeless)
        return True

    def _conclude(
        self, delivery: str, begun: DeliveryEntry, receiver: WebhookReceiver, fault: str, *, hopeless: bool
    ) -> None:
        now = self._clock()
        if not fault:
            self._deliveries.end(delivery, begun, DeliveryState.DELIVERED, now, "")
        elif hopeless:
            _log.warning("webhook %s was given up: %s", host_of(receiver.url), fault)
            self._deliveries.end(delivery, begun, DeliveryState.GIVEN_UP, now, fault)
        else:
            pause = BACKOFF_SECONDS[min(begun.attempts, len(BACKOFF_SECONDS)) - 1]
            _log.warning("webhook %s failed, again in %.0f s: %s", host_of(receiver.url), pause, fault)
            self._deliveries.end(delivery, begun, DeliveryState.WAITING, now + pause, fault)

    def _post(self, event: WebhookEvent, receiver: WebhookReceiver) -> tuple[str, bool]:
        """Return what went wrong, '' if nothing did, and whether another attempt would end the same way."""
        body = event.body()
        headers = {
            "content-type": "application/json",
            "user-agent": "wardrobe",
            **sign(receiver.secret.get_secret_value(), event.id, int(self._clock()), body),
        }
        try:
            status = asyncio.run(self._ask(receiver.url, body, headers))
        except TimeoutError:
            return f"it took longer than {self._patience:g} s", False
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__, False  # its text may hold the URL
        # Gone for good, by the specification; everything else may be a receiver that is being mended.
        return ("" if status < 300 else f"it answered {status}"), status == 410

    async def _ask(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status of the answer, whose body is nobody's business and may have no end."""
        # httpx limits each read, so a receiver that sends a byte now and then would hold it for ever.
        async with (
            asyncio.timeout(self._patience),
            httpx.AsyncClient(follow_redirects=False, transport=self._transport) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            return answer.status_code
