"""What is looked at before anything is started, so that a wrong start ends in a second with a reason.

`prepare` raises the first refusal; `survey` looks at everything and lists it, for `serve --check`.
Neither imports vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from registry.base import read_base
from registry.errors import Conflict, Denied, NotFound, UsageError, WardrobeError
from registry.foreign import warnings
from registry.keys import KeyStore
from registry.records import BaseModel
from registry.store import Registry
from serve.engine.args import EngineArguments, engine_arguments
from serve.engine.environment import Finding, check
from serve.engine.machine import this_machine
from serve.launcher.listener import is_loopback, listen
from serve.settings import ServeSettings


@dataclass(frozen=True, slots=True)
class Preparation:
    """An opened root and the command line of an engine that fits it."""

    registry: Registry
    arguments: EngineArguments


def prepare(settings: ServeSettings, extra: Sequence[str]) -> Preparation:
    """Check everything but the port, and return what a start needs.

    Raises: WardrobeError: the first thing that forbids the start.
    """
    require_engine()
    registry = Registry.open(settings.root)
    require_same_base(settings.model or registry.base.path, registry.base)
    arguments = engine_arguments(settings, registry.base, registry.limits, extra=extra)
    require_guard(settings)
    return Preparation(registry, arguments)


def survey(settings: ServeSettings, extra: Sequence[str]) -> list[Finding]:
    """Return one finding per thing that a start depends on, the bad ones included."""
    return list(_survey(settings, extra))


def require_engine() -> None:
    """Raise NotFound when vLLM is not installed, UsageError when something else has its name."""
    spec = find_spec("vllm")
    if spec is None:
        raise NotFound("vllm", "is not installed", "pip install 'wardrobe-llm[cpu]' (or [gpu])")
    if spec.submodule_search_locations is None:  # a package has them, a module of that name has not
        fact = f"{spec.origin} is imported in its place"
        raise UsageError("vllm", fact, "take its folder off PYTHONPATH, or rename it")


def require_same_base(folder: Path, base: BaseModel) -> None:
    """Raise Conflict when `folder` does not hold the root's base model."""
    if not folder.is_dir():
        remedy = "name the folder with --model; it must hold the same model"
        raise NotFound(f"base {base.name}", f"{folder} does not exist", remedy, param="model")
    found = read_base(folder, base.name).fingerprint
    if found != base.fingerprint:
        fact = (
            f"{folder} has the fingerprint {_short(found)}, this root is bound to {_short(base.fingerprint)}"
        )
        raise Conflict(f"base {base.name}", fact, "use that model's folder, or another root", param="model")


def require_guard(settings: ServeSettings) -> None:
    """Raise Denied for an address that others reach while no key is needed."""
    if is_loopback(settings.host) or settings.insecure_no_auth or KeyStore(settings.root).in_use():
        return
    remedy = "make a key with `wardrobe keys create`, or say --insecure-no-auth"
    raise Denied(f"--host {settings.host}", "is reached from other machines and no key exists", remedy)


def _survey(settings: ServeSettings, extra: Sequence[str]) -> Iterator[Finding]:
    yield _tried("vllm", "installed", require_engine)
    told = warnings(Path.cwd())
    yield Finding(
        "packages", ok=True, detail="; ".join(told) or "no other module has the name of one of ours"
    )
    try:
        registry = Registry.open(settings.root)
    except WardrobeError as error:
        yield Finding("root", ok=False, detail=str(error))
    else:
        base, folder = registry.base, settings.model or registry.base.path
        adapters = len(registry.adapters())
        yield Finding("root", ok=True, detail=f"{settings.root}, {adapters} adapters")
        yield _tried("base", f"{base.name} in {folder}", lambda: require_same_base(folder, base))
        yield _tried(
            "options",
            "accepted by the launcher",
            lambda: engine_arguments(settings, base, registry.limits, extra=extra),
        )
        yield _tried("access", f"on {settings.host}", lambda: require_guard(settings))
    yield _tried("port", f"{settings.port} is free", lambda: listen(settings.host, settings.port).close())
    yield from check(settings, this_machine())


def _tried(subject: str, fine: str, attempt: Callable[[], object]) -> Finding:
    try:
        attempt()
    except WardrobeError as error:
        return Finding(subject, ok=False, detail=str(error))
    return Finding(subject, ok=True, detail=fine)


def _short(fingerprint: str) -> str:
    return fingerprint[: len("sha256:") + 12]
