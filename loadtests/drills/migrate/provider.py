"""The old provider: our own API on a real socket, with three jobs that succeeded, and all that it was asked.

Owns what is counted at the door: every answer, every content that was fetched, when. Behind the router stands
an engine without a model; what an old model says is its task's. `faults` makes the door misbehave.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loadtests.drills.migrate.tasks import TASKS, DrillTask
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope as KeyScope
from registry.store import Registry
from serve.connections.protocol import limited
from serve.router.app import Router
from serve.settings import ServeSettings
from serve.tuning_settings import TuningSettings
from tests.fakes.base import make_base
from tests.fakes.engine import FakeEngine
from tests.fakes.http_server import Server, running
from tests.fakes.tuner import Tuner

if TYPE_CHECKING:
    import openai

MODEL = "gpt-4o-mini-2024-07-18"
_CONTENT = "/content"


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One request that the provider answered well: what it was for, when it came, and the tokens it cost.

    `what` is the path of a GET, or the model and the question of a prompt.
    """

    what: tuple[str, ...]
    at: float
    tokens: int = 0


@dataclass
class DoorFaults:
    """What goes wrong at the door: the next answers' statuses, a wait to name, contents to cut."""

    statuses: list[int] = field(default_factory=list)
    retry_after_seconds: float | None = None
    cut_contents: int = 0
    spare_listing: bool = False


class ProviderDoor:
    """An ASGI app around the router: it counts, and misbehaves as `faults` say."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.asked: list[ProviderRequest] = []
        self.refused: list[tuple[float, int]] = []
        self.faults = DoorFaults()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = self._fault(scope["path"])
        if status:
            self.refused.append((time.time(), status))
            await _refuse(send, status, self.faults.retry_after_seconds)
            return
        if scope["path"].endswith(_CONTENT):
            await self._content(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _fault(self, path: str) -> int:
        listing = path.endswith("/fine_tuning/jobs")
        if not self.faults.statuses or (listing and self.faults.spare_listing):
            return 0
        return self.faults.statuses.pop(0)

    async def _content(self, scope: Scope, receive: Receive, send: Send) -> None:
        at, cut = time.time(), self.faults.cut_contents > 0
        self.faults.cut_contents -= cut

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.body" and cut:
                await send(
                    {**message, "body": message["body"][: len(message["body"]) // 2], "more_body": True}
                )
                raise ConnectionResetError("the drill cuts it here")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.asked.append(ProviderRequest((scope["path"],), at))

        await self._app(scope, receive, sending)


class OldModels:
    """What stands behind the router: each old model is a table of answers."""

    def __init__(self, seconds: float) -> None:
        self.answers: dict[str, dict[str, str]] = {}
        self.asked: list[ProviderRequest] = []
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a chat by the model's table, after the time that an answer takes."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = json.loads(await _read(receive))
        at, model = time.time(), str(body["model"])
        question = body["messages"][-1]["content"]
        await asyncio.sleep(self._seconds)
        said = self.answers.get(model, {}).get(question, "I do not know.")
        usage = {"prompt_tokens": _words(body["messages"]), "completion_tokens": len(said.split())}
        usage["total_tokens"] = sum(usage.values())
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        answer = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [choice], "usage": usage,
        }  # fmt: skip
        self.asked.append(ProviderRequest((model, question), at, usage["total_tokens"]))
        await _send_json(send, 200, answer)


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider while it runs: where, with which key, and its jobs, by their tasks' names."""

    url: str
    key: str
    door: ProviderDoor
    models: OldModels
    jobs: dict[str, Any]
    targets: dict[str, str]


@contextmanager
def provider(folder: Path, answer_seconds: float) -> Iterator[Provider]:
    """Run the provider until the block ends."""
    import openai

    registry = Registry.init(folder / "root", make_base(folder / "base"), name="tiny")
    _, key = KeyStore(registry.root).create([KeyScope.TUNE, KeyScope.INFER], who="drill")
    models = OldModels(answer_seconds)
    settings = ServeSettings(
        root=registry.root, replica="old", tuning=TuningSettings(models={MODEL: "base"}, organization="acme")
    )
    engine = FakeEngine(base_name="tiny")
    router = Router(
        models, settings=settings, engine_factory=lambda _: engine, collectors=CollectorRegistry()
    )
    door = ProviderDoor(router)
    config = uvicorn.Config(
        door, port=0, http=limited(settings.connections), log_level="critical", lifespan="on",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    with running(Server(config)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
        with client:
            tuner = Tuner(registry, folder)
            jobs = {task.name: _tuned(client, tuner, router, task, seed) for seed, task in enumerate(TASKS)}
        targets = {}
        for task in TASKS:
            found = registry.catalogue.tuned.find(str(jobs[task.name].fine_tuned_model))
            targets[task.name] = f"{found.adapter}@{found.version}"
            models.answers[targets[task.name]] = task.answers()
        yield Provider(server.url, key, door, models, jobs, targets)


def _tuned(client: openai.OpenAI, tuner: Tuner, router: Router, task: DrillTask, seed: int) -> Any:
    """Let the provider train a job, as a customer did; return the job that succeeded."""
    train, held_out = task.files()
    file = client.files.create(file=("train.jsonl", train), purpose="fine-tune").id
    more: dict[str, Any] = {}
    if held_out:
        found = client.files.create(file=("valid.jsonl", held_out), purpose="fine-tune")
        more["validation_file"] = found.id
    hyperparameters: Any = {"n_epochs": task.epochs, "batch_size": 4}
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=file, suffix=task.suffix, seed=seed,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}, **more,
    )  # fmt: skip
    tuner.run(job.id, seed=seed)
    assert router.runtime is not None
    router.runtime.watcher.refresh()
    return client.fine_tuning.jobs.retrieve(job.id)


async def _read(receive: Receive) -> bytes:
    chunks, more = [], True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)


def _words(messages: list[dict[str, str]]) -> int:
    return sum(len(one["content"].split()) for one in messages)


async def _refuse(send: Send, status: int, retry_after_seconds: float | None) -> None:
    more = [] if retry_after_seconds is None else [(b"retry-after", f"{retry_after_seconds:g}".encode())]
    error = {"message": f"planned {status}", "type": "server_error", "param": None, "code": None}
    await _send_json(send, status, {"error": error}, *more)


async def _send_json(send: Send, status: int, value: object, *more: tuple[bytes, bytes]) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
