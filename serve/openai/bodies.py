"""What bodies of platform requests have in common; each is a `registry.api.documents.Request`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from registry.api.documents import Request

MAX_METADATA = 16
"""Most pairs of `metadata`, as at OpenAI."""


class ExpiresAfter(Request):
    """When a file expires, counted from when it was made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3_600, le=2_592_000)]


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=MAX_METADATA),
]
"""Words of the client's own that come back with every object."""
