"""OpenAI's own client at a server of the tests."""

from __future__ import annotations

import openai

from tests.fakes.served import Served


def connect(served: Served, token: str = "none", retries: int = 0) -> openai.OpenAI:
    """Return a client that asks with `token`, and again as often as it is told."""
    return openai.OpenAI(base_url=f"{served.server.url}/v1", api_key=token, max_retries=retries)
