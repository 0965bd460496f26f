"""From the `model` of a request to the version that answers it.

Pure resolution over one view, and a cache of its results for the hot path: a hit is one dictionary
look-up by the bytes that the client wrote. A new view empties the cache. Invariant: an arm of an open
rollout always has its target; a version that may not be served is refused when a request gets there,
so a broken canary is nobody's 404.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
from msgspec import Raw

from registry.errors import CorruptStore, InvalidName, NotFound, NotServable, Quarantined, WardrobeError
from registry.names import ModelRef, parse_model
from registry.records import RolloutEntry, Version
from registry.validation.chat_template import TEMPLATE_NAME
from registry.views.view import EMPTY, AdapterView, View, no_adapter
from serve.errors import BadBody, ModelNotFound
from serve.groups.sight import EVERYTHING, Sight
from serve.rollout.assignment import Arm
from serve.rollout.recording.baselines import BaselineArm
from serve.rollout.recording.recorder import Recorder, Recorders
from serve.router.endpoints.response_id import BASE_SUBJECT, TAG_DIGITS
from serve.router.residents.slot import ResidentSlot
from serve.router.residents.succession import Succession
from serve.router.telemetry.metrics import ArmSeries, Gauge, Reason, RouterMetrics

_CACHED_SPELLINGS = 10_000
_UNNAMED = "(none named)"
"""In place of the name, where a request without `model` asks nothing that exists."""

_log = logging.getLogger("wardrobe.router")


@dataclass(frozen=True, slots=True, eq=False)
class RouteTarget:
    """One version (or the base) as an arm: everything that a request needs of it, made once.

    `model` is the JSON string for the engine; `subject` and `tag` (of the rollout) go into the response
    id; `headers` are the response's; `slot` is None for the base, and for a version that is `refused`.
    `decided` counts the requests that were sent here; `own_template` is true where the version was trained
    on another chat template than the base's, which alone the engine renders with.
    """

    name: str
    arm: Arm
    model: Raw
    subject: str
    headers: tuple[tuple[bytes, bytes], ...]
    series: ArmSeries
    decided: Gauge
    slot: ResidentSlot | None = None
    tag: str = ""
    refused: WardrobeError | None = None
    own_template: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class RoutePlan:
    """What a model name stands for.

    Exactly one of: `fixed`, of an explicit reference or the base; `stable`, of a bare name, with its
    `baseline`; `rollout`, of a bare name while one is open. A plan that is not `lasting` is made for one
    request: the version that the name points to is still being loaded.
    """

    adapter: str
    fixed: RouteTarget | None = None
    stable: RouteTarget | None = None
    baseline: BaselineArm | None = None
    rollout: RolloutTarget | None = None
    lasting: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class RolloutTarget:
    """A bare name's open rollout: `arms` are stable (the control), canary and base.

    `rescue` is the control once more, for requests that the canary failed: its ids keep the canary's
    letter, because feedback belongs to the arm that was assigned. `shadow` answers copies, `mirrors`
    of them at once; `listed` counts those whose arm a list decided. `witnesses` are asked what an arm
    failed: stable for the canary, the base for stable, none where the base itself is the arm. Without
    `gives_base` the arm base is stable, as no evidence.
    """

    recorder: Recorder
    arms: Mapping[Arm, RouteTarget]
    rescue: RouteTarget
    shadow: RouteTarget
    mirrors: int
    listed: Mapping[Arm, Gauge]
    witnesses: Mapping[Arm, RouteTarget]
    gives_base: bool = True


def resolve(view: View, text: str, base_name: str) -> tuple[ModelRef, Version]:
    """Return what `text` names, and the version that answers it; no `base_name`: there is none to name.

    Raises: ModelNotFound: listing what exists. Quarantined: asked for by number or alias. NotServable: a
    bare name whose stable is quarantined.
    """
    try:
        tuned = view.tuned.get(text)
        if tuned is not None:
            return ModelRef(tuned.adapter, version=tuned.version), view.follow(tuned)
        ref = parse_model(text)
        if ref.adapter not in view.adapters:
            raise no_adapter(ref, view.adapters)
        version = view.resolve(ref)
    except InvalidName as error:
        raise _unknown(no_adapter(repr(text[:100]), view.adapters), base_name) from error
    except NotFound as error:
        raise _unknown(error, base_name) from error
    except Quarantined as error:
        if "@" in text or text in view.tuned:
            raise
        raise NotServable(error.subject, error.fact, error.remedy, param="model") from error
    return ref, version


def _unknown(error: NotFound, base_name: str) -> ModelNotFound:
    remedy = f"{error.remedy}; base: {base_name}" if base_name else error.remedy
    return ModelNotFound(error.subject, error.fact, remedy, param="model")


@dataclass(slots=True)
class Targets:
    """The cache: plans by the spelling of `model`, valid for one view, of which `sight` shows what exists.

    `recorders` gives a rollout's evidence, `baselines` an adapter's; without `recorders` a rollout is
    not seen. `succession` says who answers by a name
    while the version that it points to is not ready.
    """

    base_name: str
    base_digest: str
    metrics: RouterMetrics
    slot: Callable[[Version], ResidentSlot]
    also_base: frozenset[str] = frozenset()
    recorders: Recorders | None = None
    baselines: Callable[[str], BaselineArm] | None = None
    succession: Succession | None = None
    sight: Sight = EVERYTHING
    _view: View | None = None
    _seen: View = EMPTY
    _plans: dict[bytes, RoutePlan] = field(default_factory=dict)
    _base: RoutePlan | None = None

    def seen_by(self, sight: Sight) -> Targets:
        """Return the same for whom only `sight` exists."""
        return replace(self, sight=sight, _plans={}, _view=None, _seen=EMPTY, _base=None)

    def find(self, view: View, raw: Raw | None) -> RoutePlan:
        """Return the plan of a body's `model`; a missing or null one means the base, as in vLLM.

        Raises: ModelNotFound, Quarantined, NotServable: as `resolve`.
        """
        if view is not self._view:
            self._plans, self._view, self._seen = {}, view, self.sight.view(view)
        spelling = b"null" if raw is None else bytes(raw)
        plan = self._plans.get(spelling)
        if plan is None:
            plan = self._make(self._seen, spelling)
            if not plan.lasting:
                return plan
            if len(self._plans) >= _CACHED_SPELLINGS:
                self._plans.clear()
            self._plans[spelling] = plan
        return plan

    def _make(self, view: View, spelling: bytes) -> RoutePlan:
        text = _text(spelling)
        if text is None or text == self.base_name or text in self.also_base:
            if self.sight.base:
                self._base = self._base or self._base_plan()
                return self._base
            text = text or _UNNAMED
        adapter = view.adapters.get(text)
        if adapter is not None and adapter.rollout is not None and self.recorders is not None:
            return self._rollout_plan(adapter, adapter.rollout, self.recorders)
        ref, version, lasting = self._resolve(view, text)
        if ref.version is None and ref.alias is None:
            baseline = self.baselines(ref.adapter) if self.baselines is not None else None
            stable = self._target(version, Arm.STABLE)
            return RoutePlan(ref.adapter, stable=stable, baseline=baseline, lasting=lasting)
        return RoutePlan(ref.adapter, fixed=self._target(version, Arm.DIRECT), lasting=lasting)

    def _resolve(self, view: View, text: str) -> tuple[ModelRef, Version, bool]:
        """Return what `text` names, the version that answers it, and whether that lasts with the view."""
        succession = self.succession
        try:
            ref, version = resolve(view, text, self.base_name if self.sight.base else "")
        except (Quarantined, NotServable):
            standing_in = succession.stand_in(view, text) if succession is not None else None
            if standing_in is None:
                raise
            return parse_model(text), standing_in, False
        if ref.version is not None or succession is None:
            return ref, version, True
        return ref, *succession.answering(view, str(ref), version)

    def _rollout_plan(self, adapter: AdapterView, entry: RolloutEntry, recorders: Recorders) -> RoutePlan:
        try:
            recorder = recorders(entry)
        except CorruptStore as error:  # a later release wrote it: no reason to fail anybody
            _log.error("rollout of %s cannot be read, stable answers: %s", adapter.name, error)
            return RoutePlan(adapter.name, stable=self._arm(adapter, entry, entry.serving, Arm.STABLE))
        return RoutePlan(adapter.name, rollout=self._open(adapter, entry, recorder))

    def _open(self, adapter: AdapterView, entry: RolloutEntry, recorder: Recorder) -> RolloutTarget:
        stable = self._arm(adapter, entry, entry.stable, Arm.STABLE)
        canary = self._arm(adapter, entry, entry.canary, Arm.CANARY)
        # Who may not ask the base is answered by stable where the hash says base; nothing is booked then.
        base = self._arm(adapter, entry, 0, Arm.BASE) if self.sight.base else None
        wanted = recorder.policy.shadow
        return RolloutTarget(
            recorder=recorder,
            arms={Arm.STABLE: stable, Arm.CANARY: canary, Arm.BASE: base or stable},
            gives_base=base is not None,
            rescue=replace(
                stable,
                subject=f"{adapter.name}@{entry.stable}.{Arm.CANARY.letter}",
                decided=self.metrics.decisions(adapter.name, Arm.STABLE, Reason.FALLBACK),
            ),
            shadow=self._arm(adapter, entry, entry.canary, Arm.SHADOW),
            mirrors=wanted.concurrency if wanted is not None else 0,
            listed={
                arm: self.metrics.decisions(adapter.name, arm, Reason.LISTED)
                for arm in (Arm.STABLE, Arm.CANARY)
            },
            witnesses=self._witnesses(adapter, entry),
        )

    def _witnesses(self, adapter: AdapterView, entry: RolloutEntry) -> dict[Arm, RouteTarget]:
        found = {Arm.CANARY: self._arm(adapter, entry, entry.stable, Arm.SHADOW)}
        if entry.stable:
            found[Arm.STABLE] = self._arm(adapter, entry, 0, Arm.SHADOW)
        return found

    def _arm(self, adapter: AdapterView, entry: RolloutEntry, number: int, arm: Arm) -> RouteTarget:
        """Return the target of an arm; number 0 is the base model, booked under the adapter."""
        reason = Reason.SHADOW if arm is Arm.SHADOW else Reason.WEIGHT
        decided = self.metrics.decisions(adapter.name, arm, reason)
        refused = _refusal(adapter, number)
        if refused is None and number:
            return replace(self._target(adapter.versions[number], arm), decided=decided, tag=_tag(entry))
        name = f"{adapter.name}@{number}"
        answers, digest = (name, "") if number else (self.base_name, self.base_digest)
        return RouteTarget(
            name=answers,
            arm=arm,
            model=Raw(msgspec.json.encode(answers)),
            subject=f"{name}.{arm.letter}",
            headers=_headers(answers, arm, digest),
            series=self.metrics.bind(adapter.name, str(number), arm),
            decided=decided,
            tag=_tag(entry),
            refused=refused,
        )

    def _target(self, version: Version, arm: Arm) -> RouteTarget:
        series = self.metrics.bind(version.adapter, str(version.number), arm)
        reason = Reason.PINNED if arm is Arm.DIRECT else Reason.WEIGHT
        decided = self.metrics.decisions(version.adapter, arm, reason)
        subject = f"{version.name}.{arm.letter}"
        headers = _headers(version.name, arm, version.digest)
        model = Raw(msgspec.json.encode(version.name))
        own = any(file.path == TEMPLATE_NAME for file in version.files)
        slot = self.slot(version)
        return RouteTarget(
            version.name, arm, model, subject, headers, series, decided, slot, own_template=own
        )

    def _base_plan(self) -> RoutePlan:
        series = self.metrics.bind(self.base_name, "0", Arm.BASE)
        decided = self.metrics.decisions(self.base_name, Arm.BASE, Reason.PINNED)
        headers = _headers(self.base_name, Arm.BASE, self.base_digest)
        model = Raw(msgspec.json.encode(self.base_name))
        base = RouteTarget(self.base_name, Arm.BASE, model, BASE_SUBJECT, headers, series, decided)
        return RoutePlan(self.base_name, fixed=base)


def _tag(entry: RolloutEntry) -> str:
    return entry.rollout[:TAG_DIGITS]


def _refusal(adapter: AdapterView, number: int) -> WardrobeError | None:
    """Return why a version of an open rollout may not be served, None when it may (as the base, 0)."""
    name = f"{adapter.name}@{number}"
    if reason := adapter.quarantined.get(number):
        return NotServable(name, f"is quarantined ({reason})", "see `wardrobe rollout status`", param="model")
    if number and number not in adapter.versions:
        return NotServable(name, "is not there any more", "see `wardrobe rollout status`", param="model")
    return None


def _text(spelling: bytes) -> str | None:
    try:
        return msgspec.json.decode(spelling, type=str | None)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        found = spelling[:40].decode("utf-8", "replace")
        raise BadBody("model", f"is {found}, not a string", "name a model", param="model") from error


def _headers(name: str, arm: Arm, digest: str) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-wardrobe-adapter", name.encode()),
        (b"x-wardrobe-arm", arm.value.encode()),
        (b"x-wardrobe-digest", digest.encode()),
    )
