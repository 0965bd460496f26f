"""Lets a browser show an answer to the page that asked for it, whatever the answer is."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Message, Send

from serve.door.pages import Line, Pages


def for_pages(pages: Pages, headers: Iterable[Line], send: Send) -> Send:
    """Return a `send` whose answers say that the page may read them."""
    origin = next((value for name, value in headers if name == b"origin"), None)
    lines = pages.answer(origin)

    async def send_readable(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [line for line in message.get("headers", ()) if not _is_ours(line)]
            message = {**message, "headers": [*kept, *lines]}
        await send(message)

    return send_readable


def _is_ours(line: Line) -> bool:
    """Whether a layer below, as vLLM's own, has said what is said here."""
    name = line[0].lower()
    return name.startswith(b"access-control-allow-o") or (name, line[1].lower()) == (b"vary", b"origin")
