"""Publishing: from a folder that somebody trained to an immutable version.

Owns the order of the steps. Invariants: before the one rename nothing is visible, after it everything is;
what may be missing after a crash (golden prompts, lineage, the first `stable`) is completed by publishing
the same content again; a failure leaves nothing in `staging/`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from registry.changes.moves import check_settable, point
from registry.changes.settlement import refuse_open
from registry.entries.versions import MANIFEST, encode_manifest
from registry.errors import (
    Conflict,
    InvalidAdapter,
    Occupied,
    Quarantined,
    StorageFailed,
    Unproved,
    UsageError,
)
from registry.names import STABLE, means_base
from registry.records import AliasMove, BaseModelInfo, Limits, Published, Version
from registry.storage import files
from registry.storage.syncing import Unsynced
from registry.validation.canonical import parse_document
from registry.validation.intake.links import refuse_links
from registry.validation.requirements import LINEAGE, Requirement
from registry.views.catalogue import Catalogue
from registry.views.view import AdapterView

if TYPE_CHECKING:
    from pydantic import JsonValue

    from registry.validation.adapter import InspectedAdapter, TakenFile


class Inspector(Protocol):
    """What checks a folder before it becomes a version: `registry.validation.adapter.inspect`."""

    def __call__(self, folder: Path, *, base: BaseModelInfo, limits: Limits, name: str) -> InspectedAdapter:
        """Return what to take from `folder`, or raise InvalidAdapter."""
        ...


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """A folder to be published as the next version of `adapter`, and what is to be done with it.

    Links in `folder` are followed unless it is one that others filled (`follow_links`).
    """

    adapter: str
    folder: Path
    alias: str | None = None
    no_stable: bool = False
    note: str = ""
    golden: Path | None = None
    allow_duplicate: bool = False
    require: tuple[Requirement, ...] = ()
    follow_links: bool = True
    lineage: Mapping[str, JsonValue] | None = None
    who: str = ""


def inspect(folder: Path, *, base: BaseModelInfo, limits: Limits, name: str) -> InspectedAdapter:
    """Check `folder` by `registry.validation.adapter`, which is imported here because it needs numpy."""
    from registry.validation.adapter import inspect as check

    return check(folder, base=base, limits=limits, name=name)


def publish(catalogue: Catalogue, order: PublishRequest, inspector: Inspector = inspect) -> Published:
    """Publish a folder as the next version, or find the version that has the same content.

    Raises: InvalidName; Conflict: `stable` is asked for while a rollout is open, or the name is the base's;
    InvalidAdapter;
    UsageError: golden prompts that are none; Quarantined: the same content is in quarantine; Unproved:
    it is registered, but may not become `stable`, which was asked for; StorageFailed.
    """
    root = catalogue.root
    root.adapter(order.adapter)
    refuse_base_name(catalogue, order.adapter)
    if order.alias is not None:
        check_settable(order.alias)
    if order.alias == STABLE:
        refuse_open(catalogue, order.adapter)
    golden = None if order.golden is None else read_golden(order.golden)
    if not order.follow_links:
        refuse_links(order.folder, order.adapter)
    inspected = inspector(order.folder, base=root.base, limits=root.limits, name=order.adapter)
    seen = catalogue.view(order.adapter)
    existing = None if order.allow_duplicate else _find(catalogue, order.adapter, seen, inspected.digest)
    version, created = (existing, False) if existing else _create(catalogue, order, inspected, seen)
    try:
        moves, held_back = _complete(catalogue, order, version, golden)
    except StorageFailed as error:
        fact = f"is registered, but what belongs to it could not be written: {error}"
        raise StorageFailed(version.name, fact, "register it again to complete it") from error
    finally:
        catalogue.mark(order.adapter)
    warnings = (*inspected.warnings, *held_back)
    return Published(version, created, inspected.left_out, warnings, moves)


def refuse_base_name(catalogue: Catalogue, adapter: str) -> None:
    """Refuse a new adapter that could not be told from the base model.

    Raises: Conflict.
    """
    base = catalogue.root.base.name
    # An adapter that differs in its letters' case only, or is called `base`, may be older than this rule.
    if not means_base(adapter, base) or (adapter != base and catalogue.existed(adapter)):
        return
    fact = f"names the base model ({base}), which alone would answer by it"
    raise Conflict(adapter, fact, "choose another name for the adapter", param="name")


def read_golden(path: Path) -> bytes:
    """Return the content of a file of golden prompts: one JSON object per line.

    Raises: UsageError: names the first line that is none.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        fact = f"cannot be read ({error.strerror})"
        raise UsageError(str(path), fact, "check --golden", param="golden") from error
    for number, line in enumerate(raw.splitlines(), 1):
        try:
            found = parse_document(line) if line.strip() else {}
        except ValueError as error:
            raise UsageError(f"{path}:{number}", f"is not JSON ({error})", param="golden") from error
        if not isinstance(found, dict):
            raise UsageError(f"{path}:{number}", "is not a JSON object", param="golden")
    return raw


def _find(catalogue: Catalogue, adapter: str, view: AdapterView | None, digest: str) -> Version | None:
    if view is None:
        return None
    same = [version for _, version in sorted(view.versions.items()) if version.digest == digest]
    free = [version for version in same if version.number not in view.quarantined]
    if free:
        return free[0]
    for version in same:
        # Quarantined for its behaviour: the content is refused. For damaged files: it may come anew.
        if catalogue.versions.problem(version) is None:
            fact = f"the same content is {version.name}, which is quarantined"
            reason = view.quarantined[version.number]
            raise Quarantined(adapter, f"{fact} ({reason})", "use --allow-duplicate to register it anyway")
    return None


