"""From the `model` of a request to the version that answers it.

Pure resolution over one view, and a cache of its results for the hot path: a hit is one dictionary
look-up by the bytes that the client wrote. A new view empties the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from registry.errors import InvalidName, NotFound, NotServable, Quarantined
from registry.names import ModelRef, parse_model
from registry.records import Version
from registry.view import View, no_adapter
from serve.errors import BadBody, ModelNotFound
from serve.router.assignment import Arm, Split
from serve.router.metrics import Metrics, Series
from serve.router.residency import Slot
from serve.router.response_id import BASE_SUBJECT

_CACHED_SPELLINGS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One version (or the base) as an arm: everything that a request needs of it, made once.

    `model` is the JSON string for the engine; `subject` goes into the response id; `headers` are the
    response's; `slot` is None for the base.
    """

    name: str
    arm: Arm
    model: Raw
    subject: str
    headers: tuple[tuple[bytes, bytes], ...]
    series: Series
    slot: Slot | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a model name stands for: one target per arm; `split` is the open rollout of a bare name."""

    adapter: str
    targets: Mapping[Arm, Target]
    split: Split | None = None
    fixed: Target | None = None


def resolve(view: View, text: str, base_name: str) -> tuple[ModelRef, Version]:
    """Return what `text` names, and the version that answers it.

    Raises: ModelNotFound: listing what exists. Quarantined: asked for by number or alias. NotServable: a
    bare name whose stable is quarantined.
    """
    try:
        ref = parse_model(text)
        if ref.adapter not in view.adapters:
            raise no_adapter(ref, view.adapters)
        version = view.resolve(ref)
    except InvalidName as error:
        raise _unknown(no_adapter(repr(text[:100]), view.adapters), base_name) from error
    except NotFound as error:
        raise _unknown(error, base_name) from error
    except Quarantined as error:
        if "@" in text:
            raise
        raise NotServable(error.subject, error.fact, error.remedy, param="model") from error
    return ref, version


def _unknown(error: NotFound, base_name: str) -> ModelNotFound:
    return ModelNotFound(error.subject, error.fact, f"{error.remedy}; base: {base_name}", param="model")


@dataclass(slots=True)
class Targets:
    """The cache: plans by the spelling of `model`, valid for one view."""

    base_name: str
    base_digest: str
    metrics: Metrics
    slot: Callable[[Version], Slot]
    also_base: frozenset[str] = frozenset()
    _view: View | None = None
    _plans: dict[bytes, Plan] = field(default_factory=dict)
    _base: Plan | None = None

    def find(self, view: View, raw: Raw | None) -> Plan:
        """Return the plan of a body's `model`; a missing or null one means the base, as in vLLM.

        Raises: ModelNotFound, Quarantined, NotServable: as `resolve`.
        """
        if view is not self._view:
            self._plans, self._view = {}, view
        spelling = b"null" if raw is None else bytes(raw)
        plan = self._plans.get(spelling)
        if plan is None:
            plan = self._make(view, spelling)
            if len(self._plans) >= _CACHED_SPELLINGS:
                self._plans.clear()
            self._plans[spelling] = plan
        return plan

    def _make(self, view: View, spelling: bytes) -> Plan:
        text = _text(spelling)
        if text is None or text == self.base_name or text in self.also_base:
            self._base = self._base or self._base_plan()
            return self._base
        ref, version = resolve(view, text, self.base_name)
        if ref.version is None and ref.alias is None:
            return Plan(ref.adapter, {Arm.STABLE: self._target(version, Arm.STABLE)})
        direct = self._target(version, Arm.DIRECT)
        return Plan(ref.adapter, {Arm.DIRECT: direct}, fixed=direct)

    def _target(self, version: Version, arm: Arm) -> Target:
        series = self.metrics.bind(version.adapter, str(version.number), arm)
        subject = f"{version.name}.{arm.letter}"
        headers = _headers(version.name, arm, version.digest)
        model = Raw(msgspec.json.encode(version.name))
        return Target(version.name, arm, model, subject, headers, series, self.slot(version))

    def _base_plan(self) -> Plan:
        series = self.metrics.bind(self.base_name, "0", Arm.BASE)
        headers = _headers(self.base_name, Arm.BASE, self.base_digest)
        model = Raw(msgspec.json.encode(self.base_name))
        base = Target(self.base_name, Arm.BASE, model, BASE_SUBJECT, headers, series)
        return Plan(self.base_name, {Arm.BASE: base}, fixed=base)


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
