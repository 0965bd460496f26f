"""The command line that vLLM is started with: our defaults, the user's options, and what nobody may set.

It owns the list of refused options; sizes are chosen by `serve.engine.sizing`. It does not import vLLM:
whether an option exists and what it may hold is for vLLM's own parser to say, in the child. Order on the
command line, the last one wins in vLLM: defaults < `[vllm]` of the settings < options after `--` < what we
own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from registry.errors import UsageError
from registry.home import at_home
from registry.records import BaseModelInfo, Limits
from serve.engine.machine import HostFacts, this_machine
from serve.engine.parsers.choice import parser_options
from serve.engine.sizing.adapters import ExpectedAdapters
from serve.engine.sizing.choice import AdapterRoom, SizePlan, choose
from serve.engine.sizing.costs import NUMBER_BYTES
from serve.engine.sizing.words import size
from serve.settings import ServeSettings

_TOUCHES_SOCKET = "the launcher owns the listening socket"
_ONE_SERVER = "the router needs exactly one API server process per replica; start more replicas instead"
_NO_TLS = "the launcher answers plain HTTP while the engine starts; put a TLS proxy in front"
_ONE_BASE = "the root is bound to one base model; use `wardrobe serve --model` or another root"

OWNED: Mapping[str, str] = {
    "host": f"{_TOUCHES_SOCKET}; use `wardrobe serve --host`",
    "port": f"{_TOUCHES_SOCKET}; use `wardrobe serve --port`",
    "uds": _TOUCHES_SOCKET,
    "grpc": "the router speaks HTTP only",
    "grpc_port": "the router speaks HTTP only",
    "headless": _ONE_SERVER,
    "api_server_count": _ONE_SERVER,
    "data_parallel_multi_port_external_lb": _ONE_SERVER,
    "data_parallel_supervisor_port": _ONE_SERVER,
    "middleware": "the router is the middleware; a second one could answer before it",
    "root_path": "it changes the paths that the router allows",
    "config": "it could set any of the options that are refused here; use `[vllm]` in serve.toml",
    "api_key": "vLLM asks for it on some paths only; use `wardrobe keys create`",
    "model": _ONE_BASE,
    "model_tag": _ONE_BASE,
    "served_model_name": "the base's served name is recorded by `wardrobe init --name`",
    "tokenizer": _ONE_BASE,
    "revision": _ONE_BASE,
    "enable_lora": "an adapter platform without adapters is a plain vLLM",
    "lora_modules": "adapters come from the registry; use `wardrobe register`",
    "max_lora_rank": "registry and server share it; set max_lora_rank under [limits] in wardrobe.toml",
    "default_mm_loras": "adapters come from the registry; use `wardrobe register`",
    "shutdown_timeout": "the launcher drains; set drain_seconds",
    **dict.fromkeys(
        ("allowed_origins", "allow_credentials", "allowed_methods", "allowed_headers"),
        "the router answers a browser's preflight; set cors_origins",
    ),
    **dict.fromkeys(
        ("h11_max_incomplete_event_size", "h11_max_header_count"),
        "vLLM does not use that parser here; set head_bytes or head_lines under [connections]",
    ),
    **dict.fromkeys(
        (
            "ssl_keyfile",
            "ssl_certfile",
            "ssl_ca_certs",
            "ssl_cert_reqs",
            "ssl_ciphers",
            "enable_ssl_refresh",
        ),
        _NO_TLS,
    ),
}
"""Options that `[vllm]` and the command line may not name, with the reason and the way out."""

SHORT_FORMS: Mapping[str, str] = {"asc": "api_server_count"}
"""Short spellings of owned options in vLLM's own parser."""

PROCESS_BYTES = 3 * 1024**3
"""What vLLM's processes and ours take beside weights, KV cache and adapters: 2.4 GiB, and some air."""

READ = frozenset({"max_loras", "max_cpu_loras", "lora_target_modules", "kv_cache_memory_bytes"})
"""vLLM's options that sizes depend on; all others are for vLLM to judge."""

GPU_PART = 16
"""Slots take this part of a GPU's memory at most: one sixteenth."""

HOST_PART = 4
"""Adapters in memory take this part of the host's beside a GPU: a quarter."""

_NOT_AN_OPTION = re.compile(r"^-\d")


