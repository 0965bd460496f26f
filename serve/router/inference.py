"""The hot path: one request with a `model`, from its headers to its outcome.

Everything that can be made once per version is in its target; a request that finds its version loaded
touches no disk, no lock and no log. Order: is the server open, who asks, body, model, version, engine.
"""

from __future__ import annotations

import asyncio
import logging
import re
from time import monotonic

from msgspec import Raw
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.errors import WardrobeError
from registry.keys import Scope as KeyScope
from serve.errors import BadBody, Busy, EngineFailed, TimedOut, TooManyRequests
from serve.router.assignment import Arm, unit_digest
from serve.router.auth import ANONYMOUS, authorize
from serve.router.body import (
    ClientLeft,
    cap_tokens,
    is_true,
    join_fields,
    parse_fields,
    read_body,
)
from serve.router.booking import NO_UNIT, assign
from serve.router.exchange import Exchange
from serve.router.openai_errors import rejection_reason, send_error
from serve.router.paths import Dialect, Endpoint
from serve.router.rescue import HeldExchange
from serve.router.runtime import Runtime
from serve.router.shadow import Shadows
from serve.router.streams import Outcome
from serve.router.targets import OpenRollout, Plan, Target

_log = logging.getLogger("wardrobe.router")
_ECHOED = re.compile(rb"[\x21-\x7e]{1,128}")
_REPLACED = frozenset({b"x-request-id", b"content-length", b"transfer-encoding"})

RawHeaders = dict[bytes, bytes]

COPY_SECONDS = 600.0
"""How long a shadow copy may take where requests have no limit of their own."""


