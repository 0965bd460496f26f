"""The APIs of ours beside the hot path: the admin API, and the platform endpoints put together.

Owns which routers the platform has; what each answers is its own package's business. FastAPI is imported
here only when a server starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from serve.batches.asking import LineAsker
from serve.batches.gate import Gate
from serve.batches.run import BatchTools
from serve.batches.runner import BatchRunner, holder_name
from serve.protocol.paths import PathKind
from serve.rollout.decision.inner import InnerClient
from serve.router.runtime import Runtime

if TYPE_CHECKING:
    from fastapi import FastAPI


def build_control(runtime: Runtime) -> ASGIApp:
    """Return the admin API of this process."""
    from serve.control.app import build_control as build

    return build(runtime.registry, runtime)


def build_platform(runtime: Runtime) -> ASGIApp:
    """Return the platform endpoints of this process."""
    from serve.openai.app import build_platform as build
    from serve.openai.asker import Platform

    return build(Platform(runtime.registry, runtime), _application())


def build_batches(runtime: Runtime, door: InnerClient, inflight: Callable[[], int]) -> BatchRunner:
    """Return what answers batches in this process by `door`; `inflight` says how many requests it has."""
    from serve.control.caller import Control

    settings, keys = runtime.settings.batches, runtime.keys
    tools = BatchTools(
        files=runtime.registry.catalogue.files,
        asker=LineAsker(door, lambda who: keys.lend(who) if keys.enabled else None),
        gate=Gate(settings, inflight, lambda: not runtime.draining and runtime.engine.alive()),
        on_disk=Control(runtime.registry, runtime).run,
        holder=holder_name(runtime.replica, os.getpid(), runtime.began),
        max_body_bytes=runtime.limits.max_body_bytes,
    )
    return BatchRunner(
        runtime.registry.catalogue.batches, tools, runtime.registry.replicas, lambda: runtime.draining
    )


def own_methods(kind: PathKind, path: str) -> tuple[str, ...]:
    """Return the methods of a path of the admin API or the platform, sorted; none where it is not served."""
    from serve.control.methods import control_methods, methods_of

    if kind is PathKind.ADMIN:
        return control_methods(path)
    return methods_of(_application(), path)


@cache  # The routes are the same for every server and take a while to build.
def _application() -> FastAPI:
    """Return the platform: files and uploads, and what other packages add."""
    from serve.batches.routes import router as batches
    from serve.openai.app import platform_application
    from serve.tuning.graders import router as graders
    from serve.tuning.routes import router as tuning

    return platform_application((batches, tuning, graders))
