"""The router: a pure ASGI class around an application, vLLM's own or a ten-line fake.

Owns the dispatch by path and the start and end of everything in `Runtime`. It knows nothing of vLLM but
the import path of the default engine. As vLLM's middleware it is the outermost layer, so nothing that is
not on the allow-list is ever seen by the application behind. Invariant: `__init__` never raises, because
the server would start anyway and answer 500 to everything; the error fails the lifespan instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.entries.keyring import Caller
from registry.entries.rights import Scope as KeyScope
from registry.errors import UsageError, WardrobeError
from serve import logs
from serve.batches.runner import BatchRunner
from serve.bounds.arrival import Arrivals
from serve.bounds.structure import check_encoding
from serve.console.entrance import leads_in, send_in
from serve.door.hosts import Hosts
from serve.door.pages import Pages
from serve.door.sending import for_pages
from serve.engine.interface import Engine
from serve.errors import Busy, ClientLeft, MethodNotAllowed, RouteNotFound, TaskNotServed
from serve.groups.metrics import QueueMetrics
from serve.groups.seating import BATCH_LINE
from serve.groups.sight import EVERYTHING
from serve.groups.usage import GroupMetrics
from serve.protocol.body import SERVER_PATH_FIELDS, TRANSFER_FIELDS
from serve.protocol.hints import hint
from serve.protocol.paths import (
    ENDPOINTS,
    Dialect,
    Endpoint,
    PathKind,
    find_endpoint,
    find_named,
    served_endpoints,
    unnamed,
)
from serve.request_id import HEADER, id_headers
from serve.rollout.decision.inner import InnerClient
from serve.router.access import CallerAccess
from serve.router.building import build_console, build_runtime
from serve.router.chores import Chores
from serve.router.endpoints.apis import build_batches, build_control, build_platform, own_methods
from serve.router.endpoints.auth import authorize
from serve.router.endpoints.feedback import MAX_BODY_BYTES as MAX_FEEDBACK_BYTES
from serve.router.endpoints.openai_errors import rejection_reason, send_error, send_json
from serve.router.endpoints.stored import tell_stored
from serve.router.endpoints.telling import tell_metrics, tell_models, tell_ready
from serve.router.endpoints.tuned import delete_model
from serve.router.inference import Inference
from serve.router.runtime import Runtime
from serve.router.telemetry.access_log import AccessLog
from serve.router.telemetry.accounted import ObservedInference
from serve.router.telemetry.accounts import RequestObserver
from serve.router.telemetry.tracing import Tracing
from serve.settings import ServeSettings, handed_over

EngineFactory = Callable[[Scope], Engine]

_PROBES = frozenset({PathKind.LIVE, PathKind.READY})
"""Asked by balancers and orchestrators under whatever address they have; they tell nothing."""

_LOOKS = frozenset({"GET", "HEAD"})

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
        self._endpoints = ENDPOINTS
        self._control: ASGIApp | None = None
        self._platform: ASGIApp | None = None
        self._console: ASGIApp | None = None
        self._batches: BatchRunner | None = None
        self._door: InnerClient | None = None
        self._chores: Chores | None = None
        self._error: Exception | None = None
        self._end_logs: Callable[[], None] = lambda: None
        self._tracing: Tracing | None = None
        self._hosts: Hosts | None = None
        self._pages: Pages | None = None
        self._arrivals: Arrivals | None = None
        self._settings: ServeSettings | None = settings
        if settings is None:
            try:
                self._settings = handed_over()
            except Exception as error:  # noqa: BLE001 - whatever it is, the lifespan tells it
                self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection: HTTP by the allow-list, the lifespan with ours in it, nothing else."""
        if scope["type"] == "http":
            if self._pages is not None:
                send = for_pages(self._pages, scope["headers"], send)
            endpoint = self._endpoints.get(scope["raw_path"])
            if endpoint is None:
                endpoint = find_named(scope["raw_path"], self._endpoints)
            if (
                endpoint is not None
                and endpoint.kind is PathKind.INFERENCE
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
        endpoint = find_endpoint(scope["raw_path"], self._endpoints)
        send = _naming(scope, send)
        try:
            if endpoint is None or endpoint.kind not in _PROBES:
                self._check_host(scope)
            if endpoint is None and leads_in(scope):
                await send_in(send)
                return
            if endpoint is None:
                raise RouteNotFound(_shown(scope), "is not a path here", hint(_shown(scope), _is_path))
            if scope["method"] == "OPTIONS":
                await self._tell_options(endpoint, scope, send)
                return
            if scope["method"] not in endpoint.methods:
                fact = f"has no {scope['method']}"
                raise MethodNotAllowed(_shown(scope), fact, f"use {' or '.join(endpoint.methods)}")
            await self._dispatch(endpoint, scope, receive, send)
        except WardrobeError as error:
            self._count_rejection(error)
            headers = [_allow(endpoint.methods)] if endpoint is not None and error.http_status == 405 else []
            if error.http_status in {408, 413}:
                headers.append((b"connection", b"close"))
            dialect = endpoint.dialect if endpoint is not None else Dialect.OPENAI
            await send_error(send, error, dialect, headers)

    def _check_host(self, scope: Scope) -> None:
        """Pass when the request was meant for this server.

        Raises: ForeignHost.
        """
        runtime = self.runtime
        if self._hosts is None or runtime is None:
            return  # then nothing is answered but that it starts
        if self._hosts.restricted or not runtime.keys.enabled:
            self._hosts.check(dict(scope["headers"]).get(b"host"), scope["http_version"])

    async def _tell_options(self, endpoint: Endpoint, scope: Scope, send: Send) -> None:
        methods = endpoint.methods
        if endpoint.kind in {PathKind.ADMIN, PathKind.PLATFORM} and self.runtime is not None:
            methods = own_methods(endpoint.kind, scope["path"])
            if not methods:
                raise RouteNotFound(_shown(scope), "is not a path here")
        headers = [_allow(methods)]
        if self._pages is not None:
            headers += self._pages.preflight(dict(scope["headers"]), methods) or ()
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _dispatch(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        runtime, needed = self.runtime, endpoint.needs(scope["method"])
        if endpoint.kind is PathKind.LIVE:
            await send_json(send, 200, b'{"status":"alive"}')
        elif endpoint.kind is PathKind.READY:
            await tell_ready(runtime, send)
        elif endpoint.kind is PathKind.CONSOLE and self._console is not None and self._arrivals is not None:
            await self._console(scope, self._arrivals.paced(receive), send)
        elif runtime is None or needed is None:
            raise Busy("server", "has not started yet", "try again", rejection="engine_busy")
        else:
            caller = authorize(runtime.keys, dict(scope["headers"]), needed)
            await self._answer_caller(runtime, caller, endpoint, scope, receive, send)

    async def _answer_caller(
        self,
        runtime: Runtime,
        caller: Caller,
        endpoint: Endpoint,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer who may ask it."""
        kind, access = endpoint.kind, runtime.access.of(caller)
        if kind is PathKind.ADMIN:
            await self._forward(self._control, caller, scope, receive, send)
        elif kind is PathKind.PLATFORM:
            await self._forward(self._platform, caller, scope, receive, send)
        elif kind is PathKind.FEEDBACK:
            await self._take_feedback(runtime, caller, scope, receive, send)
        elif kind is PathKind.MODELS and scope["method"] == "DELETE":
            await send_json(send, 200, await delete_model(runtime, caller, endpoint.item))
        elif kind is PathKind.MODELS:
            await tell_models(runtime, endpoint, runtime.access.looks(caller), send)
        elif kind is PathKind.METRICS:
            await tell_metrics(self.app, self._collectors, caller, scope, receive, send)
        elif kind is PathKind.STORED and self._inference is not None:
            await tell_stored(self._inference.stored, access, caller.who, endpoint, scope, send)
        else:
            raise _not_its_task(runtime, access, endpoint, _shown(scope))

    async def _take_feedback(
        self, runtime: Runtime, caller: Caller, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers, sight = dict(scope["headers"]), runtime.access.of(caller).sight
        check_encoding(headers.get(b"content-encoding"))
        assert self._arrivals is not None, "built before the runtime is set"
        with contextlib.suppress(ClientLeft):
            declared = headers.get(b"content-length")
            body = await self._arrivals.whole(receive, declared, MAX_FEEDBACK_BYTES)
            view = sight.view(runtime.watcher.view)
            await runtime.feedback.answer(view, caller, body, send, base=sight.base)

    async def _forward(
        self, app: ASGIApp | None, caller: Caller, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Have an API of ours answer."""
        headers = dict(scope["headers"])
        assert app is not None, "built before the runtime is set"
        assert self._arrivals is not None, "built before the runtime is set"
        assert self.runtime is not None, "or nobody was let in"
        known = self._pages is not None and self._pages.admits(headers.get(b"origin"))
        # Who may only look at what others made may not change it.
        sees_all = caller.allows(KeyScope.READ if scope["method"] in _LOOKS else KeyScope.ADMIN)
        state = {
            **scope.get("state", {}),
            "who": caller.who,
            "sees_all": sees_all,
            "sight": EVERYTHING if sees_all else self.runtime.access.of(caller).sight,
            "known_origin": known,
            "door": self._door,
        }
        await app({**scope, "state": state}, self._arrivals.paced(receive), send)

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
                if self._batches is not None:
                    await self._batches.stop()
                await self.runtime.stop()
                if self._chores is not None:
                    await self._chores.end()
                await self._end_accounts()
                if self._inference is not None:
                    self._inference.bodies.close()
            return message

        await self.app(scope, announce, watch)

    async def _start(self, scope: Scope) -> Message:
        assert self._settings is not None, "or there is an error"
        try:
            self._end_logs = logs.begin(self._settings)
            self._tracing = Tracing.open(self._settings)
            engine = self._engine_factory(scope)
            runtime = await asyncio.to_thread(build_runtime, self._settings, engine)
            runtime.ask = InnerClient(self.app, scope.get("app")).post
            self._door = InnerClient(self, scope.get("app"))
            await self._open(runtime, scope.get("app"))
        except Exception as error:  # noqa: BLE001 - the server ends on it, and says what it was
            _log.error("the router cannot start: %s", error, exc_info=not isinstance(error, WardrobeError))
            await self._end_accounts()
            return {"type": "lifespan.startup.failed", "message": str(error)}
        return {"type": "lifespan.startup.complete"}

    async def _open(self, runtime: Runtime, owner: Any) -> None:
        settings = runtime.settings
        if settings.cors_origins and not runtime.keys.enabled:
            fact = "lets web pages call this server, and no key exists that they would have to send"
            raise UsageError("cors_origins", fact, "make a key with `wardrobe keys create`")
        self._hosts = Hosts(settings.host, settings.allowed_hosts)
        self._pages = Pages(settings.cors_origins) if settings.cors_origins else None
        self._arrivals = Arrivals(settings.limits)
        self._control, self._platform = build_control(runtime), build_platform(runtime)
        try:
            await runtime.start(self._collectors)
        except BaseException:
            await runtime.stop()
            raise
        transfers = runtime.settings.vllm.keys() & {"kv_transfer_config", "ec_transfer_config"}
        refused = SERVER_PATH_FIELDS if transfers else SERVER_PATH_FIELDS | TRANSFER_FIELDS
        self._inference = self._build_inference(runtime, refused, self._arrivals, self._hosts)
        self._endpoints = served_endpoints(runtime.engine.abilities.paths)
        self._collectors.register(QueueMetrics(self._inference.seating.queue))
        runtime.on_drain.append(self._inference.shadows.cancel)
        runtime.on_drain.append(self._inference.doubts.cancel)
        self._chores = Chores(runtime)
        await self._chores.begin()
        self._console = build_console(runtime)
        self._collectors.register(GroupMetrics(runtime.admission.ledger, runtime.admission.limits))
        self.runtime = runtime
        if settings.batches.enabled:
            inference, door = self._inference, InnerClient(self, owner, {BATCH_LINE: True})
            self._batches = build_batches(runtime, door, lambda: inference.inflight)
            self._batches.begin(runtime.background)
            self._collectors.register(self._batches.metrics())

    def _build_inference(
        self, runtime: Runtime, refused: frozenset[str], arrivals: Arrivals, hosts: Hosts
    ) -> Inference:
        keepers: list[RequestObserver] = [] if self._tracing is None else [self._tracing]
        if runtime.settings.access_log:
            keepers.append(AccessLog())
        if not keepers:
            return Inference(self.app, runtime, refused, arrivals, hosts)
        return ObservedInference(self.app, runtime, refused, arrivals, hosts, keepers)

    async def _end_accounts(self) -> None:
        if self._tracing is not None:
            await self._tracing.close()
        self._end_logs()


def _vllm_engine(scope: Scope) -> Engine:
    from serve.engine.vllm_engine import VllmEngine

    return VllmEngine.from_app(scope["app"])


def _is_path(path: str) -> bool:
    return find_endpoint(path.encode()) is not None


def _shown(scope: Scope) -> str:
    return str(scope["path"])[:200]


def _not_its_task(runtime: Runtime, access: CallerAccess, endpoint: Endpoint, path: str) -> TaskNotServed:
    given = "text" if "/v1/completions" in (runtime.engine.abilities.paths or ()) else "vectors and scores"
    base = runtime.engine.base_name if access.sight.base else "this one"
    fact = f"needs a base model that gives {endpoint.gives}; {base} gives {given}"
    return TaskNotServed(path, fact, "serve such a model from a root of its own")


def _naming(scope: Scope, send: Send) -> Send:
    """Return a `send` that gives every answer the id of its request, unless it has one."""
    own = dict(scope["headers"]).get(HEADER, b"")

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if HEADER not in dict(headers):
                message = {**message, "headers": [*headers, *id_headers(unnamed(scope["raw_path"]), own)]}
        await send(message)

    return named


def _allow(methods: Iterable[str]) -> tuple[bytes, bytes]:
    return (b"allow", ", ".join((*methods, "OPTIONS")).encode())
