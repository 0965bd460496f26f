"""One training config for each job: OpenAI's method, epochs and multipliers in the words of `train run`.

Owns the adapter's name and what the config says about where it comes from. Invariants: what is written is a
config that `train run` takes; one that is there is a person's and stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from registry.names import NAME_PATTERN
from registry.storage import disk, files
from registry.tuning.records import TuningRequest
from train.config import parse_config
from train.migrating.folder import MigratedJob
from train.migrating.interface import JobDocument
from train.worker.settings import asked_settings

_ID = 8
_LONGEST = 63


def method_of_job(job: JobDocument) -> dict[str, Any]:
    """Return a job's method, its hyperparameters as the job had them in the end; old jobs name none."""
    given = job.get("method")
    method: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    kind = str(method.get("type") or "supervised")
    given = method.get(kind)
    inner: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    asked = inner.get("hyperparameters")
    ended = job.get("hyperparameters")
    known = {key: one for key, one in (ended if isinstance(ended, Mapping) else {}).items() if one != "auto"}
    kept = {key: one for key, one in (asked if isinstance(asked, Mapping) else {}).items() if one != "auto"}
    inner["hyperparameters"] = {**known, **kept}
    return {"type": kind, kind: inner}


def adapter_of_job(job: JobDocument) -> str:
    """Return the adapter that gets the version: named by the suffix, else by the job."""
    tuned = str(job.get("fine_tuned_model") or "").split(":")
    suffix = job.get("user_provided_suffix") or (tuned[3] if len(tuned) >= 5 else "")
    slug = re.sub(r"[^a-z0-9._-]+", "-", str(suffix).lower()).strip("-._")[:_LONGEST]
    return slug if re.fullmatch(NAME_PATTERN, slug) else f"ft-{str(job['id'])[-_ID:].lower()}"


def write_config(document: JobDocument, job: MigratedJob, train: Path, held_out: Path | None) -> None:
    """Write a job's config, unless there is one.

    Raises: UsageError: a method or a value that is not here; StorageFailed.
    """
    if disk.exists(job.config):
        return
    settings = _settings(document, job, train, held_out)
    parse_config(settings, f"job {job.id}", job.folder)
    head = (
        f"# Fine-tuning job {job.id} of an OpenAI account: {document.get('fine_tuned_model')}\n"
        "# The multipliers are of our learning rates. Change what you like: it is not written again.\n"
    )
    text = head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    files.make_directory(job.folder)
    files.claim(job.config, text.encode(), mode=0o644)


def _settings(document: JobDocument, job: MigratedJob, train: Path, held_out: Path | None) -> dict[str, Any]:
    asked = asked_settings(_request(document))
    data = {"train": _relative(train, job)}
    if held_out is not None:
        data["eval"] = _relative(held_out, job)
    return {"name": adapter_of_job(document), "note": job.id, **asked, "data": data}


def _request(document: JobDocument) -> TuningRequest:
    method = method_of_job(document)
    seed = document.get("seed")
    return TuningRequest(
        id=str(document["id"]),
        created=0,
        who="",
        adapter=adapter_of_job(document),
        model=str(document.get("model")),
        base_model="",
        start=None,
        training_file=str(document.get("training_file")),
        validation_file=None,
        method=method,
        seed=seed if isinstance(seed, int) else 0,
        tuned_name="",
    )


def _relative(path: Path, job: MigratedJob) -> str:
    return os.path.relpath(path, job.folder)