@dataclass(frozen=True, slots=True)
class EngineArguments:
    """vLLM's arguments, and the values that must come out of its parser unchanged.

    `owned` maps vLLM's attribute names to what we set: the child compares them after parsing, so no
    abbreviation or alias that vLLM's parser may know can override one. `slots_bytes` is the memory of all
    slots.
    """

    argv: tuple[str, ...]
    owned: Mapping[str, JsonValue]
    slots_bytes: int = 0


def engine_arguments(
    settings: ServeSettings,
    base: BaseModelInfo,
    limits: Limits,
    machine: HostFacts | None = None,
    *,
    extra: Sequence[str] = (),
    expected: ExpectedAdapters | None = None,
) -> EngineArguments:
    """Build vLLM's command line for one replica; `extra` is what the user wrote after `--`.

    `machine` is this one unless given; `expected` are the adapters that it is sized for.

    Raises: UsageError: for an option that we own, naming the reason.
    """
    chosen = {_plain(name): _at_home(value) for name, value in settings.vllm.items()}
    extra = [_option_at_home(argument) for argument in extra]
    given = given_options(settings, extra)
    machine = machine or this_machine()
    sizes = size_plan(settings, base, limits, machine, extra=extra, expected=expected)
    owned = _owned(settings, base, sizes)
    wanted = _defaults(settings, machine, sizes, given)
    if settings.engine.parsers == "auto":
        wanted |= parser_options(given, base_folder(settings, base))
    defaults = {name: value for name, value in wanted.items() if name not in given}
    argv = (*_spelled(defaults), *_spelled(chosen), *extra, *_spelled(owned))
    return EngineArguments(argv=argv, owned=owned, slots_bytes=sizes.slots_total)


def given_options(settings: ServeSettings, extra: Sequence[str]) -> dict[str, JsonValue]:
    """Return what the user says to vLLM, in the settings and after `--`, by plain names."""
    chosen = {_plain(name): _at_home(value) for name, value in settings.vllm.items()}
    return chosen | dict(options([_option_at_home(argument) for argument in extra]))


def base_folder(settings: ServeSettings, base: BaseModelInfo) -> Path:
    """Return the folder that the base model is loaded from."""
    return (settings.model or base.path).absolute()


def refuse_owned(name: str) -> None:
    """Raise a UsageError when `name` (any spelling) is an option that users may not set."""
    plain = _plain(name)
    plain = SHORT_FORMS.get(plain, plain)
    for candidate in (plain, plain.removeprefix("no_")):
        if candidate in OWNED:
            raise UsageError(
                f"vllm option {candidate}", "cannot be set here", OWNED[candidate], param=candidate
            )


