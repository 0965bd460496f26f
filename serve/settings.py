"""The settings of one server process: typed, frozen, read once.

Order of precedence: defaults < file (`--config FILE`, else `<root>/serve.toml` if there is one) <
environment (`WARDROBE_…`, nested with `__`) < flags. An unknown key is an error that names the key and
the file. The launcher hands the result to the server process as JSON in `WARDROBE_SERVE_SETTINGS`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from registry.errors import UsageError
from registry.home import HomePath, at_home
from registry.settings.bounds import Place
from registry.settings.faults import faults_of, refusal
from registry.settings.file import check, read_settings
from registry.settings.misspelt import nearest
from registry.settings.models import Strict
from serve.door.hosts import ANY_HOST, plain_host
from serve.door.pages import is_origin
from serve.tuning_settings import TuningSettings

_SEE = "docs/reference/settings.md"

HANDOVER_VARIABLE = "WARDROBE_SERVE_SETTINGS"

OUTPUT_VARIABLE = "WARDROBE_OUTPUT"
"""Set by the launcher for the engine: the descriptor of its own standard output."""

SERVER_VARIABLE = "WARDROBE_SERVER"
"""Set by the launcher for its engines: a word that this server alone has."""

RESTARTS_VARIABLE = "WARDROBE_ENGINE_RESTARTS"
"""Set by the launcher for each engine: how many ended before it."""

HANGS_VARIABLE = "WARDROBE_ENGINE_HANGS"
"""Set by the launcher for each engine: how many of those before it hung."""

BUSY_VARIABLE = "WARDROBE_BUSY"
"""Set by the launcher for each engine: the descriptor on which it says `BUSY` and `FREE`."""
BUSY, FREE = b"1", b"0"
"""Requests are in flight from now on; none is."""


_PREFIX = "WARDROBE_"


class _Block(Strict):
    model_config = ConfigDict(use_attribute_docstrings=True)


class RequestLimits(_Block):
    """Limits on one request; None means no limit of ours."""

    max_body_bytes: int = Field(default=32 * 1024**2, gt=0)
    """Longest body of a request."""
    max_upload_bytes: int = Field(default=2 * 1024**3, gt=0)
    """Largest upload of a version."""
    body_seconds: float = Field(default=30.0, gt=0)
    """Longest time for a body to arrive; every 64 KiB of it bring one second more."""
    body_memory_bytes: int = Field(default=512 * 1024**2, gt=0)
    """Most bytes of bodies in memory at once, of requests in flight and of those that still arrive."""
    max_nesting: int = Field(default=64, gt=0)
    """Most objects and arrays inside each other in a body."""
    max_values: int = Field(default=100_000, gt=0)
    """Most keys, strings, numbers and brackets in a body; at least twice the model's context."""
    max_messages: int = Field(default=2_048, gt=0)
    """Most messages, items or prompts in a body."""
    max_parts: int = Field(default=4_096, gt=0)
    """Most content parts and tool calls in all of a body's messages."""
    max_tools: int = Field(default=512, gt=0)
    """Most tools in a body."""
    max_choices: int = Field(default=128, gt=0)
    """Most answers to one prompt (`n`)."""
    max_grammar_bytes: int = Field(default=65_536, gt=0)
    """Most bytes of schemas, choices and tools that constrain an answer, without descriptions."""
    max_pattern_bytes: int = Field(default=8_192, gt=0)
    """Longest regular expression or grammar that does, alone or in a schema."""
    max_loops: int = Field(default=32, gt=0)
    """Most repetitions (`*`, `+`, `?`, `{m,n}`) in a request's patterns; 8 references are one more."""
    max_properties: int = Field(default=256, gt=0)
    """Most properties of one object in a schema; all objects together have as many pairs as two such."""
    max_repetitions: int = Field(default=640, gt=0)
    """Most characters that different `maxLength`s and patterns repeat, in all; one counts for 200 at most."""
    max_prompt_characters: int | None = Field(default=None, gt=0)
    """Most characters in one prompt; not set: what the longest tokens could bring into the context."""
    max_text_characters: int = Field(default=4 * 1024**2, gt=0)
    """Most characters in all prompts of a body together, unless a single one may hold more."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Most tokens of an answer: who asks for more is refused, who names none gets this many."""
    total_seconds: float | None = Field(default=None, gt=0)
    """Longest time from a request's first byte to its answer's last."""
    feedback_bytes_per_hour: int | None = Field(default=4 * 1024**2, gt=0)
    """Feedback that one key may have kept in an hour, about 10,000 scores; beyond it clients get 429."""
    max_concurrency: int | None = Field(default=None, gt=0)
    """Most requests at once whose body has arrived; beyond it clients get 429."""
    max_waiting: int | None = Field(default=None, ge=0)
    """Most requests that wait for the engine; not set: four times as many as it runs at once."""
    wait_seconds: float = Field(default=60.0, gt=0)
    """How long a request may wait for the engine; then, and beyond `max_waiting`, clients get 503."""


