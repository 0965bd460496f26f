"""The examples' clients on a server: every answer names its version, and what breaks off is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.types import Receive, Send

from deploy.examples.clients import Asked, Crowd
from deploy.examples.rows import DemoRow
from deploy.examples.session import connect, score
from deploy.examples.tasks import DemoTask
from tests.fakes.inner import InnerApp, Seen, _body, _event, _start
from tests.fakes.served import make_root, publish, serve

TASK = DemoTask(
    "medical", "diagnosis → chapter", "?", ("eye", "skin"), (), (DemoRow("iritis", "eye", "H20"),)
)


class Labels(InnerApp):
    """Answers every streamed chat with a label, as vLLM does: each event has the id and the model."""

    async def _play(self, seen: Seen, receive: Receive, send: Send) -> None:
        if not seen.body.get("stream") or seen.body.get("play"):
            await super()._play(seen, receive, send)
            return
        await send(_start(200, b"text/event-stream; charset=utf-8"))
        head = {"id": f"chatcmpl-{seen.headers['x-request-id']}", "model": seen.body["model"]}
        for delta, reason in (({"content": "eye"}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            await send(_event({**head, "choices": [choice]}))
        await send(_body(b"data: [DONE]\n\n"))
        await send(_body(b"", more=False))


async def crowd_of(url: str, **options: object) -> list[Asked]:
    async with connect(url) as client, Crowd(client, TASK, options) as crowd:
        await crowd.wait_answers(8)
        assert crowd.answered_by() in {"medical@1: " + str(len(crowd.asked)), ""}
    return crowd.asked


def test_every_answer_names_its_version_and_what_breaks_off_is_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "medical", seed=1)
    with serve(registry, tmp_path, inner=Labels()) as server:
        asked = asyncio.run(crowd_of(server.server.url))
        assert {one.versions for one in asked} == {(1,)}
        assert {one.error for one in asked} == {None}
        assert all(one.began <= one.first <= one.ended for one in asked)
        sessions = [seen.headers["x-session-id"] for seen in server.inner.seen]
        assert len(set(sessions)) == len(sessions) >= 8
        broken = asyncio.run(crowd_of(server.server.url, extra_body={"play": "error"}))
        assert None not in {one.error for one in broken}
        assert {one.versions for one in broken} == {()}


def test_an_answer_that_is_not_exactly_the_label_is_wrong(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "medical", seed=1)

    async def ask(url: str) -> tuple[int, int]:
        async with connect(url) as client:
            found = await score(client, "medical", TASK)
        return found.right, found.asked

    with serve(registry, tmp_path) as server:
        assert asyncio.run(ask(server.server.url)) == (0, 1)
