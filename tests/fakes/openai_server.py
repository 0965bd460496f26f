"""A small OpenAI-shaped server on a real socket: each model is a function of the conversation."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.http_server import served

Answer = Callable[[list[dict[str, str]]], Any]
"""What a model says to a conversation: a text, or a whole message."""


@dataclass
class OpenAIServer:
    """`models` answer by name; `failures` are the statuses of the next requests; `seen` are all bodies.

    `tokenize` makes the ids of a prompt; without it they are the lengths of its words.
    """

    models: Mapping[str, Answer]
    digests: Mapping[str, str] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    logprobs: bool = True
    tokenize: Callable[[list[dict[str, str]]], list[int]] | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/models", self.list_models),
            ]
        )

    async def list_models(self, _request: Request) -> Response:
        rows = [{"id": name, "parent": "base" if "@" in name else None} for name in self.models]
        return JSONResponse({"data": rows})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        return self._answer(body, body["messages"], _message)

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        prompt = body["prompt"]
        text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
        chat = [{"role": "user", "content": text}]
        return self._answer(body, chat, lambda text: {"text": text})

    def _answer(
        self, body: dict[str, Any], chat: list[dict[str, str]], shape: Callable[[Any], Any]
    ) -> Response:
        with self.lock:
            self.seen.append(body)
            self.asked[body["model"]] += 1
            status = self.failures.pop(0) if self.failures else 200
        if status != 200:
            error = {"error": {"message": f"planned {status}"}}
            return JSONResponse(error, status, headers={"retry-after": "0"})
        model = body["model"]
        if model not in self.models:
            return JSONResponse({"error": {"message": f"no model {model}"}}, 404)
        text = self.models[model](chat)
        headers = {"x-wardrobe-digest": self.digests[model]} if model in self.digests else {}
        words = sum(len(one["content"].split()) for one in chat)
        choice = {**shape(text), "finish_reason": "stop"}
        found: dict[str, Any] = {
            "usage": {"prompt_tokens": words, "completion_tokens": len(str(text).split())}
        }
        if body.get("echo") and self.logprobs:
            choice["logprobs"] = _echo(body["prompt"])
        if isinstance(body.get("prompt"), list) and self.logprobs:
            rest = [{str(token): {"logprob": -token / 10}} for token in body["prompt"][1:]]
            choice["prompt_logprobs"] = [None, *rest]
        if "allowed_token_ids" in body and self.logprobs:
            (token,) = body["allowed_token_ids"]
            choice["logprobs"] = {"token_logprobs": [-token / 100]}
        if body.get("return_token_ids") and self.logprobs:
            words_of = [len(word) for one in chat for word in one["content"].split()]
            found["prompt_token_ids"] = words_of if self.tokenize is None else self.tokenize(chat)
        if "prompt_logprobs" in body and self.logprobs:
            found["prompt_logprobs"] = [None, *([{"1": {"logprob": -0.5}}] * (words - 1))]
        return JSONResponse({**found, "choices": [choice]}, headers=headers)


def _message(said: Any) -> dict[str, Any]:
    return {"message": said if isinstance(said, dict) else {"content": said}}


@contextmanager
def openai_server(models: Mapping[str, Answer], **settings: Any) -> Iterator[tuple[str, OpenAIServer]]:
    """Serve `models` and give the URL and the server."""
    server = OpenAIServer(models, **settings)
    with served(server.app()) as url:
        yield url, server


def last(chat: list[dict[str, str]]) -> str:
    """Return the last message."""
    return chat[-1]["content"]


def write_suite(folder: Any, items: list[dict[str, Any]], **suite: Any) -> Any:
    """Write a suite of exact answers into `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    body = {"name": "task", "items": "items.jsonl", "graders": [{"type": "exact"}], **suite}
    path = folder / f"{body['name']}.yaml"
    path.write_text(json.dumps(body))
    return path


def _echo(prompt: str) -> dict[str, Any]:
    offsets, values = [], []
    for index, letter in enumerate(prompt):
        if index == 0 or prompt[index - 1] == " ":
            offsets.append(index)
            values.append(None if index == 0 else -0.25)
        assert letter
    return {"token_logprobs": [*values, -9.0], "text_offset": [*offsets, len(prompt)]}