class ConnectionLimits(_Block):
    """Limits on connections, whoever opens them; a reverse proxy opens one per request in flight."""

    head_bytes: int = Field(default=65_536, ge=1024)
    """Longest head of a request: its first line and its headers."""
    head_lines: int = Field(default=256, ge=16)
    """Most headers of a request."""
    head_seconds: float = Field(default=10.0, gt=0)
    """Longest time for a head to arrive, from the connection or from its first byte."""
    idle_seconds: float = Field(default=75.0, gt=0)
    """How long a connection is kept for its next request; longer than a balancer in front keeps it."""
    write_seconds: float = Field(default=60.0, gt=0)
    """How long a client may take nothing of an answer that waits for it."""
    total: int = Field(default=4_096, gt=0)
    """Most connections; beyond it idle ones are closed, and where none is idle clients get 503."""
    per_address: int | None = Field(default=1_024, gt=0)
    """Most connections from one address (IPv6: from one /64), likewise."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose connections `per_address` does not count."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            ip_network(one, strict=False)
        return value


class ResponseSettings(_Block):
    """Which responses (`/v1/responses`) a replica keeps in memory, so that a request can go on from one."""

    keep_seconds: float = Field(default=3600.0, gt=0)
    """How long one is kept."""
    max_bytes: int = Field(default=64 * 1024**2, ge=0)
    """Memory for all of them; 0 keeps none, and `store: true` and `previous_response_id` are refused."""
    max_count: int = Field(default=10_000, gt=0)
    """How many are kept."""


class ResidencySettings(_Block):
    """When versions are loaded, proved and unloaded."""

    preload_stable: bool = True
    """Load stables (as many as fit) and versions of open rollouts before `/readyz` says yes."""
    load_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long a request waits for its version to be loaded."""
    require_proof: bool = True
    """Serve no version whose answers cannot be told from the base's."""
    swap_wait_seconds: float = Field(default=30.0, ge=0)
    """How long the version before goes on answering by a name while the new one is loading."""
    keep_previous_seconds: float = Field(default=600.0, ge=0)
    """How long the version before stays loaded after that, so that the way back is at once."""
    turn_seconds: float = Field(default=2.0, gt=0)
    """How long a version keeps its turn while others wait: a batch mixes `max_loras` versions at most."""
    poll_seconds: float = Field(default=0.25, gt=0)
    """How often the root is looked at for changes; those of the same machine are seen at once (inotify)."""


class BatchSettings(_Block):
    """How many lines of batches (`/v1/batches`) are asked at once; requests of clients come first."""

    enabled: bool = True
    """Whether this replica answers batches; it takes them in any case."""
    alone: int = Field(default=8, gt=0)
    """While no client has asked for `quiet_seconds`."""
    beside: int = Field(default=0, ge=0)
    """While requests of clients are in flight; lines beyond it come out and are asked again later."""
    quiet_seconds: float = Field(default=2.0, ge=0)
    """How long clients must be silent; in shorter pauses one line goes in at a time."""
    patience_seconds: float = Field(default=10.0, gt=0)
    """After so long without an answer a line goes in beside clients all the same, and stays in."""


class EngineSettings(_Block):
    """How vLLM is started; everything that vLLM itself names goes into `vllm` instead."""

    cpu_lora: Literal["grouped", "stock"] = "grouped"
    """LoRA on a CPU: ours, or vLLM's own."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the model: `on` before it serves, `auto` beside it for the next start (CPU, a C++ compiler)."""
    fork: Literal["auto", "off"] = "auto"
    """Fork vLLM's engine and worker from one process that imports; `auto`: on a CPU with Intel's OpenMP."""
    parsers: Literal["auto", "off"] = "auto"
    """Choose vLLM's tool and reasoning parser by the base's family and chat template; see `serve --check`."""
    step_tokens: int = Field(default=0, ge=0)
    """Tokens of a flood's prompts in a step while groups share the engine; 0: vLLM's own steps."""
    preload_libraries: bool = True
    """Preload tcmalloc and Intel's OpenMP where they exist."""
    start_timeout_seconds: float = Field(default=600.0, gt=0)
    """How long the engine may take to start before it is ended and tried again."""
    hang_seconds: float = Field(default=30.0, ge=0)
    """How long a ready engine may give no sign of life before it is started again; 0 = for ever.

    While it computes it may take ten times as long, for one long step.
    """


class TracingSettings(_Block):
    """Where spans of requests go (OTLP over HTTP); None as `endpoint` means nowhere.

    Headers of the exporter are OpenTelemetry's own business: `OTEL_EXPORTER_OTLP_HEADERS`.
    """

    endpoint: str | None = Field(default=None, pattern="^https?://")
    """An OTLP/HTTP collector, such as `http://collector:4318`."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the traces that begin here; a client's sampled trace is always continued."""
    service_name: str = "wardrobe"
    """`service.name` of the spans."""
    queue_size: int = Field(default=2048, gt=0)
    """Spans that wait to be sent; beyond it they are dropped."""
    export_timeout_seconds: float = Field(default=5.0, gt=0)
    """Longest time for one export."""


