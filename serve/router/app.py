"""The router: a pure ASGI class around an application, vLLM's own or a ten-line fake.

Owns the dispatch by path and the start and end of everything in `Runtime`. It knows nothing of vLLM but
the import path of the default engine. As vLLM's middleware it is the outermost layer, so nothing that is
not on the allow-list is ever seen by the application behind. Invariant: `__init__` never raises, because
the server would start anyway and answer 500 to everything; the error fails the lifespan instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.errors import UsageError, WardrobeError
from registry.keys import Scope as KeyScope
from serve import logs
from serve.engine.interface import Engine
from serve.errors import Busy, MethodNotAllowed, RouteNotFound
from serve.rollout.inner import InnerClient
from serve.router.access_log import AccessLog
from serve.router.accounted import AccountedInference
from serve.router.accounts import Keeper
from serve.router.auth import authorize
from serve.router.body import SERVER_PATH_FIELDS, TRANSFER_FIELDS, ClientLeft
from serve.router.inference import Inference
from serve.router.models import base_card, render_model, render_models
from serve.router.openai_errors import rejection_reason, send_error, send_json
from serve.router.paths import ENDPOINTS, Endpoint, Kind, find_endpoint
from serve.router.runtime import Runtime
from serve.router.tracing import Tracing
from serve.settings import HANDOVER_VARIABLE, ServeSettings

EngineFactory = Callable[[Scope], Engine]

_log = logging.getLogger("wardrobe.router")


class Router:
    """ASGI middleware; see the module. `engine_factory` gets the lifespan's scope."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServeSettings | None = None,
        engine_factory: EngineFactory | None = None,
        collectors: CollectorRegistry = REGISTRY,
    ) -> None:
        self.app = app
        self.runtime: Runtime | None = None
        self._engine_factory = engine_factory or _vllm_engine
        self._collectors = collectors
        self._inference: Inference | None = None
        self._control: ASGIApp | None = None
        self._error: Exception | None = None
        self._end_logs: Callable[[], None] = lambda: None
        self._tracing: Tracing | None = None
        self._settings: ServeSettings | None = settings
        if settings is None:
            try:
                self._settings = _read_settings()
            except Exception as error:  # noqa: BLE001 - whatever it is, the lifespan tells it
                self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection: HTTP by the allow-list, the lifespan with ours in it, nothing else."""
        if scope["type"] == "http":
            endpoint = ENDPOINTS.get(scope["raw_path"])
            if (
                endpoint is not None
                and endpoint.kind is Kind.INFERENCE
                and scope["method"] == "POST"
                and self._inference is not None
            ):
                await self._inference.handle(endpoint, scope, receive, send)
            else:
                await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise RuntimeError(f"unknown kind of connection: {scope['type']}")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = find_endpoint(scope["raw_path"])
        try:
            if endpoint is None:
                raise RouteNotFound(
                    _shown(scope), "is no path of this server", "see the README for its paths"
                )
            if scope["method"] == "OPTIONS":
                await send({"type": "http.response.start", "status": 204, "headers": [_allow(endpoint)]})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            if scope["method"] not in endpoint.methods:
                fact = f"has no {scope['method']}"
                raise MethodNotAllowed(_shown(scope), fact, f"use {' or '.join(endpoint.methods)}")
            await self._dispatch(endpoint, scope, receive, send)
        except WardrobeError as error:
            self._count_rejection(error)
            headers = [_allow(endpoint)] if endpoint is not None and error.http_status == 405 else []
            await send_error(send, error, headers=headers)

    async def _dispatch(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self.runtime
        if endpoint.kind is Kind.LIVE:
            await send_json(send, 200, b'{"status":"alive"}')
        elif endpoint.kind is Kind.READY:
            await _tell_ready(runtime, send)
        elif runtime is None:
            raise Busy("server", "has not started yet", "try again", rejection="engine_busy")
        elif endpoint.kind is Kind.ADMIN:
            await self._forward_control(runtime, scope, receive, send)
        elif endpoint.kind is Kind.FEEDBACK:
            who = authorize(runtime.keys, dict(scope["headers"]), KeyScope.INFER)
            with contextlib.suppress(ClientLeft):
                await runtime.feedback.answer(runtime.watcher.view, who, receive, send)
        elif endpoint.kind is Kind.MODELS:
            authorize(runtime.keys, dict(scope["headers"]), KeyScope.INFER)
            await _tell_models(runtime, endpoint.item, send)
        else:
            await self._forward_plain(runtime, endpoint, scope, receive, send)

    async def _forward_control(self, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        who = authorize(runtime.keys, dict(scope["headers"]), KeyScope.ADMIN)
        assert self._control is not None, "built before the runtime is set"
        await self._control({**scope, "state": {**scope.get("state", {}), "who": who}}, receive, send)

    async def _forward_plain(
        self, runtime: Runtime, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Forward what has no `model`: the exposition, and a stored response by an id that we issued."""
        scopes = None if endpoint.kind is Kind.METRICS else KeyScope.INFER
        authorize(runtime.keys, dict(scope["headers"]), scopes)
        if endpoint.kind is Kind.STORED and runtime.ids.verify(endpoint.item) is None:
            raise RouteNotFound(
                f"response {endpoint.item!r}", "is not one that this server gave", "check the id"
            )
        if endpoint.inner_path is not None:
            scope = {**scope, "path": endpoint.inner_path, "raw_path": endpoint.inner_path.encode()}
        await self.app(scope, receive, send)

    def _count_rejection(self, error: WardrobeError) -> None:
        reason = rejection_reason(error)
        if reason is not None and self.runtime is not None:
            self.runtime.metrics.rejections[reason] += 1

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._error is not None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self._error)})
            return

        async def watch(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                message = await self._start(scope)
            await send(message)

        async def announce() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self.runtime is not None:
                await self.runtime.stop()
                await self._end_accounts()
            return message

        await self.app(scope, announce, watch)

    async def _start(self, scope: Scope) -> Message:
        assert self._settings is not None, "or there is an error"
        try:
            self._end_logs = logs.begin(self._settings)
            self._tracing = Tracing.open(self._settings)
            engine = self._engine_factory(scope)
            runtime = await asyncio.to_thread(Runtime.build, self._settings, engine)
            runtime.ask = InnerClient(self.app, scope.get("app")).post
            await self._open(runtime)
        except Exception as error:  # noqa: BLE001 - the server ends on it, and says what it was
            _log.error("the router cannot start: %s", error, exc_info=not isinstance(error, WardrobeError))
            await self._end_accounts()
            return {"type": "lifespan.startup.failed", "message": str(error)}
        return {"type": "lifespan.startup.complete"}

    async def _open(self, runtime: Runtime) -> None:
        self._control = _build_control(runtime)
        try:
            await runtime.start(self._collectors)
        except BaseException:
            await runtime.stop()
            raise
        transfers = runtime.settings.vllm.keys() & {"kv_transfer_config", "ec_transfer_config"}
        refused = SERVER_PATH_FIELDS if transfers else SERVER_PATH_FIELDS | TRANSFER_FIELDS
        self._inference = self._build_inference(runtime, refused)
        runtime.on_drain.append(self._inference.shadows.cancel)
        self.runtime = runtime

    def _build_inference(self, runtime: Runtime, refused: frozenset[str]) -> Inference:
        keepers: list[Keeper] = [] if self._tracing is None else [self._tracing]
        if runtime.settings.access_log:
            keepers.append(AccessLog())
        if not keepers:
            return Inference(self.app, runtime, refused)
        return AccountedInference(self.app, runtime, refused, keepers)

    async def _end_accounts(self) -> None:
        if self._tracing is not None:
            await self._tracing.close()
        self._end_logs()


def _read_settings() -> ServeSettings:
    text = os.environ.get(HANDOVER_VARIABLE)
    try:
        return ServeSettings.model_validate_json(text) if text is not None else ServeSettings()
    except ValidationError as error:
        raise UsageError(
            HANDOVER_VARIABLE, f"is not valid: {error}", "start with `wardrobe serve`"
        ) from error


def _vllm_engine(scope: Scope) -> Engine:
    from serve.engine.vllm_engine import VllmEngine

    return VllmEngine.from_state(scope["app"].state)


def _build_control(runtime: Runtime) -> ASGIApp:
    from serve.control.app import build_control

    return build_control(runtime.registry, runtime)


def _shown(scope: Scope) -> str:
    return str(scope["path"])[:200]


def _allow(endpoint: Endpoint) -> tuple[bytes, bytes]:
    return (b"allow", ", ".join((*endpoint.methods, "OPTIONS")).encode())


async def _tell_ready(runtime: Runtime | None, send: Send) -> None:
    if runtime is not None and runtime.ready():
        await send_json(send, 200, b'{"status":"ready"}')
        return
    body = b'{"status":"not ready"}'
    if runtime is not None and runtime.draining:
        body = b'{"status":"draining"}'
    elif runtime is not None and runtime.watch.verdict is not None:
        words = json.dumps(f"the engine hangs: {runtime.watch.verdict.reason}")
        body = f'{{"status":"not ready","reason":{words}}}'.encode()
    await send_json(send, 503, body, [(b"retry-after", b"1")])


async def _tell_models(runtime: Runtime, item: str, send: Send) -> None:
    view, resident = runtime.watcher.view, frozenset(runtime.resident())
    base = base_card(runtime.engine.base_name, runtime.registry.base.fingerprint, runtime.began)
    body = render_model(view, base, resident, item) if item else render_models(view, base, resident)
    await send_json(send, 200, body)
