"""What a view of the registry says of a version: whether it stays loaded, is gone, proved or known."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from registry.records import Version
from registry.views.view import View


def stables(view: View) -> list[Version]:
    """Return what answers for each adapter by its name."""
    return list(_stables(view))


def _stables(view: View) -> Iterator[Version]:
    for name in sorted(view.adapters):
        found = stable_of(view, name)
        if found is not None:
            yield found


def stable_of(view: View, name: str) -> Version | None:
    """Return what answers for an adapter by its name, None where nothing does or the base."""
    adapter = view.adapters.get(name)
    if adapter is None:
        return None
    number = adapter.rollout.serving if adapter.rollout else adapter.aliases.get("stable")
    return None if number is None else adapter.versions.get(number)


def rolling(view: View) -> list[Version]:
    """Return both versions of every open rollout: they stay loaded until it is closed."""
    found: list[Version] = []
    for name in sorted(name for name, one in view.adapters.items() if one.rollout is not None):
        adapter = view.adapters[name]
        assert adapter.rollout is not None
        numbers = (adapter.rollout.stable, adapter.rollout.canary)
        found.extend(adapter.versions[number] for number in numbers if number in adapter.versions)
    return found


def is_protected(view: View, name: str, number: str) -> bool:
    """Return whether a version is what answers by an adapter's name, or an arm of its open rollout."""
    adapter = view.adapters.get(name)
    if adapter is None:
        return False
    rollout = adapter.rollout
    numbers = (
        (rollout.stable, rollout.canary, rollout.serving) if rollout else (adapter.aliases.get("stable"),)
    )
    return any(str(one) == number for one in numbers if one in adapter.versions)


def to_stay(view: View, capacity: int) -> list[Version]:
    """Return what stays loaded, `capacity` versions at most: those of open rollouts, and the stables.

    Where the stables do not all fit, none stays for its name: who is asked for stays, and of several
    replicas behind a balancer that sends an adapter to one of them, each holds its own.
    """
    every = list(islice(_wanted(view), capacity + 1))
    if len(every) <= capacity:
        return every
    return distinct([one for one in rolling(view) if not is_gone(view, one)])[:capacity]


def to_preload(view: View, capacity: int) -> list[Version]:
    """Return what a server loads before it is ready: what stays, and as many stables as fit."""
    return list(islice(_wanted(view), capacity))


def _wanted(view: View) -> Iterator[Version]:
    """Yield what is to answer, each version once; the caller looks at no more of thousands than it needs."""
    seen: set[str] = set()
    for one in chain(rolling(view), _stables(view)):
        if one.name not in seen and not is_gone(view, one):
            seen.add(one.name)
            yield one


def distinct(versions: list[Version]) -> list[Version]:
    """Return each version once, where it comes first."""
    return list({version.name: version for version in versions}.values())


def is_gone(view: View, one: Version) -> bool:
    """Return whether a version was deleted or set aside."""
    adapter = view.adapters.get(one.adapter)
    return adapter is None or one.number not in adapter.versions or one.number in adapter.quarantined


def is_proved(view: View, one: Version) -> bool:
    """Return whether an attestation says that a version has an effect on the engine."""
    adapter = view.adapters.get(one.adapter)
    return adapter is not None and one.number in adapter.proved


def is_known(view: View, adapter: str, number: str) -> bool:
    """Return True for a version that is registered, and for 0: the base as an arm of a rollout."""
    known = view.adapters.get(adapter)
    return known is not None and (
        not (number.isascii() and number.isdigit()) or int(number) in {0, *known.versions}
    )
