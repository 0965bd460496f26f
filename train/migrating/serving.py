"""The version of a job under the old model's name: what `model="ft:…"` leads to from now on.

Owns what has to be true before: a verdict that passed, or a person who says so. Invariants: a name leads to
one version for good, so it is given last; what was compared is attested to the version first; both are done
again without harm.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.entries.openai.tuned import TunedModel
from registry.errors import UsageError
from registry.names import TUNED_PREFIX
from train.migrating.folder import MigratedJob

if TYPE_CHECKING:
    from registry.store import Registry

ATTESTED = "migration"
SERVED = "served"


def serve_version(
    job: MigratedJob,
    old: str,
    version: Mapping[str, Any],
    verdict: Mapping[str, Any],
    registry: Registry,
    who: str,
) -> None:
    """Attest the verdict to the version and give it the old model's name.

    Raises: Conflict: the name leads to another version; NotFound: the version or the name was deleted here;
    UsageError: the old name is none that can be given; StorageFailed.
    """
    if not old.startswith(TUNED_PREFIX):
        raise UsageError(
            old, f"is no name that begins with {TUNED_PREFIX}", "give the version an alias instead"
        )
    found = registry.version(str(version["adapter"]), int(version["version"]))
    model = TunedModel(old, found.adapter, found.number, found.digest, job.id, who, time.time())
    registry.catalogue.tuned.add(model)
    registry.catalogue.tuned.find(old)
    job.keep(
        SERVED, {"name": old, "version": found.name, "digest": found.digest, "verdict": verdict["verdict"]}
    )


def attest_verdict(
    job: MigratedJob,
    old: str,
    version: Mapping[str, Any],
    verdict: Mapping[str, Any],
    registry: Registry,
    who: str,
) -> None:
    """Keep with the version how it compares with the old model, once.

    Raises: NotFound: the version was deleted; StorageFailed.
    """
    adapter, number = str(version["adapter"]), int(version["version"])
    body = {"job": job.id, "model": old, **verdict}
    if all(dict(one.body) != body for one in registry.attestations(adapter, number, ATTESTED)):
        registry.attest(adapter, number, ATTESTED, body, who=who)
