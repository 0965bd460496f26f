"""`wardrobe serve`: check, bind, and supervise the engine until told to stop.

It imports neither vLLM nor torch: those live in the child. The exit code is 0 after a drain, 1 after a
crash loop or a refusal, 2 for a wrong configuration.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, common_options, pass_session

if TYPE_CHECKING:
    from registry.store import Registry
    from serve.engine.environment import PreflightFinding
    from serve.launcher.compiling import BackgroundCompiler
    from serve.launcher.output.log_file import Folder
    from serve.launcher.output.places import Places
    from serve.launcher.supervisor import SupervisorOptions
    from serve.launcher.worker import SupervisedWorker
    from serve.launcher.yielding import Yielding
    from serve.preflight import Preparation
    from serve.settings import ServeSettings

CHILD = "serve.engine.child"
MAKING = "serve.engine.compiled.making"


@click.command(short_help="Serve the base model and its adapters (real vLLM, supervised).")
@click.option("--model", type=UserPath(), metavar="DIR", help="Folder of the base model.")
@click.option("--host", metavar="H", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=int, metavar="P", help="Port to listen on (default 8000; 0 = any).")
@click.option("--config", type=UserPath(), metavar="FILE", help="Settings (default ROOT/serve.toml).")
@click.option("--replica", metavar="NAME", help="This server's name among those that share the root.")
@click.option("--insecure-no-auth", is_flag=True, help="Allow a non-loopback address without any API key.")
@click.option("--check", "only_check", is_flag=True, help="Run the preflight checks and exit.")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM-OPTIONS]")
@common_options
@pass_session
def serve(
    session: Session,
    /,
    vllm_options: tuple[str, ...],
    config: Path | None,
    only_check: bool,
    **given: object,
) -> int:
    """Serve the base model and every adapter of the root on one OpenAI-compatible port.

    Options after `--` go to vLLM under vLLM's own names; those that the launcher sets itself are refused.
    Until the engine is ready, and while it restarts, clients get 503 with Retry-After. SIGTERM and SIGINT
    drain: requests in flight finish within `drain_seconds`.
    """
    from serve.settings import load_settings

    flags = {name: value for name, value in given.items() if value is not None and value is not False}
    flags["root"] = session.require_local("serve").absolute()
    settings = load_settings(flags, config)
    if only_check:
        return _check(settings, vllm_options, as_json=session.as_json)
    return _serve(settings, vllm_options, as_json=session.as_json or settings.log_format == "json")


def _check(settings: ServeSettings, vllm_options: tuple[str, ...], *, as_json: bool) -> int:
    from serve.preflight import ask_vllm, survey

    findings = survey(settings, vllm_options)
    if all(one.ok for one in findings if one.subject in {"vllm", "root", "base", "options"}):
        findings.append(ask_vllm(settings, vllm_options))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        output.print_table(
            ("", "check", "found"), [(_mark(one), one.subject, one.detail) for one in findings]
        )
    return 0 if all(one.ok for one in findings) else 1


def _mark(finding: PreflightFinding) -> str:
    if finding.information:
        return ""
    return "ok" if finding.ok else "!!"


def _serve(settings: ServeSettings, vllm_options: tuple[str, ...], *, as_json: bool) -> int:
    from serve.launcher.output.voice import Voice, open_standard_descriptors
    from serve.preflight import prepare

    open_standard_descriptors()
    preparation = prepare(settings, vllm_options)
    say = Voice(_line_as_json if as_json else _line_as_text)
    try:
        return _launch(settings, vllm_options, preparation, say)
    finally:
        say.close()


def _launch(
    settings: ServeSettings, vllm_options: tuple[str, ...], prepared: Preparation, say: Callable[[str], None]
) -> int:
    registry = prepared.registry
    from registry.foreign import warnings
    from serve.engine.args import engine_arguments
    from serve.launcher.listener import listen
    from serve.launcher.output.places import Places
    from serve.launcher.supervisor import Supervisor
    from serve.preflight import require_free_name, settle, ungrouped_line

    with listen(settings.host, settings.port) as listener:
        # Port 0 is known only now; replica name, heartbeat and vLLM's arguments all hold it.
        bound = settle(settings, listener.getsockname()[1])
        require_free_name(registry, bound.replica, say)
        arguments = engine_arguments(
            bound, registry.base, registry.limits, extra=vllm_options, expected=prepared.expected
        )
        places = Places(bound.root.absolute(), bound.replica_name, say)
        plan = _plan(bound, replace(prepared, arguments=arguments), places, say)
        say(f"listening on {_url(bound)}  root {bound.root}  logs {places.logs}")
        if (line := ungrouped_line(registry)) is not None:
            say(line)
        for text in warnings(Path.cwd()):
            say(f"warning: {text}")
        try:
            return asyncio.run(Supervisor(listener, plan).run())
        finally:
            places.close()


def _plan(
    settings: ServeSettings, preparation: Preparation, places: Places, say: Callable[[str], None]
) -> SupervisorOptions:
    from registry.foreign import python
    from serve.door.pages import Pages
    from serve.engine.environment import engine_environment
    from serve.launcher.presence import Presence
    from serve.launcher.supervisor import SupervisorOptions
    from serve.settings import SERVER_VARIABLE

    arguments = preparation.arguments
    environment = engine_environment(settings, inherited := _inherited())
    yielding = _yielding(settings)
    compiler = _compiler(settings, preparation, environment, places, say, yielding)

    def command(listener: int, line: int) -> list[str]:
        own = ["--fd", str(listener), "--line", str(line), "--owned", json.dumps(dict(arguments.owned))]
        return python("-m", CHILD, *own, "--", *arguments.argv)

    def overlay() -> dict[str, str]:
        found = _cache_overlay(places, inherited)
        return {**found, **(compiler.choose(found) if compiler else {})}

    server = secrets.token_hex(8)
    return SupervisorOptions(
        command=command,
        environment={**(compiler.options.environment if compiler else environment), SERVER_VARIABLE: server},
        overlay=overlay,
        compiler=compiler,
        log_folders=places.log_folders(),
        start_timeout_seconds=settings.engine.start_timeout_seconds,
        drain_seconds=settings.drain_seconds,
        hang_seconds=settings.engine.hang_seconds,
        say=say,
        output=_own_output(),
        connections=settings.connections,
        pages=Pages(settings.cors_origins) if settings.cors_origins else None,
        worker=_worker(settings, preparation.registry, inherited, say, yielding),
        yielding=yielding,
        presence=Presence(preparation.registry, settings.replica_name, _url(settings), server),
        describe_ready=lambda: _ready_line(settings, preparation.registry),
    )


def _inherited() -> dict[str, str]:
    from serve.launcher.notify import VARIABLES

    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


def _yielding(settings: ServeSettings) -> Yielding | None:
    """Return what has others stand still for requests, None where nobody shall or the system cannot."""
    from serve.launcher.yielding import Yielding

    seconds = settings.tuning.yield_seconds
    return Yielding(seconds) if seconds and hasattr(os, "pidfd_open") else None


def _worker(
    settings: ServeSettings,
    registry: Registry,
    environment: dict[str, str],
    say: Callable[[str], None],
    yielding: Yielding | None,
) -> SupervisedWorker | None:
    """Return what trains beside the engine, None where nothing does."""
    from registry.foreign import python
    from serve.engine.machine import this_machine
    from serve.launcher.worker import PROGRAM, SupervisedWorker, is_wanted

    tuning = settings.tuning
    if not is_wanted(tuning.worker, tuning.device, accelerator=bool(this_machine().accelerator)):
        return None
    command = python("-m", PROGRAM, "--root", str(registry.root), "--once", "--idle")
    command += ["--device", tuning.device or "cpu"]
    command += [] if tuning.threads is None else ["--threads", str(tuning.threads)]
    beside = yielding if tuning.device in ("", "cpu") else None
    return SupervisedWorker(registry.catalogue.root, command, environment, say, beside)


def _compiler(
    settings: ServeSettings,
    preparation: Preparation,
    environment: dict[str, str],
    places: Places,
    say: Callable[[str], None],
    yielding: Yielding | None,
) -> BackgroundCompiler | None:
    """Return what compiles beside the engine, None where nothing is or the first start does."""
    from registry.foreign import python
    from serve.engine.compiled.choice import compiles_beside, memory_bytes
    from serve.engine.environment import COMPILE_VARIABLE
    from serve.launcher.compiling import BackgroundCompiler, CompilingOptions

    arguments = preparation.arguments
    if not compiles_beside(settings, environment, arguments):
        return None

    def making(line: int, note: Path) -> list[str]:
        own = ["--line", str(line), "--note", str(note), "--owned", json.dumps(dict(arguments.owned))]
        return python("-m", MAKING, *own, "--", *arguments.argv)

    options = CompilingOptions(
        making=making,
        argv=arguments.argv,
        fingerprint=preparation.registry.base.fingerprint,
        # Where the disk does not say in time what there is, nothing is waited for.
        environment={**environment, COMPILE_VARIABLE: "later"},
        lasting=Path(environment["VLLM_CACHE_ROOT"]),
        log_folders=[_below(folder, "compiling") for folder in places.log_folders()],
        memory_bytes=memory_bytes(settings, preparation.registry.base, arguments),
    )
    return BackgroundCompiler(options, say, yielding=yielding)


def _below(folder: Folder, name: str) -> Folder:
    return lambda: folder() / name


def _cache_overlay(places: Places, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return where compiled code goes this time, as far as the user has not said it."""
    from serve.engine.environment import cache_variables

    folder = places.caches()
    found = {} if folder is None else cache_variables(folder)
    return {name: value for name, value in found.items() if name not in inherited}


def _own_output() -> int | None:
    """Return a descriptor of this process's standard output that the engine can inherit, if there is one."""
    try:
        return os.dup(sys.stdout.fileno())
    except (OSError, ValueError):  # no file at all
        return None


def _ready_line(settings: ServeSettings, registry: Registry) -> str:
    beats = [beat for beat, _ in registry.replicas() if beat.replica == settings.replica_name]
    resident = len(beats[0].resident) if beats else 0
    adapters = "1 adapter" if resident == 1 else f"{resident} adapters"
    return f"ready on {_url(settings)}  base {registry.base.name}  {adapters} resident"


def _url(settings: ServeSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _line_as_json(text: str) -> str:
    level = text.partition(":")[0] if text.startswith(("error:", "warning:")) else "info"
    at = round(time.time(), 3)
    return json.dumps({"at": at, "level": level, "logger": "wardrobe.launcher", "message": text})


def _line_as_text(text: str) -> str:
    return f"{time.strftime('%H:%M:%S')}  {output.shown(text)}"
