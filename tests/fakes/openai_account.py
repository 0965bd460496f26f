"""An OpenAI account on a real socket: jobs, files, models that answer; each can be made to fail.

`cuts` is how many contents break off after their first half.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.http_server import served

KEY = "sk-secret-0123456789"
PAGE = 2
"""Jobs of one page: small, so that a list has several."""


def chat_row(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """Return a training row."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


ROWS = [chat_row(f"word number {number}", f"WORD NUMBER {number}") for number in range(40)]
"""The rows of an account's first job in tests."""


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    """Return the rows as a file."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class FakeAccount:
    """`answer` is what every model says; `failures` are the next requests' statuses by a path's beginning."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    answer: Callable[[dict[str, Any]], str] = lambda body: body["messages"][-1]["content"].upper()
    gone: set[str] = field(default_factory=set)
    refused: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, list[int]] = field(default_factory=dict)
    cuts: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    methods: set[tuple[str, str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, number: int, rows: list[dict[str, Any]], **more: Any) -> str:
        """Give the account a job that succeeded, with its files; return the job's id."""
        id, file, result = f"ftjob-{number:024}", f"file-train{number}", f"file-result{number}"  # noqa: A001
        self.files[file] = jsonl(rows)
        self.files[result] = base64.b64encode(b"step,train_loss\n1,0.5\n")
        base = "gpt-4o-mini-2024-07-18"
        facts: dict[str, Any] = {
            "id": id, "object": "fine_tuning.job", "created_at": 1_700_000_000 + number,
            "status": "succeeded",
            "model": base, "fine_tuned_model": f"ft:{base}:acme:shop:A{number:07}",
            "training_file": file, "validation_file": None, "result_files": [result],
            "seed": 7, "error": None,
            "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto"}}},
        }  # fmt: skip
        self.jobs.insert(0, facts | more)
        return id

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/v1/fine_tuning/jobs", self._list),
                Route("/v1/files/{id}/content", self._content),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _list(self, request: Request) -> Response:
        if (failure := self._failed(request)) is not None:
            return failure
        ids = [one["id"] for one in self.jobs]
        after = request.query_params.get("after")
        begin = ids.index(after) + 1 if after else 0
        page = self.jobs[begin : begin + PAGE]
        return JSONResponse({"object": "list", "data": page, "has_more": begin + PAGE < len(ids)})

    async def _content(self, request: Request) -> Response:
        if (failure := self._failed(request)) is not None:
            return failure
        found = self.files.get(request.path_params["id"])
        if found is None:
            return _error(404, None, "No such File object")
        with self.lock:
            cut, self.cuts = self.cuts > 0, max(0, self.cuts - 1)
        length = {"content-length": str(len(found))}
        return StreamingResponse(_broken(found), headers=length) if cut else Response(found)

    async def _chat(self, request: Request) -> Response:
        if (failure := self._failed(request)) is not None:
            return failure
        body = await request.json()
        with self.lock:
            self.bodies.append(body)
        if body["model"] in self.gone:
            return _error(404, "model_not_found", "The model does not exist")
        for key, message in self.refused.items():
            if key in body:
                return _error(400, "unsupported_value", message)
        text = self.answer(body)
        choice: dict[str, Any] = {"finish_reason": "stop"}
        choice |= {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})

    def _failed(self, request: Request) -> Response | None:
        path = request.url.path.removeprefix("/v1/")
        with self.lock:
            self.asked[path] += 1
            self.methods.add((request.method, path.split("/")[0]))
            waiting = next((left for begin, left in self.failures.items() if path.startswith(begin)), [])
            status = waiting.pop(0) if waiting else 200
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, "invalid_api_key", f"Incorrect API key provided: {KEY}")
        return None if status == 200 else _error(status, None, f"planned {status} for {KEY}")


async def _broken(content: bytes) -> AsyncIterator[bytes]:
    yield content[: len(content) // 2]
    raise ConnectionResetError("planned")


def _error(status: int, code: str | None, message: str) -> Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return JSONResponse(body, status, headers={"retry-after": "3"})


@contextmanager
def account_server(account: FakeAccount) -> Iterator[str]:
    """Serve an account and give its URL."""
    with served(account.app()) as url:
        yield url
