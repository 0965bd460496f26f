"""From a trained folder to a registered version, with where it came from.

Owns the lineage document. Invariant: whoever has a version's lineage, the data and the base can train
the same bytes again on a like machine.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from registry.records import BaseModelInfo, Published, Version
from train.config import TrainConfig
from train.dataset.sources import Where, hash_source
from train.epoch.items import ItemCounts
from train.epoch.mixture import MixtureShare

if TYPE_CHECKING:
    from registry.store import Registry
    from train.loop.watching import TrainingResult
    from train.nearest.choice import NearestVersion

_PACKAGES = ("wardrobe-llm", "torch", "transformers", "peft", "trl", "datasets", "accelerate", "tokenizers")


@dataclass(frozen=True, slots=True)
class DataSource:
    """One data file as it was used: where it lay, its SHA-256 (hex) and what it held.

    Without a path it is a share of the others, and the hash that of the row numbers; `facts` say more of it.
    """

    path: Where | None
    sha256: str
    report: ItemCounts
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run was made from; `shares` and `sources` are by the labels of the data files.

    `choice` is how `from: nearest` found the parent.
    """

    base: BaseModelInfo
    sources: Mapping[str, DataSource]
    shares: Mapping[str, MixtureShare]
    parent: Version | None
    choice: NearestVersion | None = None


def describe_source(path: Where, report: ItemCounts, facts: Mapping[str, JsonValue]) -> DataSource:
    """Return `path` with its hash, beside what was counted in it."""
    return DataSource(path, hash_source(path), report, facts)


def lineage(
    config: TrainConfig, origin: Origin, result: TrainingResult, job: str | None = None
) -> dict[str, JsonValue]:
    """Return the lineage of one run: data, resolved config, seed, base, versions, losses, the step taken."""
    base, parent = origin.base, origin.parent
    return {
        "method": config.method.type,
        "config": config.model_dump(mode="json", by_alias=True),
        "config_sha256": config.sha256,
        "goal_sha256": config.goal.sha256 if config.goal else None,
        "seed": config.seed,
        "data": {name: _source(source) for name, source in origin.sources.items()},
        "mixture": {name: asdict(share) for name, share in origin.shares.items()},
        "base": {"name": base.name, "fingerprint": base.fingerprint},
        "parent": None if parent is None else {"version": parent.name, "digest": parent.digest},
        "nearest": origin.choice.model_dump(mode="json") if origin.choice else None,
        "losses": {
            "first": result.first_loss,
            "last": result.last_loss,
            "eval": result.eval_loss,
            "steps": list(result.losses),
        },
        "taken": {"step": result.taken, "why": result.why},
        "outcome": result.outcome.document() if result.outcome else None,
        "evaluations": [one.line() for one in result.evaluations],
        "job": {"id": job, "resumed": list(result.resumed)} if job else None,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "packages": installed(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
        "device": result.device,
    }


def publish(
    registry: Registry, config: TrainConfig, folder: Path, facts: Mapping[str, JsonValue], *, who: str
) -> Published:
    """Validate the trained `folder` and register it as the next version of `config.name`.

    Raises: InvalidAdapter: when it breaks a rule of the store.
    """
    return registry.publish(config.name, folder, alias=config.alias, note=config.note, who=who, lineage=facts)


def _source(source: DataSource) -> dict[str, JsonValue]:
    counts = {**asdict(source.report), "truncated": len(source.report.truncated)}
    counts["dropped"] = list(source.report.dropped)
    counts["thoughtless"] = len(source.report.thoughtless)
    path = None if source.path is None else str(source.path)
    return {"path": path, "sha256": source.sha256, **counts, **source.facts}


def installed() -> dict[str, JsonValue]:
    """Return the versions of the packages that decide the bytes."""
    found: dict[str, JsonValue] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