class Inference:
    """Forwards requests to `app` under the rules of `runtime`.

    The functions of this path are few and long for this code base: a call costs every request.
    """

    __slots__ = (
        "app", "inflight", "max_body_bytes", "max_concurrency", "max_tokens", "refused_fields", "runtime",
        "shadows", "total_seconds",
    )  # fmt: skip

    def __init__(self, app: ASGIApp, runtime: Runtime, refused_fields: frozenset[str]) -> None:
        self.app = app
        self.runtime = runtime
        self.refused_fields = refused_fields
        self.inflight = 0
        self.max_body_bytes = runtime.limits.max_body_bytes
        self.max_concurrency = runtime.limits.max_concurrency
        self.max_tokens = runtime.limits.max_tokens
        self.total_seconds = runtime.limits.total_seconds
        self.shadows = Shadows(self._copy)

    async def handle(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = monotonic()
        headers: RawHeaders = dict(scope["headers"])
        self.inflight += 1
        try:
            self._admit(headers)
            message = await receive()
            body = message.get("body", b"")
            if message.get("more_body", False) or len(body) > self.max_body_bytes or not body:
                body = await read_body(receive, message, headers.get(b"content-length"), self.max_body_bytes)
            fields = parse_fields(body, self.refused_fields)
            runtime = self.runtime
            plan = runtime.targets.find(runtime.watcher.view, fields.get("model"))
            rollout = plan.rollout
            if rollout is None:
                target, unit = _choose(plan, headers)
                exchange = Exchange(target, endpoint, scope, headers, fields, unit, receive, send, began)
                if endpoint.proves:
                    exchange.baseline = plan.baseline
                await self._carry(exchange, self.total_seconds)
            else:
                session = headers.get(b"x-session-id")
                target, unit, booking = assign(rollout, plan.adapter, session, fields, body)
                kind = HeldExchange if target.arm is Arm.CANARY else Exchange
                exchange = kind(target, endpoint, scope, headers, fields, unit, receive, send, began)
                if endpoint.proves:
                    exchange.booking = booking
                await self._carry_arm(rollout, exchange)
        except ClientLeft:
            pass
        except WardrobeError as error:
            await self._refuse(send, endpoint, headers, error)
        finally:
            self.inflight -= 1

    def _admit(self, headers: RawHeaders) -> str:
        """Let a request in and return who asks."""
        runtime = self.runtime
        if runtime.draining or not runtime.engine.alive():
            runtime.check_open()
        who = authorize(runtime.keys, headers, KeyScope.INFER) if runtime.keys.enabled else ANONYMOUS
        if self.max_concurrency is not None and self.inflight > self.max_concurrency:
            fact = f"{self.max_concurrency} requests are in flight, as many as are allowed"
            raise TooManyRequests("server", fact, "try again")
        return who

    def _prepare(self, exchange: Exchange) -> Scope:
        """Give the request its id and its body, and return the scope for the server behind."""
        target, endpoint, fields, headers = (
            exchange.target,
            exchange.endpoint,
            exchange.fields,
            exchange.headers,
        )
        request_id = self.runtime.ids.issue(target.subject, exchange.unit, target.tag)
        exchange.request_id = inner_id = request_id.encode()
        if b"x-request-id" in headers:
            exchange.request_id = _echo(headers[b"x-request-id"], inner_id)
        fields["model"] = target.model
        if self.max_tokens is not None and endpoint.cap_field is not None:
            cap_tokens(fields, endpoint.cap_field, self.max_tokens)
        if endpoint.dialect is Dialect.RESPONSES:
            if is_true(fields, "background"):
                fact = "is not served: a version could be unloaded while an answer goes on unseen"
                raise BadBody("background", fact, "leave it out, or stream", param="background")
            fields["request_id"] = Raw(f'"resp_{request_id}"'.encode())
        exchange.body = body = join_fields(fields)
        return _inner_scope(endpoint, exchange.scope, inner_id, len(body))

    async def _carry(self, exchange: Exchange, seconds: float | None) -> None:
        """Have the version loaded, forward within `seconds`, and book how it ended."""
        scope = self._prepare(exchange)
        target = exchange.target
        if target.own_template and (exchange.endpoint.renders or "messages" in exchange.fields):
            exchange.book(Outcome.ENGINE_ERROR if target.arm is Arm.CANARY else Outcome.CLIENT_ERROR)
            raise _foreign_template(target)
        slot, inflight, residency = target.slot, target.series.inflight, self.runtime.residency
        inflight.value += 1
        try:
            if slot is None:
                if target.refused is not None:
                    exchange.book(Outcome.ENGINE_ERROR)
                    raise target.refused
            elif not residency.take(slot, exchange.began):
                await self._acquire(exchange)
            try:
                if seconds is None:
                    await self.app(scope, exchange.receive, exchange.send)
                else:
                    await self._run_within(seconds, exchange, scope)
            except asyncio.CancelledError:
                await self._cut(exchange)
                raise
            except Exception:
                await exchange.break_off(EngineFailed("engine", "broke off on this request", "see its log"))
                raise
            finally:
                exchange.settle()
                if slot is not None:
                    residency.release(slot)
        finally:
            inflight.value -= 1

    async def _cut(self, exchange: Exchange) -> None:
        """Note a request that is cut short; one that its engine will never answer is told so."""
        if self.runtime.engine.alive():
            exchange.abandon()
        else:
            await exchange.break_off(self.runtime.why_dead())

    async def _acquire(self, exchange: Exchange) -> None:
        assert exchange.target.slot is not None, "or there is nothing to load"
        try:
            await self.runtime.residency.acquire(exchange.target.slot)
        except asyncio.CancelledError:
            if self.runtime.engine.alive():
                raise
            raise self.runtime.why_dead() from None
        except WardrobeError as error:
            exchange.book(Outcome.REJECTED if isinstance(error, Busy) else Outcome.ENGINE_ERROR)
            raise

    async def _carry_arm(self, rollout: OpenRollout, exchange: Exchange) -> None:
        """Carry a request of an open rollout: the canary's may be rescued, stable's may be copied."""
        if isinstance(exchange, HeldExchange):
            await self._carry_canary(rollout, exchange)
            return
        await self._carry(exchange, self.total_seconds)
        booking = exchange.booking
        if booking is not None and booking.mirrored and not self.runtime.draining:
            self.shadows.mirror(rollout, exchange)

    async def _carry_canary(self, rollout: OpenRollout, held: HeldExchange) -> None:
        """Carry a request of the canary; what it fails before its first byte, the control answers."""
        held.hold(self.runtime.engine.alive)
        try:
            await self._carry(held, self.total_seconds)
        except Exception as error:
            if not held.failure:
                raise
            _log.warning("%s failed a request, stable answers it: %r", held.target.name, error)
        if not held.failure or held.left:
            return
        now = monotonic()
        seconds = self.total_seconds
        if seconds is not None:
            seconds = max(0.0, seconds - (now - held.began))
        rescue = held.again(rollout.rescue, now)
        rollout.rescue.decided.value += 1
        try:
            await self._carry(rescue, seconds)
        finally:
            why = held.target.series.adapter, held.failure.value, rescue.outcome.value
            self.runtime.metrics.retries[why] += 1

    async def _copy(self, exchange: Exchange) -> None:
        """Carry a copy: within `COPY_SECONDS` where requests have no limit of their own."""
        await self._carry(exchange, self.total_seconds or COPY_SECONDS)

    async def _run_within(self, seconds: float, exchange: Exchange, scope: Scope) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:
                await self.app(scope, exchange.receive, exchange.send)
        except TimeoutError:
            if not limit.expired():
                raise
            exchange.timed_out = True
            fact = f"took longer than this server's {seconds:g} s"
            await exchange.break_off(TimedOut("request", fact, "ask for less, or raise limits.total_seconds"))

    async def _refuse(
        self, send: Send, endpoint: Endpoint, headers: RawHeaders, error: WardrobeError
    ) -> None:
        reason = rejection_reason(error)
        if reason is not None:
            self.runtime.metrics.rejections[reason] += 1
        request_id = _echo(headers.get(b"x-request-id", b""), b"")
        extra = [(b"x-request-id", request_id)] if request_id else []
        if error.http_status == 413 or self.runtime.draining:
            extra.append((b"connection", b"close"))
        await send_error(send, error, endpoint.dialect, extra)


def _choose(plan: Plan, headers: RawHeaders) -> tuple[Target, str]:
    """Return the target of a request outside any rollout, and the digest of its unit.

    A unit is worth its hash only where it decides or is named: explicit references have none, nor has a
    conversation while no rollout is open.
    """
    if plan.stable is None:
        assert plan.fixed is not None, "a plan has one of the three"
        plan.fixed.decided.value += 1
        return plan.fixed, NO_UNIT
    plan.stable.decided.value += 1
    session = headers.get(b"x-session-id")
    return plan.stable, NO_UNIT if session is None else unit_digest(session.decode("utf-8", "replace"))


def _foreign_template(target: Target) -> BadBody:
    """Return the refusal to render a conversation for a version that was trained on another template."""
    fact = "was trained on a chat template of its own, and this server renders with the base's"
    remedy = "send /v1/completions the rendered prompt, or register it without chat_template.jinja"
    return BadBody(target.name, fact, remedy, param="messages")


def _echo(own: bytes, otherwise: bytes) -> bytes:
    """Return the request id of the answer: the client's own where it is fit for a header."""
    return own if _ECHOED.fullmatch(own) else otherwise


def _inner_scope(endpoint: Endpoint, scope: Scope, request_id: bytes, size: int) -> Scope:
    """Return a fresh scope with the length and the request id of what is forwarded."""
    lines = [header for header in scope["headers"] if header[0] not in _REPLACED]
    lines += ((b"content-length", b"%d" % size), (b"x-request-id", request_id))
    inner = dict(scope)
    inner["headers"] = lines
    if endpoint.inner_path is not None:
        inner["path"], inner["raw_path"] = endpoint.inner_path, endpoint.inner_path.encode()
    return inner
