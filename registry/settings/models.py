"""The base of every block of settings, and a refusal that knows its remedy."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A block of settings: frozen, and nothing in it that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Advice(ValueError):
    """A refused value whose remedy is known; validators of settings raise it."""

    def __init__(self, fact: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(fact)
