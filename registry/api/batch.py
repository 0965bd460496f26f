"""Many folders registered in one call: one `register` each, several at once.

Owns the order, the threads and what becomes of a refusal: it is that folder's alone. Invariants: every folder
that was begun is a whole version or none when this returns or raises; folders of one adapter get their
numbers in the order given.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event

from registry.api import documents as doc
from registry.api import operations
from registry.api.operation import Client
from registry.changes.publish import PublishRequest
from registry.errors import WardrobeError

_AT_ONCE = 4
"""Half of a registration waits for the disk or for the server, the other half is hashing."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of one folder: `published`, or the `error` that refused it."""

    request: PublishRequest
    published: doc.PublishedDocument | None
    error: WardrobeError | None = None

    @property
    def document(self) -> doc.RegisteredDocument:
        """The same as a document."""
        return doc.RegisteredDocument(
            adapter=self.request.adapter,
            folder=str(self.request.folder),
            published=self.published,
            error=None if self.error is None else doc.ErrorBody.of(self.error),
        )


def register_all(
    client: Client, requests: Sequence[PublishRequest], told: Callable[[Registered], object]
) -> list[Registered]:
    """Register every folder; return what became of each, in the order given, and tell of it as it happens.

    `told` is called by other threads. What raises anything but a refusal (Ctrl-C, a bug) ends the call once
    the folders that were begun are done; the others are left as they are.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, request in enumerate(requests):
        groups[request.adapter].append(index)
    found: dict[int, Registered] = {}
    stopping = Event()

    def run(indices: Iterable[int]) -> None:
        for index in indices:
            if stopping.is_set():
                return
            found[index] = _register(client, requests[index])
            told(found[index])

    with ThreadPoolExecutor(_workers(), "wardrobe-register") as pool:
        runs = [pool.submit(run, indices) for indices in groups.values()]
        try:
            _wait_for_all(runs)
        except BaseException:
            stopping.set()
            raise
    return [found[index] for index in range(len(requests))]


def _wait_for_all(runs: list[Future[None]]) -> None:
    done, _ = wait(runs, return_when=FIRST_EXCEPTION)
    for one in done:
        one.result()


def _register(client: Client, request: PublishRequest) -> Registered:
    try:
        return Registered(request, operations.register(client, request, lambda _: None))
    except WardrobeError as error:
        return Registered(request, None, error)


def _workers() -> int:
    return max(_AT_ONCE, 2 * (os.cpu_count() or 1))
