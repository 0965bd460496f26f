"""What needs somebody's attention, and what to do about it (pure).

Owns the sentences. It reads the view and the heartbeats alone, so it costs the same whatever has happened
before. Invariant: of many alike a few are named and the others counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from registry.api.documents import ReplicaDocument
from registry.names import STABLE
from registry.views.view import AdapterView, View
from serve.console.entrance import HOME
from serve.rollout.decision.states import RolloutState

NAMED = 5
"""How many of one kind are named."""


@dataclass(frozen=True, slots=True)
class Matter:
    """One thing to look at; `level` is error, warning or info, `link` a page that helps, '' for none."""

    level: str
    sentence: str
    remedy: str
    link: str = ""


def matters(view: View, replicas: Sequence[ReplicaDocument], *, keys_in_use: bool) -> list[Matter]:
    """Return what needs attention, the worst first."""
    found = [*_of_adapters(view), *_of_replicas(replicas)]
    if not keys_in_use:
        fact = "No key exists: whoever reaches this address may do everything."
        found.append(Matter("info", fact, "Make one with `wardrobe keys create --scope admin`."))
    return sorted(found, key=lambda one: ("error", "warning", "info").index(one.level))


def _of_adapters(view: View) -> Iterator[Matter]:
    every = view.adapters.values()
    silent = [one for one in every if one.aliases.get(STABLE) in one.quarantined]
    for one, rest in _few(silent):
        number = one.aliases[STABLE]
        fact = f"Nothing answers as {one.name}: its stable, {one.name}@{number}, is in quarantine"
        sentence = f"{fact} ({one.quarantined[number]}){rest}."
        yield Matter("error", sentence, "Promote another version, or roll back.", _page(one))
    bare = [one for one in every if STABLE not in one.aliases and one.rollout is None]
    for one, rest in _few(bare):
        sentence = f"{one.name} has no stable version: its name alone is answered with 404{rest}."
        yield Matter("warning", sentence, "Promote a version.", _page(one))
    spoilt = [one for one in every if one.quarantined and one not in silent]
    for one, rest in _few(spoilt):
        number, reason = next(iter(sorted(one.quarantined.items())))
        sentence = f"{one.name}@{number} is in quarantine ({reason}){rest}."
        yield Matter("warning", sentence, "Register it anew, or delete it.", _page(one))
    stuck = [one for one in every if one.rollout is not None and one.rollout.state in _RESTING]
    for one, rest in _few(stuck):
        assert one.rollout is not None
        why = one.rollout.sentence or one.rollout.reason
        sentence = f"The rollout of {one.name}@{one.rollout.canary} is {one.rollout.state}: {why}{rest}"
        remedy = f"See `wardrobe rollout status {one.name}`, then resume, promote or abort it."
        yield Matter("warning", sentence, remedy, _page(one))


_RESTING = frozenset({RolloutState.HOLD.value, RolloutState.PAUSED.value})


def _of_replicas(replicas: Iterable[ReplicaDocument]) -> Iterator[Matter]:
    for one in replicas:
        if not one.live:
            sentence = f"The server {one.replica} beats no more."
            yield Matter("warning", sentence, "Start it again, or wait: it is forgotten after a week.")
            continue
        if one.state == "draining":
            yield Matter("info", f"The server {one.replica} is draining.", "It takes no new requests.")
        for problem in one.problems:
            yield Matter("error", f"{one.replica}: {problem}", "Its log has more.")
        for note in one.notes:
            yield Matter("info", f"{one.replica}: {note}", "")


def _few(found: Sequence[AdapterView]) -> Iterator[tuple[AdapterView, str]]:
    """Yield the first of many, and what is said of the others behind the last of them."""
    named = found[:NAMED]
    for index, one in enumerate(named, 1):
        left = len(found) - len(named)
        yield one, f", and so is it with {left} more" if left and index == len(named) else ""


def _page(one: AdapterView) -> str:
    return f"{HOME}/adapters/{one.name}"