def _create(
    catalogue: Catalogue, order: PublishRequest, inspected: InspectedAdapter, seen: AdapterView | None
) -> tuple[Version, bool]:
    """Return the version that holds what was inspected, and whether this call made it."""
    staged = catalogue.root.staging / uuid.uuid4().hex
    try:
        # Nobody looks for it: that it is durable counts from the rename on.
        files.make_directory(staged, durable=False)
        with Unsynced() as unsynced:
            for taken in inspected.files:
                _stage(staged, taken, order.adapter, unsynced)
            made = _described(catalogue, order, inspected, staged)
            files.stage(staged / MANIFEST, encode_manifest(made), unsynced=unsynced)
            found = _publish_unused(catalogue, order, made, seen, unsynced)
    finally:
        files.remove_tree(staged)
    if isinstance(found, Version):
        return found, False
    return replace(made, number=found, path=catalogue.root.version(order.adapter, found)), True


def _stage(staged: Path, taken: TakenFile, subject: str, unsynced: Unsynced) -> None:
    target = staged / taken.name
    if taken.name in {MANIFEST, "", ".", ".."} or "/" in taken.name:
        raise InvalidAdapter(subject, f"{taken.name!r} is not a name for its file", reason="path")
    if isinstance(taken.source, bytes):
        files.stage(target, taken.source, unsynced=unsynced)
        return
    size, sha256 = files.copy_new(
        taken.source, target, head=taken.head, skip_bytes=taken.skipped, unsynced=unsynced
    )
    if (size, sha256) != (taken.size, taken.sha256):
        fact = f"{taken.name} changed while it was registered"
        raise InvalidAdapter(subject, fact, "wait until it is written and register it again", reason="digest")


def _described(
    catalogue: Catalogue, order: PublishRequest, inspected: InspectedAdapter, staged: Path
) -> Version:
    """Return the version in `staged`, which has no number yet."""
    listed = tuple(taken.entry for taken in inspected.files)
    return Version(
        adapter=order.adapter,
        number=0,
        digest=inspected.digest,
        created=catalogue.clock(),
        note=order.note,
        who=order.who,
        rank=inspected.rank,
        target_modules=inspected.target_modules,
        size_bytes=sum(file.size for file in listed),
        files=listed,
        path=staged,
        base_named=inspected.base_named,
        base_fingerprint=catalogue.root.base.fingerprint,
        template_sha256=inspected.template_sha256,
    )


def _publish_unused(
    catalogue: Catalogue,
    order: PublishRequest,
    made: Version,
    seen: AdapterView | None,
    unsynced: Unsynced,
) -> int | Version:
    """Give the staged version the next number; return it, or the version that somebody made of the same.

    The rename is a compare-and-swap: it takes a number only once every lower one was looked at, so the same
    content published twice at once gets one number.
    """
    adapter = order.adapter
    while True:
        numbers = [*catalogue.versions.numbers(adapter), *catalogue.tombstones.numbers(adapter)]
        number = max(numbers, default=0) + 1
        if not order.allow_duplicate:
            seen = catalogue.view(adapter, seen)
            existing = _find(catalogue, adapter, seen, made.digest)
            if existing is not None:
                return existing
        try:
            catalogue.versions.publish(adapter, made.path, number, unsynced)
        except Occupied:
            continue
        tombstone = catalogue.tombstones.read(adapter, number)
        if tombstone is None or tombstone.published_at == made.created:
            return number
        # The number was published, deleted and collected between our listing and our rename; while its
        # tombstone lies there, nobody sees what we put in its place.
        files.move(catalogue.root.version(adapter, number), made.path)


def _complete(
    catalogue: Catalogue, order: PublishRequest, version: Version, golden: bytes | None
) -> tuple[tuple[AliasMove, ...], tuple[str, ...]]:
    """Do what belongs to a version; return the aliases that were moved, and why one was not."""
    adapter, number = version.adapter, version.number
    if golden is not None:
        files.replace(catalogue.root.adapter(adapter) / "golden.jsonl", golden)
    if order.lineage is not None and not _has_lineage(catalogue, version, order.lineage):
        catalogue.attestations.add(adapter, number, LINEAGE, order.lineage, order.who)
    moves, held_back = [], []
    for alias in _wanted_aliases(catalogue, order, version):
        try:
            move = point(catalogue, adapter, alias, number, who=order.who, why="register", also=order.require)
        except Unproved as error:
            prove = f"{error.remedy.partition('; or force')[0]}, then `wardrobe promote {version.name}`"
            # The version stays: what may have taken days to train is not lost to an alias.
            if order.alias == STABLE:
                fact = f"is registered, but {STABLE} was not moved to it: {error.fact}"
                raise Unproved(version.name, fact, prove) from error
            held_back.append(f"not made {STABLE}: {error.fact}; {prove}")
        else:
            moves.append(move)
    return tuple(moves), tuple(held_back)


def _has_lineage(catalogue: Catalogue, version: Version, lineage: Mapping[str, JsonValue]) -> bool:
    known = catalogue.attestations.read(version.adapter, version.number, LINEAGE)
    return any(dict(attestation.body) == dict(lineage) for attestation in known)


def _wanted_aliases(catalogue: Catalogue, order: PublishRequest, version: Version) -> list[str]:
    wanted = [] if order.alias is None else [order.alias]
    first = version.number == min(catalogue.live(version.adapter), default=version.number)
    # Where there was ever a rollout, it decided whether the version becomes `stable`.
    unset = catalogue.aliases.last(version.adapter, STABLE) is None
    unset = unset and catalogue.rollouts.last(version.adapter) is None
    if first and unset and not order.no_stable and STABLE not in wanted:
        wanted.append(STABLE)
    return wanted
