"""The APIs of ours beside the hot path: the admin API, and the platform endpoints put together.

Owns which routers the platform has; what each answers is its own package's business. FastAPI is imported
here only when a server starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from serve.protocol.paths import PathKind
from serve.router.runtime import Runtime

if TYPE_CHECKING:
    from fastapi import APIRouter


def build_control(runtime: Runtime) -> ASGIApp:
    """Return the admin API of this process."""
    from serve.control.app import build_control as build

    return build(runtime.registry, runtime)


def build_platform(runtime: Runtime) -> ASGIApp:
    """Return the platform endpoints of this process."""
    from serve.openai.app import build_platform as build
    from serve.openai.tenant import Platform

    return build(Platform(runtime.registry, runtime), _routers)


def own_methods(kind: PathKind, path: str) -> tuple[str, ...]:
    """Return the methods of a path of the admin API or the platform, sorted; none where it is not served."""
    from serve.control.methods import control_methods, methods_of
    from serve.openai.app import platform_application

    if kind is PathKind.ADMIN:
        return control_methods(path)
    return methods_of(platform_application(_routers), path)


def _routers() -> tuple[APIRouter, ...]:
    """Return what the platform has beside files and uploads."""
    from serve.tuning.graders import router as graders
    from serve.tuning.routes import router as tuning

    return (tuning, graders)
