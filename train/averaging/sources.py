"""What is averaged: versions of this root or of others, and PEFT folders, each checked as a version would be.

Owns how a source is spelled, its identity, and what its lineage tells. Invariants: nothing is averaged that
could not be registered on this root's base (but for its rank, which only the result must keep); a source's
bytes are those that were checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import InvalidAdapter, NotFound, UsageError
from registry.home import at_home
from registry.names import parse_model
from registry.records import Limits
from registry.validation.identity import WEIGHTS_NAME
from registry.validation.peft import CONFIG_NAME, LoraConfig, parse_config
from registry.validation.requirements import LINEAGE, trained_goal
from train.settings.data import REPLAY

if TYPE_CHECKING:
    from pydantic import JsonValue

    from registry.records import BaseModelInfo
    from registry.store import Registry
    from registry.validation.adapter import InspectedAdapter

AVERAGE = "average"
"""The `method` in an averaged version's lineage."""

_HIGHEST_RANK = 1024
_ELSEWHERE = re.compile(r"(?P<root>.+):(?P<version>[^:/]+@[^:/]+)")


@dataclass(frozen=True, slots=True)
class AveragingSource:
    """One adapter to average: `name` for people, its identity (`sha256:…`) and what was checked.

    `rows` are the distinct training rows that its lineage tells, None where it tells none; `data` its data
    files by label, as the lineage holds them; `goal` the hash of the goal that it was trained for.
    """

    name: str
    digest: str
    config: LoraConfig
    inspected: InspectedAdapter
    rows: int | None = None
    data: Mapping[str, JsonValue] | None = None
    goal: str | None = None

    @property
    def template(self) -> str | None:
        """Return the SHA-256 of a chat template of its own, None where it uses the base's."""
        return self.inspected.template_sha256


def find_sources(texts: Sequence[str], registry: Registry) -> list[AveragingSource]:
    """Return the sources that `texts` name, each checked against this root's base.

    Raises: UsageError: fewer than two, one twice, or chat templates that differ; NotFound; Quarantined;
    InvalidAdapter: made for another base, not as published, or nothing that could be registered.
    """
    if len(texts) < 2:
        fact = f"{len(texts)} given; an average needs two"
        raise UsageError("SOURCE", fact, "name another version or folder", param="source")
    found = [find_source(text, registry) for text in texts]
    names = [source.name for source in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(twice, "is named twice", "name it once and give it more weight", param="source")
    if len({source.template for source in found}) > 1:
        odd = next(source.name for source in found if source.template != found[0].template)
        fact = f"was trained on another chat template than {found[0].name}"
        raise UsageError(odd, fact, "average adapters of one template", param="source")
    return found


def find_source(text: str, registry: Registry) -> AveragingSource:
    """Return the source that `text` names: a folder, `NAME@N` of this root, or `ROOT:NAME@N` of another.

    Raises: NotFound, Quarantined, InvalidAdapter.
    """
    folder = at_home(text)
    if folder.is_dir():
        return _checked(text, folder.resolve(), registry.base)
    if (elsewhere := _ELSEWHERE.fullmatch(text)) is not None:
        from registry.store import Registry as Opened

        root = elsewhere["root"]
        return _version(elsewhere["version"], Opened.open(at_home(root)), registry.base, f"{root}:")
    if "/" in text or "@" not in text:
        fact = "is not a folder, nor a version of this root (NAME@N) or of another (ROOT:NAME@N)"
        raise NotFound(text, fact, "give an adapter folder, or see `wardrobe list`", param="source")
    return _version(text, registry, registry.base, "")


def weights_of(source: AveragingSource) -> bytes:
    """Return the weights file as it was checked, with the names that a version of it would have.

    Raises: InvalidAdapter: it has changed since.
    """
    from hashlib import sha256

    taken = next(file for file in source.inspected.files if file.name == WEIGHTS_NAME)
    assert isinstance(taken.source, Path), "only small files are taken as bytes"
    data = taken.head + taken.source.read_bytes()[taken.skipped :]
    if sha256(data).hexdigest() != taken.sha256:
        fact = f"{WEIGHTS_NAME} changed while it was read"
        raise InvalidAdapter(source.name, fact, "wait until nothing writes to it", reason="digest")
    return data


def _version(text: str, registry: Registry, base: BaseModelInfo, where: str) -> AveragingSource:
    version = registry.resolve(parse_model(text))
    name = f"{where}{version.name}"
    if registry.base.fingerprint != base.fingerprint:
        fact = f"was made for another base ({registry.base.name}, {registry.base.fingerprint[:19]}…)"
        remedy = f"average versions made for {base.name} ({base.fingerprint[:19]}…)"
        raise InvalidAdapter(name, fact, remedy, reason="base_mismatch")
    registry.verify_version(version)
    lineages = registry.attestations(version.adapter, version.number, LINEAGE)
    body = lineages[-1].body if lineages else {}
    data = body.get("data")
    return _checked(
        name,
        version.path,
        base,
        rows=rows_of(body),
        data=data if isinstance(data, dict) else None,
        goal=trained_goal(lineages),
    )


def _checked(
    name: str,
    folder: Path,
    base: BaseModelInfo,
    *,
    rows: int | None = None,
    data: Mapping[str, JsonValue] | None = None,
    goal: str | None = None,
) -> AveragingSource:
    from registry.validation.adapter import inspect

    inspected = inspect(folder, base=base, limits=Limits(max_lora_rank=_HIGHEST_RANK), name=name)
    config = parse_config((folder / CONFIG_NAME).read_bytes(), name)
    return AveragingSource(name, inspected.digest, config, inspected, rows, data, goal)


def rows_of(lineage: Mapping[str, object]) -> int | None:
    """Return how many distinct rows a version learnt from, replay apart; None where its lineage tells none.

    An averaged version has those of its sources together.
    """
    if lineage.get("method") == AVERAGE:
        total = lineage.get("rows")
        return total if isinstance(total, int) and total > 0 else None
    mixture = lineage.get("mixture")
    if not isinstance(mixture, dict):
        return None
    shares = [share for label, share in mixture.items() if label != REPLAY]
    counts = [share.get("limited") for share in shares if isinstance(share, dict)]
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if known and len(known) == len(shares) and sum(known) > 0 else None