def options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the plain name and first value of each option in `argv`; `--no-x` gives `x`, `--a.b` `a`.

    Raises: UsageError: for an argument before the first option (vLLM would take it for the model).
    """
    if argv and not _is_option(argv[0]):
        raise UsageError(f"vllm argument {argv[0]!r}", "is not an option", OWNED["model"])
    for argument, following in zip(argv, [*argv[1:], "--"][: len(argv)], strict=True):
        if _is_option(argument):
            name, has_value, value = argument.partition("=")
            name = _plain(name.partition(".")[0]).removeprefix("no_")
            yield name, value if has_value or _is_option(following) else following


def size_plan(
    settings: ServeSettings,
    base: BaseModelInfo,
    limits: Limits,
    machine: HostFacts | None = None,
    *,
    extra: Sequence[str] = (),
    expected: ExpectedAdapters | None = None,
) -> SizePlan:
    """Return the sizes that an engine is started with; arguments as those of `engine_arguments`.

    Raises: UsageError: an option that cannot be read or that we own, or sizes that vLLM does not serve.
    """
    given = given_options(settings, extra)
    for name in sorted(given):
        refuse_owned(name)
    return choose(
        expected or ExpectedAdapters(),
        base.modules,
        limits.max_lora_rank,
        _adapter_room(machine or this_machine(), base, given),
        slots=_count(given, "max_loras"),
        residents=_count(given, "max_cpu_loras"),
        targets=_targets(given.get("lora_target_modules")),
    )


def _adapter_room(machine: HostFacts, base: BaseModelInfo, given: Mapping[str, JsonValue]) -> AdapterRoom:
    """Return half of what base, KV cache and processes leave on a CPU, else a part of each memory."""
    if machine.accelerator:
        device, host = machine.device_bytes, machine.memory_bytes
        source = (
            f"slots: 1/{GPU_PART} of the GPU's {size(device)}; "
            f"adapters in memory: 1/{HOST_PART} of the {size(host)} of this machine or control group"
        )
        return AdapterRoom(on_cpu=False, slots=device // GPU_PART, all=host // HOST_PART, source=source)
    weights = NUMBER_BYTES * sum(out * into for out, into in base.modules.values())
    cache = _number(given.get("kv_cache_memory_bytes")) or _cpu_cache_bytes(machine)
    room = max((machine.memory_bytes - weights - cache - PROCESS_BYTES) // 2, 1)
    source = (
        f"half of what is left of the {size(machine.memory_bytes)} of this machine or control group after "
        f"{size(weights)} for the base, {size(cache)} for the KV cache, {size(PROCESS_BYTES)} for processes"
    )
    return AdapterRoom(on_cpu=True, slots=room, all=room, source=source)


def _owned(settings: ServeSettings, base: BaseModelInfo, sizes: SizePlan) -> dict[str, JsonValue]:
    return {
        "model": str(base_folder(settings, base)),
        "served_model_name": [base.name],
        "host": settings.host,
        "port": settings.port,
        "enable_lora": True,
        "max_lora_rank": sizes.rank,
    }


def _defaults(
    settings: ServeSettings, machine: HostFacts, sizes: SizePlan, given: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    defaults: dict[str, JsonValue] = {
        "max_loras": sizes.slots,
        "max_cpu_loras": sizes.residents,
        # The router counts every request; a log line for each costs more than the router itself.
        "disable_uvicorn_access_log": True,
        # The order among groups (serve/groups); requests without a priority keep the order of coming.
        "scheduling_policy": "priority",
    }
    if settings.engine.compile == "off":
        defaults["enforce_eager"] = True
    if not machine.accelerator and not machine.cache_sized and "gpu_memory_utilization" not in given:
        defaults["kv_cache_memory_bytes"] = _cpu_cache_bytes(machine)
    return defaults


def _cpu_cache_bytes(machine: HostFacts) -> int:
    """Return an eighth of the machine's memory, 1 to 16 GiB.

    NOTE: vLLM's own default on the CPU takes nine tenths of the machine, and fails when less is free.
    """
    return min(max(machine.memory_bytes // 8, 1024**3), 16 * 1024**3)


def _count(given: Mapping[str, JsonValue], name: str) -> int | None:
    """Return how many the user set; None where nothing is set.

    Raises: UsageError: it is no number, or less than one.
    """
    if given.get(name) is None:
        return None
    number = _number(given[name])
    if number is None:
        fact = f"{str(given[name])!r} is no whole number of at least 1"
        raise UsageError(f"vllm option {name}", fact, "correct it, or leave it out", param=name)
    return number


def _number(value: JsonValue) -> int | None:
    """Return a size as the user wrote it; None where it is none: vLLM says what is wrong with it."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None


def _targets(value: JsonValue) -> tuple[str, ...] | None:
    if isinstance(value, list):
        return tuple(str(one) for one in value)
    return (value,) if isinstance(value, str) and value else None


def _spelled(options: Mapping[str, JsonValue]) -> Iterator[str]:
    for name, value in options.items():
        yield from _spell(f"--{name.replace('_', '-')}", value)


def _spell(flag: str, value: JsonValue) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, bool):
        yield flag if value else f"--no-{flag[2:]}"
    elif isinstance(value, dict):
        yield from (flag, json.dumps(value))
    elif isinstance(value, list):
        yield flag
        yield from (str(item) for item in value)
    else:
        yield from (flag, str(value))


def _at_home(value: JsonValue) -> JsonValue:
    # Only what can be nothing else: vLLM takes patterns and JSON, too.
    return str(at_home(value)) if isinstance(value, str) and value.startswith("~/") else value


def _option_at_home(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{name}={_at_home(value)}" if equals and _is_option(name) else str(_at_home(argument))


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and argument != "-" and not _NOT_AN_OPTION.match(argument)
