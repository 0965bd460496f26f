"""`GET /v1/models`: the base and every adapter of the registry, as OpenAI's clients read them.

`id`, `object`, `created`, `owned_by` and vLLM's `root` and `parent` are standard; the rest (`versions`,
`aliases`, `digest`) are our extra fields. No path of the server is told.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from registry.names import STABLE
from registry.records import Version
from registry.view import AdapterView, View
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


class ModelCard(msgspec.Struct):
    """One model: the base, an adapter, or one version of it; `root` is the version that answers now."""

    id: str
    created: int
    root: str | None
    parent: str | None
    digest: str | None
    aliases: dict[str, int]
    versions: list[VersionCard]
    object: str = "model"
    owned_by: str = OWNER


class ModelList(msgspec.Struct):
    """The whole list."""

    data: list[ModelCard]
    object: str = "list"


def base_card(name: str, digest: str, created: float) -> ModelCard:
    """Return the base model's card."""
    return ModelCard(name, int(created), name, None, digest, {}, [])


def render_models(view: View, base: ModelCard, resident: Collection[str]) -> bytes:
    """Return the list of all models."""
    cards = [_adapter_card(one, base.id, resident) for _, one in sorted(view.adapters.items())]
    return msgspec.json.encode(ModelList([base, *cards]))


def render_model(view: View, base: ModelCard, resident: Collection[str], name: str) -> bytes:
    """Return one model: the base, an adapter, `NAME@N` or `NAME@ALIAS`.

    Raises: ModelNotFound, Quarantined: as a request for it.
    """
    if name == base.id:
        return msgspec.json.encode(base)
    adapter = view.adapters.get(name)
    if adapter is not None:
        return msgspec.json.encode(_adapter_card(adapter, base.id, resident))
    ref, one = resolve(view, name, base.id)
    versions = [_version_card(view.adapters[ref.adapter], one, resident)]
    return msgspec.json.encode(
        ModelCard(str(ref), int(one.created), one.name, base.id, one.digest, {}, versions)
    )


def _adapter_card(adapter: AdapterView, base: str, resident: Collection[str]) -> ModelCard:
    every = [one for _, one in sorted(adapter.versions.items())]
    stable = adapter.versions.get(adapter.aliases.get(STABLE, 0))
    return ModelCard(
        id=adapter.name,
        created=int(min((one.created for one in every), default=0.0)),
        root=stable.name if stable is not None else None,
        parent=base,
        digest=stable.digest if stable is not None else None,
        aliases=dict(adapter.aliases),
        versions=[_version_card(adapter, one, resident) for one in every],
    )


def _version_card(adapter: AdapterView, one: Version, resident: Collection[str]) -> VersionCard:
    return VersionCard(
        id=one.name,
        version=one.number,
        digest=one.digest,
        created=int(one.created),
        rank=one.rank,
        note=one.note,
        aliases=sorted(name for name, number in adapter.aliases.items() if number == one.number),
        resident=one.name in resident,
        proved=one.number in adapter.proved,
        quarantined=adapter.quarantined.get(one.number),
    )