class ServeSettings(BaseSettings):
    """Everything that `wardrobe serve` can be told.

    `vllm` holds options under vLLM's own names, with underscores or dashes (`max_model_len`,
    `max-loras`); options that the launcher owns are refused by name.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    root: HomePath = Path("wardrobe-data")
    """Root of all state."""
    host: str = "127.0.0.1"
    """Address to listen on; beyond loopback a key must exist."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes any."""
    model: HomePath | None = None
    """Folder of the base model; where it is not given, the one that `wardrobe init` recorded."""
    replica: str = ""
    """This server's name among those of the root; empty: `HOSTNAME-PORT`, in containers with a suffix."""
    insecure_no_auth: bool = False
    """Allow a non-loopback address without any API key."""
    keys_required: bool = False
    """Answer nobody without a key, also while none can be found; the launcher sets it once a key exists."""
    keys_stale_seconds: float = Field(default=30.0, gt=0)
    """Answer 503 once the keys could not be read for so long: one may have been revoked."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """How long requests in flight may take after SIGTERM."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object per line."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Of Wardrobe's own lines; vLLM's stay in the engine's log."""
    log_file: HomePath | None = None
    """A file for the router's lines, instead of the standard output."""
    errors_name_version: bool = False
    """Name version and arm in errors and token counts too in a rollout: free requests then tell the arms."""
    access_log: bool = False
    """One line per request; never a prompt."""
    tracing: TracingSettings = TracingSettings()
    allowed_hosts: tuple[str, ...] = ()
    """Names under which clients may call this server, beside its own; `*` is any."""
    cors_origins: tuple[str, ...] = ()
    """Web pages that may call this server, as `https://app.example`; `*` is any. Only where keys exist."""
    limits: RequestLimits = RequestLimits()
    responses: ResponseSettings = ResponseSettings()
    connections: ConnectionLimits = ConnectionLimits()
    residency: ResidencySettings = ResidencySettings()
    tuning: TuningSettings = TuningSettings()
    batches: BatchSettings = BatchSettings()
    engine: EngineSettings = EngineSettings()
    vllm: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of vLLM under its own names."""

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if one != ANY_HOST and not plain_host(one.encode()):
                raise ValueError(f"{one!r} is not a host name")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not is_origin(one):
                raise ValueError(f"{one!r} is not an origin such as https://app.example")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take explicit values and the environment only; files are merged by `load_settings`."""
        return (init_settings, env_settings)

    @property
    def replica_name(self) -> str:
        """Return the replica's id: as set, else `HOSTNAME-PORT`."""
        return self.replica or f"{socket.gethostname()}-{self.port}"


def load_settings(flags: dict[str, Any], config: Path | None = None) -> ServeSettings:
    """Merge defaults, file, environment and `flags` (only those that were given) into one object.

    Raises: UsageError: for a missing file, broken TOML, an unknown key or a value out of range.
    """
    root = at_home(flags.get("root") or os.environ.get("WARDROBE_ROOT") or "wardrobe-data")
    path = config or root / "serve.toml"
    from_file: dict[str, Any] = {}
    if config or path.is_file():
        found = read_settings(path, see=_SEE, language="TOML")
        # A wrong value is blamed on the file, so the file is checked by itself first.
        found.checked(ServeSettings)
        from_file = found.value
    _require_known(os.environ)
    merged = _merge(_merge(from_file, _from_environment()), {**flags, "root": root})
    return check(merged, ServeSettings, "settings", see=_SEE)


def _from_environment() -> dict[str, Any]:
    try:
        return ServeSettings().model_dump(exclude_unset=True)
    except ValidationError as error:
        raise refusal(faults_of(error, None, ServeSettings, _SEE), _variable) from error
    except SettingsError as error:
        raise _unreadable(error) from error


def _variable(place: Place) -> str:
    return _PREFIX + "__".join(map(str, place)).upper()


def _require_known(environment: Mapping[str, str]) -> None:
    """Raise UsageError for a variable that is nearly a setting; others may bear our prefix."""
    for variable in environment:
        name = variable.removeprefix(_PREFIX).lower()
        if not variable.startswith(_PREFIX) or "__" in name or name in ServeSettings.model_fields:
            continue
        meant = nearest(name, ServeSettings.model_fields, cutoff=0.8)
        if meant is not None:
            raise UsageError(variable, "unknown setting", f"did you mean {_PREFIX}{meant.upper()}?")


def handed_over() -> ServeSettings:
    """Return the settings that the launcher handed to this process, else those of its environment.

    Raises: UsageError: they are not valid.
    """
    text = os.environ.get(HANDOVER_VARIABLE)
    try:
        return ServeSettings.model_validate_json(text) if text is not None else ServeSettings()
    except ValidationError as error:
        fact = f"is not valid: {error}"
        raise UsageError(HANDOVER_VARIABLE, fact, "start with `wardrobe serve`") from error


def _merge(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _unreadable(error: SettingsError) -> UsageError:
    """Return what to say of a list or a table in the environment that is no JSON."""
    named = re.search(r'field "(\w+)"', str(error))
    key = named[1] if named else "settings"
    remedy = """write it as JSON, for instance '["one", "two"]'"""
    return UsageError(f"WARDROBE_{key.upper()}", "must be JSON: it is a list or a table", remedy, param=key)
