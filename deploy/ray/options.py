"""What the Ray application can be told; in a Serve config file, the keys of `args`."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

LAUNCHER_GRACE_SECONDS = 15.0
"""What the launcher may need beyond the drain to end its engine (serve/launcher: 10 s, and some air)."""


class RayOptions(BaseModel):
    """One application: replicas over one root, and the doors in front of them.

    `command` starts the replica (`serve` and its flags are appended); `vllm` holds vLLM's own options as
    on the command line. A replica is busy with `max_ongoing` requests at most; more go to
    another one, or wait in the door. Without `by_adapter` any replica is asked for any adapter, else one
    that holds it first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path
    model: Path | None = None
    command: str = "wardrobe"
    vllm: str = ""
    replicas: int = Field(default=2, ge=1)
    doors: int = Field(default=1, ge=1)
    cpus_per_replica: float = Field(default=1, ge=0)
    gpus_per_replica: float = Field(default=0, ge=0)
    max_ongoing: int = Field(default=256, ge=1)
    max_body_bytes: int = Field(default=32 * 1024**2, ge=1)
    start_timeout_seconds: float = Field(default=900, gt=0)
    drain_seconds: float = Field(default=30, ge=0)
    retry_seconds: float = Field(default=30, ge=0)
    by_adapter: bool = True

    def serve_command(self, replica: str) -> list[str]:
        """Return the command line of one replica, on a free port of the loopback interface."""
        command = [*shlex.split(self.command), "--root", str(self.root.absolute()), "serve"]
        command += ["--host", "127.0.0.1", "--port", "0", "--replica", replica]
        command += ["--model", str(self.model.absolute())] if self.model else []
        own = shlex.split(self.vllm)
        return [*command, "--", *own] if own else command

    @property
    def environment(self) -> dict[str, str]:
        """Return the settings of a replica that its command line does not hold."""
        found = {"WARDROBE_DRAIN_SECONDS": f"{self.drain_seconds:g}"}
        if self.by_adapter and self.replicas > 1:
            # Or each would begin with the same stables, as many as fit.
            found["WARDROBE_RESIDENCY__PRELOAD_STABLE"] = "false"
        return found

    @property
    def stop_seconds(self) -> float:
        """Return how long a replica may take to end."""
        return math.ceil(self.drain_seconds + LAUNCHER_GRACE_SECONDS)
