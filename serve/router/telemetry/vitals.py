"""What Prometheus is told about the replica itself: its engine, the registry as it sees it, its door.

All of it is asked at a scrape and nothing is counted on the way of a request. Invariant: a scrape reads no
disk and takes no lock; labels are words of ours and this replica's name.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.metrics_core import Metric

from registry.background import Background
from registry.views.view import AdapterView, View
from serve.exposition import counter, gauge
from serve.settings import HANGS_VARIABLE, RESTARTS_VARIABLE


class RegistryWatch(Protocol):
    """What is read of the registry's watcher."""

    @property
    def view(self) -> View:
        """The registry as it was last seen."""

    @property
    def problems(self) -> Mapping[str, str]:
        """Adapters that cannot be read, by name."""

    @property
    def last_success(self) -> float:
        """The `time.monotonic()` of the last look that could read the root."""


@dataclass(frozen=True, slots=True)
class AccessState:
    """Who may enter: `keys` is True once a key exists, `feedback` lines wait to be written.

    `age` is for how many seconds the keys have not been renewed.
    """

    keys: bool = False
    feedback: int = 0
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class EnginePulse:
    """Whether the engine counts as hung, and for how many seconds it has given no sign of life."""

    hung: bool = False
    age: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Vitals:
    """A collector over what the router holds; every callable is asked at each scrape."""

    replica: str
    watch: RegistryWatch
    alive: Callable[[], bool]
    ready: Callable[[], bool]
    drift: Callable[[], int]
    door: Callable[[], AccessState] = AccessState
    pulse: Callable[[], EnginePulse] = EnginePulse
    background: Background = field(default_factory=Background)
    problems: Callable[[], int] = int
    clock: Callable[[], float] = time.time

    def collect(self) -> Iterator[Metric]:
        """Yield the families, for a scrape."""
        mine, labels = (self.replica,), ("replica",)
        yield gauge("wardrobe_engine_up", "1 while the engine lives.", labels, [(mine, self.alive())])
        text = "1 while new requests are taken and what is pinned has been loaded."
        yield gauge("wardrobe_engine_ready", text, labels, [(mine, self.ready())])
        text = "Engines of this server that ended by themselves."
        yield counter("wardrobe_engine_restarts", text, labels, [(mine, restarts())])
        yield from self._signs_of_life()
        text = "Versions that should be loaded here and are not."
        yield gauge("wardrobe_reconcile_drift_adapters", text, labels, [(mine, self.drift())])
        door = self.door()
        text = "1 where a key is needed, 0 while anybody may enter."
        yield gauge("wardrobe_auth_required", text, (), [((), door.keys)])
        text = "Lines of feedback that wait to be written."
        yield gauge("wardrobe_feedback_waiting", text, (), [((), door.feedback)])
        text = "Seconds since the keys were last read, where a key is needed."
        yield gauge("wardrobe_keys_age_seconds", text, (), [((), door.age)] if door.keys else [])
        text = "What this replica cannot do now, though it serves; `wardrobe status` and /readyz say what."
        yield gauge("wardrobe_problems", text, labels, [(mine, self.problems())])
        yield from _work(self.background)
        yield from _registry(self.watch, self.clock())

    def _signs_of_life(self) -> Iterator[Metric]:
        mine, labels, pulse = (self.replica,), ("replica",), self.pulse()
        text = "1 while the engine counts as hung: it is about to be started again."
        yield gauge("wardrobe_engine_hung", text, labels, [(mine, pulse.hung)])
        text = "For how long the engine has given no sign of life; up to 1 is well."
        yield gauge("wardrobe_engine_pulse_age_seconds", text, labels, [(mine, pulse.age)])
        text = "Engines of this server that were ended because they hung."
        yield counter("wardrobe_engine_hangs", text, labels, [(mine, hangs())])

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: two routers in one process (tests) are no clash."""
        return iter(())


def restarts() -> int:
    """Return how many engines of this server ended before this one."""
    return _told(RESTARTS_VARIABLE)


def hangs() -> int:
    """Return how many of those had hung."""
    return _told(HANGS_VARIABLE)


def _told(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _work(background: Background) -> Iterator[Metric]:
    works = [work for _, work in sorted(background.works.items())]
    text = "Failures of work that goes on, such as renewing the keys; it is tried again."
    failures = [((work.name,), float(work.failures)) for work in works]
    yield counter("wardrobe_background_failures", text, ("task",), failures)
    text = "1 while such work fails or does not come to an end."
    states = [((work.name,), float(bool(work.state()))) for work in works]
    yield gauge("wardrobe_background_failing", text, ("task",), states)


def _registry(watch: RegistryWatch, now: float) -> Iterator[Metric]:
    adapters = watch.view.adapters.values()
    serving = sum(_serves(one) for one in adapters)
    rows = [(("serving",), float(serving)), (("idle",), float(len(adapters) - serving))]
    text = "Adapters: serving has a stable version or an open rollout."
    yield gauge("wardrobe_registry_adapters", text, ("state",), rows)
    proved = sum(len(one.proved & one.versions.keys()) for one in adapters)
    bad = sum(len(one.quarantined) for one in adapters)
    live = sum(len(one.versions) for one in adapters)
    rows = [(("live",), float(live)), (("proved",), float(proved)), (("quarantined",), float(bad))]
    text = "Versions: live can be asked for, proved has answered unlike the base, quarantined is refused."
    yield gauge("wardrobe_registry_versions", text, ("state",), rows)
    text = "Adapters that cannot be read; they are served as they were last seen."
    yield gauge("wardrobe_registry_problems", text, (), [((), float(len(watch.problems)))])
    if math.isfinite(watch.last_success):
        text = "When this replica last read the registry, UNIX seconds."
        seen = now - (time.monotonic() - watch.last_success)
        yield gauge("wardrobe_registry_last_success_timestamp_seconds", text, (), [((), seen)])


def _serves(adapter: AdapterView) -> bool:
    return adapter.rollout is not None or "stable" in adapter.aliases
