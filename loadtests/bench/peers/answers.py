"""What a router must hand on before its speed counts: the mock's whole text, plain and streamed."""

from __future__ import annotations

import json

import httpx

from loadtests.bench.mock import ADAPTER, ANSWER, CHUNK, CHUNKS
from loadtests.bench.wrk import request_body


def complaint(port: int) -> str:
    """Ask for one answer of either kind; return what is wrong with it, or an empty text."""
    for stream in (False, True):
        kind = "stream" if stream else "json"
        reply = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            content=request_body(ADAPTER, stream=stream),
            headers={"content-type": "application/json"},
            timeout=60,
        )
        if reply.status_code != 200:
            return f"{kind}: status {reply.status_code}: {reply.text[:200]}"
        texts = streamed(reply.text) if stream else [content(reply.text)]
        wanted = streamed(CHUNK.decode()) * CHUNKS if stream else [content(ANSWER.decode())]
        if "".join(texts) != "".join(wanted):
            return f"{kind}: {len(''.join(texts))} characters of text instead of {len(''.join(wanted))}"
        if len(texts) != len(wanted):
            return f"{kind}: the text came in {len(texts)} pieces instead of {len(wanted)}"
    return ""


def content(answer: str) -> str:
    """Return the text of a whole answer."""
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def streamed(events: str) -> list[str]:
    """Return the texts of a stream that are not empty, in their order.

    Raises: KeyError: when an event is not a chunk of an answer, such as an error.
    """
    lines = [line.removeprefix("data:").strip() for line in events.splitlines() if line.startswith("data:")]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    texts = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    return [text for text in texts if text]
