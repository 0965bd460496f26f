"""The settings of one server process: typed, frozen, read once.

Order of precedence: defaults < file (`--config FILE`, else `<root>/serve.toml` if there is one) <
environment (`WARDROBE_…`, nested with `__`) < flags. An unknown key is an error that names the key and
the file. The launcher hands the result to the server process as JSON in `WARDROBE_SERVE_SETTINGS`.
"""

from __future__ import annotations

import os
import socket
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from registry.errors import UsageError

_REMEDY = "see docs/reference/settings.md"

HANDOVER_VARIABLE = "WARDROBE_SERVE_SETTINGS"

OUTPUT_VARIABLE = "WARDROBE_OUTPUT"
"""Set by the launcher for the engine: the descriptor of its own standard output."""

RESTARTS_VARIABLE = "WARDROBE_ENGINE_RESTARTS"
"""Set by the launcher for each engine: how many ended before it."""

HANGS_VARIABLE = "WARDROBE_ENGINE_HANGS"
"""Set by the launcher for each engine: how many of those before it hung."""


class RequestLimits(BaseModel):
    """Limits on one request; None means no limit of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_body_bytes: int = Field(default=32 * 1024**2, gt=0)
    """Longest body of a request."""
    max_upload_bytes: int = Field(default=2 * 1024**3, gt=0)
    """Largest upload of a version."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Cap on the tokens of an answer; a request that asks for more gets this many."""
    total_seconds: float | None = Field(default=None, gt=0)
    """Longest time from a request's first byte to its answer's last."""
    max_concurrency: int | None = Field(default=None, gt=0)
    """Most requests at once; beyond it clients get 429."""


class ResidencySettings(BaseModel):
    """When versions are loaded, proved and unloaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    preload_stable: bool = True
    """Load stables and versions of open rollouts before `/readyz` says yes."""
    load_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long a request waits for its version to be loaded."""
    require_proof: bool = True
    """Serve no version whose answers cannot be told from the base's."""
    poll_seconds: float = Field(default=0.25, gt=0)
    """How often the root is looked at for changes."""


class EngineSettings(BaseModel):
    """How vLLM is started; everything that vLLM itself names goes into `vllm` instead."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    cpu_lora: Literal["grouped", "stock"] = "grouped"
    """LoRA on a CPU: ours, or vLLM's own."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the model; `auto` does where a C++ compiler is found."""
    preload_libraries: bool = True
    """Preload tcmalloc and Intel's OpenMP where they exist."""
    start_timeout_seconds: float = Field(default=600.0, gt=0)
    """How long the engine may take to start before it is ended and tried again."""
    hang_seconds: float = Field(default=30.0, ge=0)
    """How long a ready engine may give no sign of life before it is started again; 0 = for ever.

    While it computes it may take ten times as long, for one long step.
    """


class TracingSettings(BaseModel):
    """Where spans of requests go (OTLP over HTTP); None as `endpoint` means nowhere.

    Headers of the exporter are OpenTelemetry's own business: `OTEL_EXPORTER_OTLP_HEADERS`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

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
        env_prefix="WARDROBE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    root: Path = Path("wardrobe-data")
    """Root of all state."""
    host: str = "127.0.0.1"
    """Address to listen on; beyond loopback a key must exist."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes any."""
    model: Path | None = None
    """Folder of the base model; where it is not given, the one that `wardrobe init` recorded."""
    replica: str = ""
    """This server's name among those that share the root; empty: `HOSTNAME-PORT`."""
    insecure_no_auth: bool = False
    """Listen beyond this machine although no key exists."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """How long requests in flight may take after SIGTERM."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object per line."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Of Wardrobe's own lines; vLLM's stay in the engine's log."""
    log_file: Path | None = None
    """A file for the router's lines, instead of the standard output."""
    access_log: bool = False
    """One line per request; never a prompt."""
    tracing: TracingSettings = TracingSettings()
    limits: RequestLimits = RequestLimits()
    residency: ResidencySettings = ResidencySettings()
    engine: EngineSettings = EngineSettings()
    vllm: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of vLLM under its own names."""

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
    root = Path(flags.get("root") or os.environ.get("WARDROBE_ROOT") or "wardrobe-data")
    path = config or root / "serve.toml"
    from_file = _read_toml(path) if config or path.is_file() else {}
    try:
        if from_file:
            # An unknown key is blamed on the file, so the file is validated by itself first.
            ServeSettings.model_validate(from_file)
    except ValidationError as error:
        raise _usage_error(str(path), error) from error
    try:
        from_environment = ServeSettings().model_dump(exclude_unset=True)
        merged = _merge(_merge(from_file, from_environment), {**flags, "root": root})
        return ServeSettings.model_validate(merged)
    except ValidationError as error:
        raise _usage_error("settings", error) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(str(path), f"cannot be read ({reason})", "check --config") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(str(path), f"is not TOML: {error}", "correct the file") from error


def _merge(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _usage_error(subject: str, error: ValidationError) -> UsageError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] != "extra_forbidden":
        return UsageError(subject, f"{key}: {first['msg']}, not {first['input']!r}", _REMEDY, param=key)
    near = get_close_matches(path[-1], _known(path[:-1]), n=1)
    remedy = f"did you mean {'.'.join([*path[:-1], *near])}?" if near else _REMEDY
    return UsageError(subject, f"{key}: is no setting", remedy, param=key)


def _known(path: list[str]) -> list[str]:
    """Return the keys that may stand below `path`."""
    model: type[BaseModel] = ServeSettings
    for part in path:
        below = model.model_fields[part].annotation
        assert isinstance(below, type), "a nested table has a model"
        assert issubclass(below, BaseModel), "a nested table has a model"
        model = below
    return list(model.model_fields)
