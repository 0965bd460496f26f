"""The search for the nearest version: which ones may take part, their losses, the choice.

Owns the limits of the work (`nearest.candidates`, `nearest.rows`) and that a version which cannot be a start
is named with its reason instead of ending the run.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import Missing, UsageError, WardrobeError
from registry.storage import disk, files
from registry.validation.canonical import readable_json
from registry.validation.chat_template import TEMPLATE_NAME
from train.jobs.store import Job, Jobs
from train.model.start_choice import Candidate, NearestVersion, choose, ordered
from train.model.starting import check_start, start_from
from train.process.launching import is_launched
from train.settings.starting import NEAREST

if TYPE_CHECKING:
    from registry.records import Version
    from registry.store import Registry
    from train.config import TrainConfig
    from train.epoch.items import TrainingItem
    from train.nearest.losses import Scales

CHOICE = "nearest.json"
"""The file in a job's folder that holds the choice, so that a run that goes on starts from the same."""


@dataclass(frozen=True, slots=True)
class CandidateRows:
    """The new rows: held-out ones where there are any (they are measured then), and an epoch."""

    held_out: Sequence[TrainingItem]
    training: Sequence[TrainingItem]


def check_nearest(config: TrainConfig) -> None:
    """Refuse `from: nearest` where nothing can be measured, or several processes would each choose.

    Raises: UsageError.
    """
    if config.method.draws_answers:
        fact = f"from: nearest goes by the loss of answers, and rows of {config.method.type} have none"
        raise UsageError(config.name, fact, "name a version (from: NAME@N)", param="from")
    if config.lora.kind != "lora":
        fact = f"lora.kind {config.lora.kind} cannot go on from a version, which is a plain LoRA"
        raise UsageError(config.name, fact, "use kind: lora, or leave `from` out", param="lora.kind")
    if is_launched():
        fact = "from: nearest is chosen by one process, and this run has several"
        remedy = "ask `wardrobe train check` which it is, and name it (from: NAME@N)"
        raise UsageError(config.name, fact, remedy, param="from")


def find_nearest(config: TrainConfig, registry: Registry, rows: CandidateRows) -> NearestVersion:
    """Return the start that has the lowest loss on the new rows: a version, or the base.

    Loads the base once; a version that cannot be a start is left out by name.

    Raises: UsageError: no row has an answer to measure.
    """
    from train.nearest.losses import Scales, sample

    items = rows.held_out or rows.training
    limit, settings = config.training.max_length, config.nearest
    tokens = sample(items, limit, settings.rows, _keys(config.seed))
    if not tokens:
        fact = "from: nearest goes by the loss of answers, and no row has one to measure"
        raise UsageError(config.name, fact, "name a version (from: NAME@N)", param="from")
    found, passed_over = _candidates(config, registry)
    scales = Scales(config, registry.base.path, tokens)
    base = Candidate(name=registry.base.name, digest=None, loss=scales.base())
    candidates = [base, *(_weighed(version, reason, scales, registry) for version, reason in found)]
    scales.close()
    return choose(candidates, "held-out" if rows.held_out else "training", len(tokens), passed_over)


def start_nearest(
    config: TrainConfig, registry: Registry, rows: CandidateRows, *, resume: bool
) -> tuple[TrainConfig, Version | None, NearestVersion]:
    """Return the config with the shape of the start, the start (None: the base), and how it was chosen.

    With `resume`, an interrupted run's choice stays, whatever was registered meanwhile.

    Raises: UsageError; NotFound, Quarantined: the earlier choice is gone.
    """
    choice = earlier_choice(registry, config.name) if resume else None
    choice = choice or find_nearest(config, registry, rows)
    if choice.version is None:
        return config, None, choice
    return (*start_from(config, choice.version, registry), choice)


def write_choice(job: Job, choice: NearestVersion) -> None:
    """Keep the choice with the job.

    Raises: StorageFailed.
    """
    files.replace(job.folder / CHOICE, readable_json(choice.model_dump(mode="json")))


def earlier_choice(registry: Registry, adapter: str) -> NearestVersion | None:
    """Return what the newest interrupted run of the adapter chose, None where none chose."""
    for job in Jobs(registry.root).interrupted(adapter):
        if job.description.config.get("from") == NEAREST:
            try:
                return NearestVersion.model_validate_json(disk.read(job.folder / CHOICE))
            except (Missing, ValueError):
                continue  # it was killed before it had chosen, or torn: it is measured again
    return None


def _candidates(config: TrainConfig, registry: Registry) -> tuple[list[tuple[Version, str | None]], int]:
    """Return the versions to measure, with the reason for those that cannot be; and how many are beyond."""
    versions: list[Version] = []
    aliased: set[str] = set()
    for name in registry.adapters():
        try:
            versions += registry.versions(name)
            aliased |= {f"{name}@{number}" for number in registry.aliases(name).values()}
        except WardrobeError:  # a damaged adapter is not a start, and `wardrobe verify` tells of it
            continue
    found: list[tuple[Version, str | None]] = []
    able = 0
    waiting = ordered(versions, aliased)
    for place, version in enumerate(waiting):
        if able == config.nearest.candidates:
            return found, len(waiting) - place
        reason = _unfit(version, config, registry)
        able += reason is None
        found.append((version, reason))
    return found, 0


def _unfit(version: Version, config: TrainConfig, registry: Registry) -> str | None:
    if (why := registry.quarantined(version.adapter, version.number)) is not None:
        return f"quarantined: {why}"
    if version.rank > registry.limits.max_lora_rank:
        return f"rank {version.rank} exceeds max_lora_rank {registry.limits.max_lora_rank}"
    if any(file.path == TEMPLATE_NAME for file in version.files):
        return "has a chat template of its own"
    try:
        check_start(config, version, registry)
    except WardrobeError as error:
        return error.fact
    except (OSError, ValueError, KeyError) as error:
        return f"its shape cannot be read: {str(error).splitlines()[0][:200]}"
    return None


def _weighed(version: Version, reason: str | None, scales: Scales, registry: Registry) -> Candidate:
    loss = None
    if reason is None:
        try:
            registry.verify_version(version)
            loss = scales.under(version.path)
        except WardrobeError as error:
            reason = error.fact
        except (RuntimeError, ValueError, KeyError) as error:  # PEFT's own words for what it cannot load
            reason = f"does not load: {str(error).strip().splitlines()[-1][:200]}"
        if loss is not None and not math.isfinite(loss):
            loss, reason = None, "its loss is not a number"
    return Candidate(name=version.name, digest=version.digest, loss=loss, left_out=reason)


def _keys(seed: int) -> Iterator[bytes]:
    for place in itertools.count():
        yield hashlib.blake2b(f"{seed}|nearest|{place}".encode(), digest_size=16).digest()
