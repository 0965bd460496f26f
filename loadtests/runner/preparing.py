"""Making the adapters that a scenario asks for: random weights of the base's shapes, or copies of one.

A synthetic adapter costs a server what a real one of its rank costs; only its answers are worth nothing.
Invariant: what is there already is left alone, so a second call registers what is missing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.adapters import write_ranked
from loadtests.runner.scenario import Prepare, Scenario
from registry.api import operations
from registry.api.operation import Client
from registry.changes.publish import PublishRequest
from registry.errors import NotFound, UsageError
from registry.names import check_adapter_name, parse_version

if TYPE_CHECKING:
    from registry.records import BaseModelInfo

Weights = Callable[[Path, int], Path]
"""Writes an adapter's folder for a seed and returns it."""


@dataclass(frozen=True, slots=True)
class MissingVersion:
    """One version that is missing: the `number`-th of `adapter`."""

    adapter: str
    number: int
    seed: int


def missing(scenario: Scenario, client: Client) -> list[MissingVersion]:
    """Return the versions that the scenario asks for and the wardrobe does not have, in order.

    Raises: UsageError: the scenario names no adapters to be made.
    """
    if scenario.prepare is None:
        fact = "asks for adapters of your own" if scenario.needs else "needs no adapters made"
        raise UsageError(scenario.name, fact, scenario.needs or "run it")
    known = {one.adapter: one.versions for one in operations.list_adapters(client).adapters}
    return [
        MissingVersion(adapter, number, seed=1_000 * place + number)
        for place, adapter in enumerate(_names(scenario))
        for number in range(known.get(adapter, 0) + 1, scenario.prepare.versions + 1)
    ]


def register(wanted: MissingVersion, weights: Weights, client: Client) -> str:
    """Make and register one version; the first of an adapter becomes stable. Return its name."""
    with tempfile.TemporaryDirectory(prefix="wardrobe-prepare-") as scratch:
        folder = weights(Path(scratch) / "adapter", wanted.seed)
        registration = PublishRequest(
            wanted.adapter, folder, no_stable=wanted.number > 1, note="load test", allow_duplicate=True
        )
        made = operations.register(client, registration, lambda _: None)
    return f"{made.adapter}@{made.version}"


def synthetic(base: BaseModelInfo, prepare: Prepare) -> Weights:
    """Return what writes random weights for `base`.

    Raises: UsageError: a base whose shapes are not known.
    """
    if not base.modules:
        fact = "its shapes are not known (a packed quantised base)"
        raise UsageError(base.name, fact, "copy an adapter of your own with --like NAME@N")
    return lambda folder, seed: write_ranked(folder, base, seed, prepare.rank)


def copies(like: str, client: Client, scratch: Path) -> Weights:
    """Return what gives the weights of the version `like`, fetched once into `scratch`.

    Raises: NotFound; InvalidName: a name without a number.
    """
    adapter, number = parse_version(like)
    source = scratch / "like"
    operations.export(client, adapter, number, source)
    if not source.is_dir():
        raise NotFound(like, "could not be fetched", "look at `wardrobe show`")
    return lambda _folder, _seed: source


def _names(scenario: Scenario) -> Iterator[str]:
    yield from dict.fromkeys(check_adapter_name(name.partition("@")[0]) for name in scenario.adapters.models)
