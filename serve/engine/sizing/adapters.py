"""What a root's adapters ask of an engine: how many, of what rank, adapting what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from registry.errors import WardrobeError
from registry.records import Version
from registry.store import Registry


@dataclass(frozen=True, slots=True)
class ExpectedAdapters:
    """The adapters that an engine is sized for.

    `versions` is how many are asked for by name at a time: each adapter's stable and the other arm of a
    rollout; `rank` is the largest rank of any live version, 0 where there is none; `modules` are the names
    that any of them adapts, () where that is not known.
    """

    versions: int = 0
    rank: int = 0
    modules: tuple[str, ...] = ()


def registered(registry: Registry) -> ExpectedAdapters:
    """Return what `registry` holds now; an adapter that cannot be read is left out, as it is in serving."""
    expected = 0
    versions: list[Version] = []
    for name in registry.adapters():
        try:
            view = registry.adapter_view(name)
        except WardrobeError:
            continue
        expected += 1 + (view.rollout is not None)
        versions += view.versions.values()
    return ExpectedAdapters(expected, max((one.rank for one in versions), default=0), _modules(versions))


def _modules(versions: Iterable[Version]) -> tuple[str, ...]:
    names = {module for version in versions for module in version.target_modules}
    return tuple(sorted({name.rpartition(".")[2] for name in names}))
