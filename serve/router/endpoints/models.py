"""`GET /v1/models`: the base, every adapter and every tuned model, as OpenAI's clients read them.

`id`, `object`, `created`, `owned_by` and vLLM's `root`, `parent` and `max_model_len` (by which clients size
their context) are standard; the rest (`versions`, `aliases`, `digest`) are our extra fields. No path of the
server is told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from registry.entries.openai.tuned import TunedModel
from registry.errors import NotFound, Quarantined
from registry.names import CANARY, STABLE
from registry.records import RolloutEntry, Version
from registry.views.view import AdapterView, View
from serve.router.targets import resolve

OWNER = "wardrobe"


class VersionCard(msgspec.Struct):
    """One version of an adapter."""

    id: str
    version: int
    digest: str
    created: int
    rank: int
    note: str
    aliases: list[str]
    resident: bool
    proved: bool
    quarantined: str | None


class RolloutCard(msgspec.Struct):
    """An open rollout: `stable` is the base where that is the control; `weight` in basis points."""

    state: str
    stable: str
    canary: str
    weight: int


class ModelCard(msgspec.Struct):
    """One model: the base, an adapter, or one version of it; `root` is the version that answers now.

    While a rollout is open, `root` is its stable side. `max_model_len` is the context in tokens, the base's.
    """

    id: str
    created: int
    root: str | None
    parent: str | None
    digest: str | None
    aliases: dict[str, int]
    versions: list[VersionCard]
    max_model_len: int | None = None
    rollout: RolloutCard | None = None
    object: str = "model"
    owned_by: str = OWNER


class ModelList(msgspec.Struct):
    """The whole list."""

    data: list[ModelCard]
    object: str = "list"


def base_card(name: str, digest: str, created: float, max_model_len: int | None) -> ModelCard:
    """Return the base model's card; the adapters' have its `max_model_len`.

    Without a `name` the base does not exist for who asks: no card names it.
    """
    return ModelCard(name, int(created), name, None, digest, {}, [], max_model_len)


def render_models(view: View, base: ModelCard, resident: Collection[str], only: str = "") -> bytes:
    """Return the list of all models, or of `only` one.

    Raises: ModelNotFound, Quarantined: as a request for it.
    """
    if only:
        return msgspec.json.encode(ModelList([_card(view, base, resident, only)]))
    cards = [_adapter_card(one, base, resident) for _, one in sorted(view.adapters.items())]
    tuned = [_tuned_card(view, one, base, resident) for _, one in sorted(view.tuned.items())]
    bases = [base] if base.id else []
    return msgspec.json.encode(ModelList([*bases, *cards, *(card for card in tuned if card is not None)]))


def render_model(view: View, base: ModelCard, resident: Collection[str], name: str) -> bytes:
    """Return one model: the base, an adapter, `NAME@N`, `NAME@ALIAS` or the name of a tuned model.

    Raises: ModelNotFound, Quarantined: as a request for it.
    """
    return msgspec.json.encode(_card(view, base, resident, name))


def _card(view: View, base: ModelCard, resident: Collection[str], name: str) -> ModelCard:
    if name == base.id:
        return base
    adapter = view.adapters.get(name)
    if adapter is not None:
        return _adapter_card(adapter, base, resident)
    ref, one = resolve(view, name, base.id)
    tuned = view.tuned.get(name)
    if tuned is not None:
        return _single_card(view, one, base, resident, name, tuned.created)
    return _single_card(view, one, base, resident, str(ref), one.created)


def _single_card(
    view: View, one: Version, base: ModelCard, resident: Collection[str], name: str, created: float
) -> ModelCard:
    """Return the card of a name that one version alone answers by."""
    owner = view.adapters[one.adapter]
    versions = [_version_card(owner, one, _aliases(owner), resident)]
    return ModelCard(
        name, int(created), one.name, base.id or None, one.digest, {}, versions, base.max_model_len
    )


def _tuned_card(
    view: View, model: TunedModel, base: ModelCard, resident: Collection[str]
) -> ModelCard | None:
    """Return the card of a tuned model, None where nothing answers by its name."""
    try:
        version = view.follow(model)
    except (NotFound, Quarantined):
        return None
    return _single_card(view, version, base, resident, model.name, model.created)


def _adapter_card(adapter: AdapterView, base: ModelCard, resident: Collection[str]) -> ModelCard:
    every = [one for _, one in sorted(adapter.versions.items())]
    aliases = _aliases(adapter)
    stable = adapter.versions.get(aliases.get(STABLE, 0))
    root = stable.name if stable is not None else None
    if adapter.rollout is not None and not adapter.rollout.serving:
        root = base.id
    return ModelCard(
        id=adapter.name,
        created=int(min((one.created for one in every), default=0.0)),
        root=root,
        parent=base.id or None,
        digest=stable.digest if stable is not None else None,
        aliases=aliases,
        versions=[_version_card(adapter, one, aliases, resident) for one in every],
        max_model_len=base.max_model_len,
        rollout=_rollout_card(adapter.rollout, base.id) if adapter.rollout is not None else None,
    )


def _aliases(adapter: AdapterView) -> dict[str, int]:
    """Return where every alias points now; while a rollout is open it alone decides two of them."""
    entry = adapter.rollout
    if entry is None:
        return dict(adapter.aliases)
    decided = {STABLE: entry.serving, CANARY: entry.canary}
    others = {name: number for name, number in adapter.aliases.items() if name not in decided}
    return {**{name: number for name, number in decided.items() if number}, **others}


def _rollout_card(entry: RolloutEntry, base: str) -> RolloutCard:
    stable = f"{entry.adapter}@{entry.stable}" if entry.stable else base
    return RolloutCard(entry.state, stable, f"{entry.adapter}@{entry.canary}", entry.weight)


def _version_card(
    adapter: AdapterView, one: Version, aliases: Mapping[str, int], resident: Collection[str]
) -> VersionCard:
    return VersionCard(
        id=one.name,
        version=one.number,
        digest=one.digest,
        created=int(one.created),
        rank=one.rank,
        note=one.note,
        aliases=sorted(name for name, number in aliases.items() if number == one.number),
        resident=one.name in resident,
        proved=one.number in adapter.proved,
        quarantined=adapter.quarantined.get(one.number),
    )
