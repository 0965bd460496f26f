"""From the `model` of a request to the version that answers it.

Pure resolution over one view, and a cache of its results for the hot path: a hit is one dictionary
look-up by the bytes that the client wrote. A new view empties the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

import msgspec
from msgspec import Raw

from registry.errors import InvalidName, NotServable, Quarantined
from registry.names import CANARY, STABLE, ModelRef, parse_model
from registry.records import Version
from registry.view import AdapterView, View
from serve.errors import ModelNotFound
from serve.router.assignment import Arm, Split
from serve.router.metrics import Metrics, Series
from serve.router.residency import Slot
from serve.router.response_id import BASE_SUBJECT

SHOWN_NAMES = 20
"""How many existing names an error lists; the rest is counted."""

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


def resolve(view: View, ref: ModelRef, base_name: str) -> Version:
    """Return the version that `ref` names and that may be served.

    Raises: ModelNotFound: listing what exists. Quarantined, NotServable: with the reason.
    """
    adapter = view.adapters.get(ref.adapter)
    if adapter is None:
        raise unknown_model(str(ref), view, base_name)
    number = ref.version if ref.version is not None else _follow(adapter, ref)
    version = adapter.versions.get(number)
    if version is None:
        raise _missing(ref, "has no such version", (f"{ref.adapter}@{n}" for n in sorted(adapter.versions)))
    reason = adapter.quarantined.get(number)
    if reason is not None and ref.version is None:
        fact = f"its version {version.name} is quarantined: {reason}"
        raise NotServable(str(ref), fact, f"promote another version of {ref.adapter}", param="model")
    if reason is not None:
        raise Quarantined(version.name, f"is quarantined: {reason}", "ask for another version", param="model")
    return version


def unknown_model(text: str, view: View, base_name: str) -> ModelNotFound:
    """Return the error for a name that nobody has, listing the names that exist."""
    return ModelNotFound(
        f"model {text[:100]!r}",
        "does not exist here",
        _one_of([base_name, *sorted(view.adapters)]),
        param="model",
    )


def _follow(adapter: AdapterView, ref: ModelRef) -> int:
    alias = ref.alias or STABLE
    number = adapter.aliases.get(alias)
    if number is not None:
        return number
    if alias == CANARY:
        raise _missing(ref, "has no open rollout", [ref.adapter])
    if alias == STABLE:
        fact = "has no stable version"
        remedy = f"set one with `wardrobe promote {ref.adapter}@N`, or name a version"
        raise ModelNotFound(str(ref), fact, remedy, param="model")
    raise _missing(ref, "has no such alias", (f"{ref.adapter}@{name}" for name in sorted(adapter.aliases)))


def _missing(ref: ModelRef, fact: str, names: Iterable[str]) -> ModelNotFound:
    return ModelNotFound(f"model {str(ref)!r}", fact, _one_of(list(names)), param="model")


def _one_of(names: list[str]) -> str:
    if not names:
        return "there is none"
    more = len(names) - SHOWN_NAMES
    return f"ask for one of: {', '.join(islice(names, SHOWN_NAMES))}" + (
        f" and {more} more" if more > 0 else ""
    )


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
        text = self._text(view, spelling)
        if text is None or text == self.base_name or text in self.also_base:
            self._base = self._base or self._base_plan()
            return self._base
        try:
            ref = parse_model(text)
        except InvalidName:
            raise unknown_model(text, view, self.base_name) from None
        version = resolve(view, ref, self.base_name)
        if ref.version is None and ref.alias is None:
            return Plan(ref.adapter, {Arm.STABLE: self._target(version, Arm.STABLE)})
        direct = self._target(version, Arm.DIRECT)
        return Plan(ref.adapter, {Arm.DIRECT: direct}, fixed=direct)

    def _text(self, view: View, spelling: bytes) -> str | None:
        try:
            return msgspec.json.decode(spelling, type=str | None)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise unknown_model(spelling[:100].decode("utf-8", "replace"), view, self.base_name) from None

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


def _headers(name: str, arm: Arm, digest: str) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-wardrobe-adapter", name.encode()),
        (b"x-wardrobe-arm", arm.value.encode()),
        (b"x-wardrobe-digest", digest.encode()),
    )
