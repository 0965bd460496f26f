"""The settings of fine-tuning, files and batches: the section `tuning` of `serve.settings`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ConfigDict, Field, SecretStr, field_serializer, field_validator

from registry.settings.models import Strict

_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,}={0,2}")


class _Settings(Strict):
    model_config = ConfigDict(use_attribute_docstrings=True)


class WebhookReceiver(_Settings):
    """Who is told when a fine-tuning job or a batch ends; OpenAI's clients check and read what is sent."""

    url: str = Field(pattern="^https?://[^/]+")
    """Where it is sent."""
    secret: SecretStr
    """`whsec_` and the base64 of 24 random bytes or more; it signs what is sent."""
    events: tuple[str, ...] = ()
    """Which are sent, such as `fine_tuning.job.succeeded` or `batch.completed`; none named: all."""

    @field_validator("secret")
    @classmethod
    def _is_a_secret(cls, value: SecretStr) -> SecretStr:
        if _SECRET.fullmatch(value.get_secret_value()) is None:
            raise ValueError("is not `whsec_` and the base64 of 24 random bytes or more")
        return value

    @field_serializer("secret", when_used="json")
    def _told(self, value: SecretStr) -> str:
        return value.get_secret_value()  # the launcher hands the settings to the server as JSON

    def wants(self, kind: str) -> bool:
        """Return whether this kind of event is sent."""
        return not self.events or kind in self.events


class TuningSettings(_Settings):
    """What the platform endpoints of OpenAI's API (files, fine-tuning, batches) take and do."""

    max_file_bytes: int = Field(default=512 * 1024**2, gt=0)
    """Largest file that is uploaded at once; `uploads` put larger ones together from parts."""
    max_upload_bytes: int = Field(default=8 * 1024**3, gt=0)
    """Largest file that is put together from parts."""
    organization: str = Field(default="wardrobe", pattern="^[A-Za-z0-9._-]{1,64}$")
    """Stands in the names of tuned models: `ft:BASE:ORGANIZATION:SUFFIX:ID`."""
    models: dict[str, str] = Field(default_factory=dict)
    """Stand-ins that jobs may name as their `model`: `{"gpt-4o-mini-2024-07-18" = "base"}`, or `NAME@N`."""
    worker: Literal["auto", "on", "off"] = "auto"
    """Whether the server trains jobs itself, in a process that starts when one waits; `auto`: where training
    is installed (`pip install 'wardrobe-llm[train]'`) and the engine has no GPU, or `device` names one."""
    device: str = Field(default="", pattern=r"^(cpu|cuda:[0-9A-Za-z-]+)?$")
    """What that process trains on: `cpu`, `cuda:1`; on the engine's own GPU leave memory for it
    (`--gpu-memory-utilization`). Empty: the processors."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of a training on the processors; default: as many as there are."""
    yield_seconds: float = Field(default=10.0, ge=0, le=3600)
    """Longest that a training on the processors stands still while requests are in flight; then it has one
    second. 0: it only takes what they leave of the processors."""
    python_graders: bool = True
    """Run the code of `python` graders, in the sandbox, for keys with the scope `tune`; it is no boundary."""
    webhooks: tuple[WebhookReceiver, ...] = ()
    """Who is told when a job or a batch ends."""
