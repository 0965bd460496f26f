"""A router on a real uvicorn and a real root, with a fake engine and a fake application behind it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest

from registry.records import RolloutEntry, Version
from registry.store import Registry
from serve.connections.metrics import expose
from serve.connections.protocol import limited
from serve.groups.queue import FairQueue
from serve.rollout.policy import Policy, PolicyMetrics, RampStep
from serve.rollout.recording.recorder import Recorder
from serve.router.app import Router
from serve.router.runtime import Runtime
from serve.settings import EngineSettings, RequestLimits, ResidencySettings, ServeSettings
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.engine import FakeEngine
from tests.fakes.http_server import Server, running
from tests.fakes.inner import InnerApp
from tests.fakes.rollouts import make_entry
from tests.fakes.store import with_reserve

BASE = "tiny"
QUIET = Policy(
    name="quiet",
    steps=(RampStep(weight=5_000, min_units=1_000_000, min_seconds=86_400),),
    metrics=PolicyMetrics(errors=None, latency=None, feedback=None, format=None),
)
"""A policy that decides nothing while a test lasts."""


@dataclass(slots=True)
class Served:
    """One running server; `client` speaks to it over a real socket."""

    registry: Registry
    folder: Path
    engine: FakeEngine
    inner: InnerApp
    router: Router
    collectors: CollectorRegistry
    server: Server
    client: httpx.Client

    @property
    def runtime(self) -> Runtime:
        """Return the router's runtime."""
        assert self.router.runtime is not None
        return self.router.runtime

    def publish(self, adapter: str, seed: int, *, no_stable: bool = False) -> Version:
        """Publish a version with weights of its own and have it seen."""
        version = publish(self.registry, self.folder, adapter, seed, no_stable=no_stable)
        self.runtime.watcher.refresh()
        return version

    def open_rollout(
        self,
        policy: Policy | None = None,
        *,
        adapter: str = "support",
        document: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Recorder:
        """Open a rollout of an adapter, or move the open one, and return its evidence here.

        The server's own decisions are not asked for: what `changes` say is what is in force. `document`
        is written in place of the policy.
        """
        digests = {0: "", **{one.number: one.digest for one in self.registry.versions(adapter)}}

        def decide(last: RolloutEntry | None) -> RolloutEntry:
            entry = make_entry(policy or QUIET, adapter=adapter, **changes)
            return replace(
                entry,
                policy=document or entry.policy,
                seq=last.seq + 1 if last is not None else 1,
                stable_digest=digests[entry.stable],
                canary_digest=digests.get(entry.canary, ""),
            )

        entry = self.registry.append_rollout(adapter, decide)
        self.runtime.watcher.refresh()
        assert entry is not None
        return self.runtime.keeper.find(entry)

    def settled(self) -> None:
        """Wait until nothing is in flight any more."""
        still, inference = self.runtime.metrics.inflight, self.router._inference
        assert inference is not None
        wait_until(lambda: still() == inference.doubts.running == self.inner.running == 0, "all is settled")
        wait_until(lambda: self.seats.idle, "every seat is given back")

    @property
    def seats(self) -> FairQueue:
        """Return the queue before the engine."""
        assert self.router._inference is not None
        return self.router._inference.seating.queue

    def chat(self, model: str | None = "support", /, **fields: object) -> httpx.Response:
        """Ask for a chat completion."""
        messages = [{"role": "user", "content": "Hello"}]
        body = {"messages": messages, **({} if model is None else {"model": model}), **fields}
        return self.client.post("/v1/chat/completions", json=body)

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the present exposition, 0 when it is not there."""
        return self.collectors.get_sample_value(name, labels) or 0.0

    def outcomes(self, **labels: str) -> dict[str, float]:
        """Return how many requests ended how, over all labels that are not given."""
        found: dict[str, float] = {}
        for family in self.collectors.collect():
            for one in family.samples:
                if one.name == "wardrobe_inference_requests_total" and labels.items() <= one.labels.items():
                    found[one.labels["outcome"]] = found.get(one.labels["outcome"], 0) + one.value
        return found

    def exposition(self) -> str:
        """Return what Prometheus would scrape."""
        return generate_latest(self.collectors).decode()


def publish(registry: Registry, folder: Path, adapter: str, seed: int, *, no_stable: bool = False) -> Version:
    """Publish a right adapter whose weights `seed` decides."""
    source = make_adapter(folder / f"{adapter}-{seed}-{time.monotonic_ns()}", seed=seed)
    return registry.publish(adapter, source, who="tester", no_stable=no_stable).version


def make_root(folder: Path) -> Registry:
    """Make a root for the tiny base."""
    return Registry.init(with_reserve(folder / "root"), make_base(folder / "base"), name=BASE)


@contextlib.contextmanager
def serve(
    registry: Registry,
    folder: Path,
    *,
    engine: FakeEngine | None = None,
    inner: InnerApp | None = None,
    limits: RequestLimits | None = None,
    residency: ResidencySettings | None = None,
    engine_settings: EngineSettings | None = None,
    replica: str = "r1",
    **more: Any,
) -> Iterator[Served]:
    """Run a server until the block ends; its lifespan has started when the block begins.

    `more` are settings of the server.
    """
    engine = engine or FakeEngine(base_name=BASE)
    inner = inner or InnerApp()
    settings = ServeSettings(
        root=registry.root,
        replica=replica,
        limits=limits or RequestLimits(),
        residency=residency or ResidencySettings(),
        engine=engine_settings or EngineSettings(),
        **more,
    )
    collectors = CollectorRegistry()
    inner.expose = inner.expose or (lambda: generate_latest(collectors))
    router = Router(inner, settings=settings, engine_factory=lambda _: engine, collectors=collectors)
    protocol = limited(settings.connections)
    expose(protocol.census, collectors)
    config = uvicorn.Config(
        router,
        port=0,
        http=protocol,
        log_level="critical",
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    with running(Server(config)) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        yield Served(registry, folder, engine, inner, router, collectors, server, client)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)
