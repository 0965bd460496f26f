"""The hot path: one request with a `model`, from its headers to its outcome.

Everything that can be made once per version is in its target; a request that finds its version loaded
touches no disk, no lock and no log. Order: is the server open, who asks, body, model, version, engine.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import monotonic

from msgspec import Raw
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.entries.keyring import Caller
from registry.entries.rights import Scope as KeyScope
from registry.errors import WardrobeError
from serve.bounds.arrival import Arrivals
from serve.bounds.bodies import THREAD_BYTES, Bodies
from serve.bounds.structure import check_encoding
from serve.door.hosts import Hosts
from serve.errors import Busy, ClientLeft, EngineFailed, LimitReached, TimedOut, TooManyRequests
from serve.groups.charges import Charge
from serve.groups.queue import SeatTicket
from serve.groups.seating import Seating
from serve.outcomes import Outcome
from serve.protocol.body import Fields, cap_tokens, join_fields, name_model
from serve.protocol.fields import check_fields
from serve.protocol.form import generates
from serve.protocol.paths import Dialect, Endpoint
from serve.request_id import ANTHROPIC_PATHS, HEADER, echo_id, id_headers
from serve.responses.store import ResponseStore
from serve.responses.turn import PREVIOUS, ResponseTurn, begin
from serve.rollout.assignment import Arm
from serve.router.access import CallerAccess
from serve.router.booking import assign, choose, find_unit
from serve.router.busy import busy_line
from serve.router.doubts import Doubts
from serve.router.endpoints.auth import authorize
from serve.router.endpoints.openai_errors import rejection_reason, send_error
from serve.router.endpoints.response_id import NO_ANSWER
from serve.router.exchange import Exchange
from serve.router.forwarding import foreign_template, inner_scope
from serve.router.rescue import HeldExchange
from serve.router.runtime import Runtime
from serve.router.shadow import Shadows
from serve.router.targets import RolloutTarget, RoutePlan
from serve.settings import BUSY, FREE

_log = logging.getLogger("wardrobe.router")

RawHeaders = dict[bytes, bytes]

_NEEDED = frozenset({KeyScope.INFER})
"""As the allow-list says of all that comes here."""

COPY_SECONDS = 600.0
"""How long a shadow copy may take where requests have no limit of their own."""


class Inference:
    """Forwards requests to `app` under the rules of `runtime`.

    The functions of this path are few and long for this code base: a call costs every request.
    """

    __slots__ = (
        "access", "admission", "app", "arrivals", "bodies", "doubts", "errors_name_version", "hosts",
        "inflight", "max_body_bytes", "max_concurrency", "max_tokens", "runtime",
        "say_busy", "seating", "shadows", "stored", "total_seconds",
    )  # fmt: skip

    def __init__(
        self,
        app: ASGIApp,
        runtime: Runtime,
        refused_fields: frozenset[str],
        arrivals: Arrivals,
        hosts: Hosts,
    ) -> None:
        self.app = app
        self.runtime = runtime
        self.access = runtime.access
        self.arrivals = arrivals
        self.hosts = hosts
        self.bodies = Bodies(runtime.limits, runtime.engine, refused_fields)
        self.admission = runtime.admission
        self.inflight = 0
        self.say_busy = busy_line()
        self.max_body_bytes = runtime.limits.max_body_bytes
        self.max_concurrency = runtime.limits.max_concurrency
        self.max_tokens = runtime.limits.max_tokens
        self.total_seconds = runtime.limits.total_seconds
        self.seating = Seating(
            runtime.engine.seats, runtime.limits, tags=runtime.engine.abilities.prioritises
        )
        self.shadows = Shadows(self._copy)
        self.stored = ResponseStore(runtime.settings.responses)
        self.doubts = Doubts(self._copy, runtime.metrics.doubts, runtime.engine.alive)
        self.errors_name_version = runtime.settings.errors_name_version

    async def handle(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912
        """Answer one request; it takes its place among those in flight when its body has arrived."""
        began = monotonic()
        headers: RawHeaders = dict(scope["headers"])
        try:
            if self.hosts.restricted or not self.runtime.keys.enabled:
                self.hosts.check(headers.get(b"host"), scope["http_version"])
            caller = self._admit(headers)
            declared = headers.get(b"content-length")
            if b"expect" in headers:  # asking for the body would answer "100 Continue"
                self.arrivals.check_declared(declared, self.max_body_bytes)
            body, held = await self.arrivals.body(receive, declared, self.max_body_bytes)
            self.inflight += 1
            if self.inflight == 1 and self.say_busy is not None:
                self.say_busy(BUSY)
            try:
                self._check_place(1)  # others may have taken it meanwhile
                if b"content-encoding" in headers:
                    check_encoding(headers[b"content-encoding"])
                fields = self.bodies.parse_easy(body)
                if fields is None:
                    fields = await self.bodies.parse(body, endpoint)
                if endpoint.model:
                    name_model(fields, endpoint.model)
                if not endpoint.watched.isdisjoint(fields):
                    check_fields(endpoint.dialect.value, fields, self.runtime.engine.abilities)
                access = self.access.of(caller)
                if access.guarded and endpoint.proves:
                    access.pass_through(fields, headers)
                turn = None
                if endpoint.dialect is Dialect.RESPONSES:
                    turn = begin(self.stored, caller.who, fields, access.sees_answer)
                await self._answer(access, endpoint, scope, headers, fields, body, receive, send, began, turn)
            finally:
                self.inflight -= 1
                if not self.inflight and self.say_busy is not None:
                    self.say_busy(FREE)
                self.arrivals.held -= held
        except ClientLeft:
            pass
        except WardrobeError as error:
            await self._refuse(send, endpoint, headers, error)

    async def _answer(
        self,
        access: CallerAccess,
        endpoint: Endpoint,
        scope: Scope,
        headers: RawHeaders,
        fields: Fields,
        body: bytes,
        receive: Receive,
        send: Send,
        began: float,
        turn: ResponseTurn | None,
    ) -> None:
        """Find out who may answer and who pays, have a seat of the engine, and have it answer."""
        plan = access.targets.find(self.runtime.watcher.view, fields.get("model"))
        purse, charge, ticket = self.admission.purse(access.caller), None, None
        try:
            if purse is not None:
                charge = await self.admission.admit(purse, endpoint, fields, plan.adapter)
            if endpoint.proves:
                left = self._left(began)
                ticket = await self.seating.take(access.caller.group, fields, len(body), scope, receive, left)
            await self._route(  # by what is true now: it may have waited
                access, access.targets.find(self.runtime.watcher.view, fields.get("model")), ticket, charge,
                endpoint, scope, headers, fields, body, receive, send, began, turn,
            )  # fmt: skip
        finally:
            if ticket is not None:
                self.seating.leave(ticket)
            if charge is not None:
                self.admission.end(charge)

    async def _route(
        self,
        access: CallerAccess,
        plan: RoutePlan,
        ticket: SeatTicket | None,
        charge: Charge | None,
        endpoint: Endpoint,
        scope: Scope,
        headers: RawHeaders,
        fields: Fields,
        body: bytes,
        receive: Receive,
        send: Send,
        began: float,
        turn: ResponseTurn | None,
    ) -> None:
        """Choose who answers, and have it answer."""
        rollout = plan.rollout
        if rollout is None:
            target, unit = choose(plan, headers)
            exchange = Exchange(target, endpoint, scope, headers, fields, unit, receive, send, began)
            exchange.turn, exchange.ticket = turn, ticket
            exchange.pays(charge)
            exchange.baseline = plan.baseline if endpoint.proves else None
            await self._carry(exchange, self._left(began))
        else:
            kind, session = rollout.recorder.unit, headers.get(b"x-session-id")
            if len(body) < THREAD_BYTES:
                unit = find_unit(kind, session, fields)
            else:
                unit = await self.bodies.in_thread(find_unit, kind, session, fields)
            target, unit, booking = assign(rollout, plan.adapter, unit, fields, body, access.source)
            make = HeldExchange if target.arm is Arm.CANARY else Exchange
            exchange = make(target, endpoint, scope, headers, fields, unit, receive, send, began)
            exchange.turn, exchange.ticket = turn, ticket
            exchange.pays(charge)
            exchange.names_version = self.errors_name_version
            exchange.generates = endpoint.proves and generates(fields)
            exchange.booking = booking if exchange.generates else None
            await self._carry_arm(rollout, exchange)

    def _admit(self, headers: RawHeaders) -> Caller:
        """Let a request in and return who asks."""
        runtime = self.runtime
        if runtime.draining or not runtime.engine.alive():
            runtime.check_open()
        caller = authorize(runtime.keys, headers, _NEEDED)
        self._check_place()
        return caller

    def _check_place(self, own: int = 0) -> None:
        """Pass where a place is free, or where one is beside the `own` that this request holds."""
        if self.max_concurrency is not None and self.inflight - own >= self.max_concurrency:
            fact = f"{self.max_concurrency} requests are in flight, as many as are allowed"
            raise TooManyRequests("server", fact, "try again")

    def _left(self, began: float) -> float | None:
        """Return how many of the seconds are left that a request may take, None where it may take any."""
        return None if self.total_seconds is None else max(0.0, self.total_seconds - (monotonic() - began))

    def _prepare(self, exchange: Exchange) -> Scope:
        """Give the request its id and its body, and return the scope for the server behind."""
        target, endpoint, fields, headers = (
            exchange.target,
            exchange.endpoint,
            exchange.fields,
            exchange.headers,
        )
        tag = target.tag if exchange.generates else NO_ANSWER
        request_id = self.runtime.ids.issue(target.subject, exchange.unit, tag)
        exchange.request_id = inner_id = request_id.encode()
        if b"x-request-id" in headers:
            exchange.request_id = echo_id(headers[b"x-request-id"], inner_id)
            exchange.echoed = exchange.request_id is not inner_id
        fields["model"] = target.model
        if self.max_tokens is not None and endpoint.cap_fields:
            cap_tokens(fields, endpoint.cap_fields, self.max_tokens)
        if endpoint.dialect is Dialect.RESPONSES:
            fields.pop(PREVIOUS, None)  # what it named is in `input` (serve.responses)
            fields["request_id"] = Raw(f'"resp_{request_id}"'.encode())
        priority = 0 if exchange.ticket is None else self.seating.tag(exchange.ticket)
        if priority:
            fields.pop("priority", None)
        exchange.body = body = join_fields(fields)
        return inner_scope(endpoint, exchange.scope, inner_id, len(body), priority)

    async def _carry(self, exchange: Exchange, seconds: float | None) -> None:
        """Have the version loaded, forward within `seconds`, and book how it ended."""
        scope = self._prepare(exchange)
        target = exchange.target
        if target.own_template and (exchange.endpoint.renders or "messages" in exchange.fields):
            exchange.book(Outcome.ENGINE_ERROR if target.arm is Arm.CANARY else Outcome.CLIENT_ERROR)
            raise foreign_template(target)
        slot, inflight, residency = target.slot, target.series.inflight, self.runtime.residency
        inflight.value += 1
        try:
            if slot is None:
                if target.refused is not None:
                    exchange.book(Outcome.ENGINE_ERROR)
                    raise target.refused
            elif not residency.take(slot, exchange.began):
                seconds = await self._acquire(exchange, seconds)
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

    async def _acquire(self, exchange: Exchange, seconds: float | None) -> float | None:
        """Have the version loaded within `seconds`, and return how many are left."""
        assert exchange.target.slot is not None, "or there is nothing to load"
        began = monotonic()
        try:
            async with asyncio.timeout(seconds):
                residency, slot = self.runtime.residency, exchange.target.slot
                ready = residency.acquire(slot)
                await self.seating.aside(exchange.ticket, ready, partial(residency.release, slot))
        except asyncio.CancelledError:
            if self.runtime.engine.alive():
                raise
            raise self.runtime.why_dead() from None
        except WardrobeError as error:
            exchange.book(Outcome.REJECTED if isinstance(error, Busy) else Outcome.ENGINE_ERROR)
            raise
        except TimeoutError:
            exchange.book(Outcome.REJECTED)
            raise self._took_too_long() from None
        exchange.asked = monotonic()
        return None if seconds is None else max(0.0, seconds - (exchange.asked - began))

    async def _carry_arm(self, rollout: RolloutTarget, exchange: Exchange) -> None:
        """Carry a request of an open rollout: the canary's may be rescued, stable's may be copied."""
        if isinstance(exchange, HeldExchange):
            await self._carry_canary(rollout, exchange)
            return
        try:
            await self._carry(exchange, self._left(exchange.began))
        finally:
            if exchange.doubt is not None:
                self.doubts.examine(exchange, rollout.witnesses.get(exchange.target.arm))
        booking = exchange.booking
        if booking is not None and booking.mirrored and not self.runtime.draining:
            self.shadows.mirror(rollout, exchange)

    async def _carry_canary(self, rollout: RolloutTarget, held: HeldExchange) -> None:
        """Carry a request of the canary; what it fails before its first byte, the control answers."""
        held.hold(self.runtime.engine.alive)
        try:
            await self._carry(held, self._left(held.began))
        except Exception as error:
            if not held.failure:
                raise
            _log.warning("%s failed a request, stable answers it: %r", held.target.name, error)
        finally:
            if held.doubt is not None and (not held.failure or held.left):
                self.doubts.examine(held, rollout.witnesses.get(Arm.CANARY))
        if not held.failure or held.left:
            return
        seconds = self._left(held.began)
        rescue = held.again(rollout.rescue, monotonic())
        await self.seating.keep(held.ticket)
        rollout.rescue.decided.value += 1
        try:
            await self._carry(rescue, seconds)
        finally:
            why = held.target.series.adapter, held.failure.value, rescue.outcome.value
            self.runtime.metrics.retries[why] += 1
            self.doubts.settle(held, rescue.outcome)

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
            await exchange.break_off(self._took_too_long())

    def _took_too_long(self) -> TimedOut:
        fact = f"took longer than this server's {self.total_seconds or COPY_SECONDS:g} s"
        return TimedOut("request", fact, "ask for less, or raise limits.total_seconds")

    async def _refuse(
        self, send: Send, endpoint: Endpoint, headers: RawHeaders, error: WardrobeError
    ) -> None:
        reason = rejection_reason(error)
        if reason is not None:
            self.runtime.metrics.rejections[reason] += 1
        extra = self._name_refusal(endpoint, headers)
        extra += error.headers if isinstance(error, LimitReached) else []
        if error.http_status in {408, 413, 500} or self.runtime.draining:
            extra.append((b"connection", b"close"))
        await send_error(send, error, endpoint.dialect, extra)

    def _name_refusal(self, endpoint: Endpoint, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
        """Return the headers with the id of a request that no version answers."""
        path = ANTHROPIC_PATHS if endpoint.dialect is Dialect.MESSAGES else b""
        return id_headers(path, headers.get(HEADER, b""))
