"""`/v1/fine_tuning/alpha/graders`: OpenAI's graders run and looked at, by the code that `wardrobe eval` uses.

The server does not import the training: a child process judges, held short in time and memory, and says first
what a model must be asked. That is asked of this very server, as the caller, so that his key decides which
models he may ask. Invariants: no child outlives its request; at most `MAX_CHILDREN` run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, Request
from pydantic import JsonValue

from registry.api.documents import Request as RequestDocument
from registry.errors import WardrobeError
from registry.foreign import python
from registry.tuning.graders import Grader, each_grader
from serve.openai.asker import Platform, PlatformOf, asker_of
from serve.openai.errors import RequestRefused
from serve.rollout.decision.inner import InnerAnswer, InnerClient

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", dependencies=[Depends(asker_of)])

CHILD = "train.evaluation.grading.openai.service"
CHILD_SECONDS = 60.0
ASK_SECONDS = 60.0
MAX_CHILDREN = 2
_CODE = ("python", "program")
_KEYS = ("authorization", "x-api-key", "api-key")
_FLAGS = (
    "formula_parse_error", "sample_parse_error", "truncated_observation_error", "unresponsive_reward_error",
    "invalid_variable_error", "other_error", "python_grader_server_error", "python_grader_runtime_error",
    "model_grader_server_error", "model_grader_refusal_error", "model_grader_parse_error",
)  # fmt: skip

_log = logging.getLogger("wardrobe.tuning")
_places: WeakKeyDictionary[Platform, asyncio.Semaphore] = WeakKeyDictionary()


class GraderCheck(RequestDocument):
    """A grader to look at."""

    grader: Grader


class GraderRun(RequestDocument):
    """A grader, an answer and the item that it answers."""

    grader: Grader
    model_sample: str
    item: dict[str, JsonValue] | None = None


class GraderChildFailed(WardrobeError):
    """A child process that did not say how it judged."""

    code = "grader_failed"


@dataclass(frozen=True, slots=True)
class _Caller:
    """The way back into this server as whoever asks; `stand_ins` are names that mean another model here."""

    door: InnerClient
    headers: Mapping[str, str]
    stand_ins: Mapping[str, str]

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to one question, or the error."""
        body = {
            "model": self.stand_ins.get(question["model"], question["model"]),
            "messages": [{"role": role, "content": text} for role, text in question["messages"]],
            "max_tokens": question["max_tokens"],
            "temperature": question["temperature"],
            "top_p": question["top_p"],
            **({} if question["seed"] is None else {"seed": question["seed"]}),
        }
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await self.door.send("/v1/chat/completions", json.dumps(body).encode(), self.key)
        except TimeoutError:
            return {"error": f"the model took longer than {ASK_SECONDS:g} s"}
        return _reply(answer)

    @property
    def key(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that say who asks."""
        return [
            (name.encode(), self.headers[name].encode("latin-1")) for name in _KEYS if name in self.headers
        ]


@router.post("/run")
async def run_grader(body: GraderRun, request: Request, platform: PlatformOf) -> dict[str, Any]:
    """Have a grader judge one answer."""
    require_allowed(body.grader, platform)
    began = time.monotonic()
    sent = await request.json()
    stand_ins = {
        name: platform.registry.base.name if meant == "base" else meant
        for name, meant in platform.settings.tuning.models.items()
    }
    caller = _Caller(request.scope["state"]["door"], dict(request.headers), stand_ins)
    task = {"grader": sent["grader"], "model_sample": body.model_sample, "item": body.item or {}}
    replies: dict[str, Any] = {}
    if _asks(body.grader):
        asked = (await _child(platform, {**task, "ask": "questions"}))["questions"]
        said = await asyncio.gather(*(caller.ask(one) for one in asked.values()))
        replies = dict(zip(asked, said, strict=True))
    found = (await _child(platform, {**task, "ask": "reward", "replies": replies}))["reward"]
    return _document(body.grader, found, time.monotonic() - began)


@router.post("/validate")
async def validate_grader(body: GraderCheck, request: Request, platform: PlatformOf) -> dict[str, Any]:
    """Say whether a grader is one that could judge here, by returning it."""
    require_allowed(body.grader, platform)
    sent = await request.json()
    await _child(platform, {"grader": sent["grader"], "model_sample": "", "item": {}, "ask": "questions"})
    return {"grader": sent["grader"]}


def require_allowed(grader: Grader, platform: Platform, param: str = "grader") -> None:
    """Pass where this server lets clients have this grader's code run.

    Raises: RequestRefused.
    """
    runs = any(one.type == "python" for one in each_grader(grader))
    if runs and not platform.settings.tuning.python_graders:
        raise _no_code(param)


def require_allowed_rewards(extras: Mapping[str, JsonValue], platform: Platform) -> None:
    """Pass where this server lets clients have the code run that `x_wardrobe` brings to a training.

    Raises: RequestRefused.
    """
    if not platform.settings.tuning.python_graders and _runs_code(extras.get("method")):
        raise _no_code("x_wardrobe.method")


def _no_code(param: str) -> RequestRefused:
    message = f"Invalid '{param}': this server runs no Python of clients (tuning.python_graders)."
    return RequestRefused(message, param=param, reason="python_graders_disabled")


def _runs_code(settings: JsonValue) -> bool:
    """Tell whether settings, at any depth, hold a grader that is code or runs what the model writes."""
    if isinstance(settings, dict):
        return settings.get("type") in _CODE or any(_runs_code(one) for one in settings.values())
    return isinstance(settings, list) and any(_runs_code(one) for one in settings)


def _asks(grader: Grader) -> bool:
    return any(one.type in {"score_model", "label_model"} for one in each_grader(grader))


def _document(grader: Grader, found: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    errors: dict[str, Any] = {flag: flag == found["flag"] for flag in _FLAGS}
    errors |= {"python_grader_server_error_type": None, "python_grader_runtime_error_details": None}
    errors["model_grader_server_error_details"] = None
    if (details := f"{found['flag']}_details") in errors:
        errors[details] = found["details"]
    if found["flag"] == "python_grader_server_error":
        errors["python_grader_server_error_type"] = found["details"]
    models = sorted({one.model for one in each_grader(grader) if one.type in {"score_model", "label_model"}})
    return {
        "reward": found["value"],
        "metadata": {
            "name": grader.name,
            "type": grader.type,
            "errors": errors,
            "execution_time": round(seconds, 4),
            "scores": found["parts"] or {grader.name: found["value"]},
            "token_usage": found["tokens"],
            "sampled_model_name": models[0] if models else None,
        },
        "x_wardrobe": {"details": found["details"] or None},
        "sub_rewards": found["parts"],
        "model_grader_token_usage_per_model": {models[0]: found["tokens"]} if len(models) == 1 else {},
    }


async def _child(platform: Platform, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return a child's answer to a task.

    Raises: RequestRefused: the grader cannot judge here; GraderChildFailed.
    """
    async with _places.setdefault(platform, asyncio.Semaphore(MAX_CHILDREN)):
        process = await asyncio.create_subprocess_exec(
            *python("-m", CHILD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(CHILD_SECONDS):
                out, err = await process.communicate(json.dumps(task).encode())
        except TimeoutError:
            fact = f"did not judge within {CHILD_SECONDS:g} s"
            raise GraderChildFailed("grader", fact, "make it simpler") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError as error:
        _log.error(
            "a grader's process ended with %s: %s", process.returncode, err.decode(errors="replace")[-2000:]
        )
        raise GraderChildFailed(
            "grader", "ended without an answer", "the server's log has the reason"
        ) from error
    if (refused := answer.get("refused")) is not None:
        raise RequestRefused(refused["message"], param=refused["param"] or "grader", reason="invalid_grader")
    return answer


def _reply(answer: InnerAnswer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
        if answer.status != 200:
            return {"error": str(found["error"]["message"])[:500]}
        usage = found.get("usage") or {}
        text = found["choices"][0]["message"].get("content") or ""
        return {"text": text, "tokens": int(usage.get("total_tokens") or 0)}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {"error": f"the model's answer ({answer.status}) cannot be read"}
