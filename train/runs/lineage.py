"""Where a version came from: the document that is registered with it.

Owns the lineage. Invariant: whoever has a version's lineage, the data and the base can train
the same bytes again on a like machine.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict

from pydantic import JsonValue

from train.loop.result import TrainingResult
from train.prepared import DataSource, PreparedRun

_PACKAGES = ("wardrobe-llm", "torch", "transformers", "peft", "trl", "datasets", "accelerate", "tokenizers")


def lineage(
    run: PreparedRun, sources: Mapping[str, DataSource], result: TrainingResult, job: str
) -> dict[str, JsonValue]:
    """Return the lineage of one run: data, resolved config, seed, base, versions, losses, the step taken."""
    config, parent = run.config, run.parent
    return {
        "method": config.method.type,
        "config": config.model_dump(mode="json", by_alias=True),
        "config_sha256": config.sha256,
        "goal_sha256": config.goal.sha256 if config.goal else None,
        "seed": config.seed,
        "data": {name: _source(source) for name, source in sources.items()},
        "mixture": {name: asdict(share) for name, share in run.mixture.shares.items()},
        "base": {"name": run.base.name, "fingerprint": run.base.fingerprint},
        "parent": None if parent is None else {"version": parent.name, "digest": parent.digest},
        "nearest": run.choice.model_dump(mode="json") if run.choice else None,
        "losses": {
            "first": result.first_loss,
            "last": result.last_loss,
            "eval": result.eval_loss,
            "steps": list(result.losses),
        },
        "taken": {"step": result.taken, "why": result.why},
        "outcome": result.outcome.document() if result.outcome else None,
        "evaluations": [one.line() for one in result.evaluations],
        "job": {"id": job, "resumed": list(result.resumed)},
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "packages": installed(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
        "device": result.device,
    }


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
