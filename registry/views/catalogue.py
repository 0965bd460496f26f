"""The catalogue: what exists now, put together from the parts of the store.

Owns the question which versions are live (a folder, and no tombstone that counts), and the marks under
`changes/` that tell watchers which adapter to read again. It changes nothing else.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from registry.entries.aliases import Aliases
from registry.entries.attestations import Attestations
from registry.entries.deaths import Deaths
from registry.entries.evidence import EvidenceStore
from registry.entries.groups import GroupStore
from registry.entries.openai.batches import BatchStore
from registry.entries.openai.files import FileStore
from registry.entries.openai.tuned import TunedModels
from registry.entries.openai.uploads import UploadStore
from registry.entries.quarantine import Quarantine
from registry.entries.replicas import Replicas
from registry.entries.rollouts import Rollouts, owed
from registry.entries.tombstones import Tombstones
from registry.entries.usage.book import UsageReader
from registry.entries.versions import Versions
from registry.errors import CorruptStore, InvalidName, Missing, StorageFailed, WardrobeError
from registry.names import STABLE, ModelRef, check_adapter_name
from registry.records import AdapterBrief, RolloutEntry, Version
from registry.storage import disk, files
from registry.storage.root import Root
from registry.views.view import AdapterView, no_adapter

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an adapter stands: the last entry of its rollouts, and what its aliases mean now.

    `pointers` hold `stable` as an open rollout has it, or as one that ended has asked for and nobody has
    written yet. `used` are the versions that no delete may take.
    """

    rollout: RolloutEntry | None
    pointers: Mapping[str, int]
    used: frozenset[int]


class Catalogue:
    """The parts of one root, and what only all of them together can tell."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.clock = clock
        self.versions = Versions(root)
        self.aliases = Aliases(root, clock)
        self.rollouts = Rollouts(root)
        self.tombstones = Tombstones(root, clock)
        self.quarantine = Quarantine(root, clock)
        self.attestations = Attestations(root, clock)
        self.replicas = Replicas(root, clock)
        self.evidence = EvidenceStore(root, clock)
        self.deaths = Deaths(root)
        self.groups = GroupStore(root.path, clock=clock)
        self.usage = UsageReader(root.path)
        self.tuned = TunedModels(root, clock)
        self.files = FileStore(root.path, clock)
        self.batches = BatchStore(root.path, clock)
        self.uploads = UploadStore(root.path, self.files, clock)

    def known(self) -> list[str]:
        """Return every adapter that has a folder, sorted; it may never have had a version."""
        found = []
        for name in disk.names(self.root.adapters):
            with contextlib.suppress(InvalidName):
                found.append(check_adapter_name(name))
        return found

    def names(self) -> list[str]:
        """Return every adapter with a live version, sorted; one that cannot be read is left out.

        Raises: StorageFailed: the adapters cannot be listed.
        """
        found, _ = self.each(self.live)
        return [name for name, numbers in found.items() if numbers]

    def each(
        self, look: Callable[[str], _Found], names: Iterable[str] | None = None
    ) -> tuple[dict[str, _Found], dict[str, str]]:
        """Return what `look` finds of every adapter (or of `names`), and why it could not look at some.

        So one adapter with a damaged file hides no other. Raises: StorageFailed: they cannot be listed.
        """
        found: dict[str, _Found] = {}
        problems: dict[str, str] = {}
        for name in self.known() if names is None else names:
            try:
                found[name] = look(name)
            except WardrobeError as error:
                problems[name] = str(error)
        return found, problems

    def live(self, adapter: str) -> list[int]:
        """Return the live numbers of an adapter, ascending, without reading a manifest."""
        numbers = self.versions.numbers(adapter)
        buried = self.tombstones.numbers(adapter)
        if not buried:
            return numbers
        deleted = set(buried) - self.standing(adapter).used
        return [number for number in numbers if number not in deleted]

    def existed(self, adapter: str) -> bool:
        """Return whether the adapter has, or once had, a version."""
        return bool(self.versions.numbers(adapter) or self.tombstones.numbers(adapter))

    def require(self, adapter: str) -> str:
        """Return `adapter` if it has, or once had, a version.

        Raises: InvalidName; NotFound: lists what exists.
        """
        if not self.existed(adapter):
            raise no_adapter(adapter, self.names())
        return adapter

    def require_version(self, adapter: str, number: int) -> Version:
        """Return a live version.

        Raises: InvalidName; NotFound: lists what exists; CorruptStore: its manifest cannot be read.
        """
        self.require(adapter)
        if number in self.live(adapter):
            return self.versions.read(adapter, number)
        deleted = self.tombstones.exists(adapter, number)
        raise self.require_view(adapter).no_version(number, deleted=deleted)

    def require_view(self, adapter: str, asked: ModelRef | None = None) -> AdapterView:
        """Read an adapter that has a live version; `asked` is what the error names instead of it.

        Raises: NotFound: lists what exists; CorruptStore: in its aliases or rollouts; StorageFailed.
        """
        view = self.view(adapter)
        if view is None:
            raise no_adapter(asked or adapter, self.names())
        return view

    def standing(self, adapter: str, known: RolloutEntry | None = None) -> Standing:
        """Return where an adapter stands; `known` is an entry of its rollouts that was read before.

        Raises: CorruptStore; StorageFailed.
        """
        # The rollout first: what it asks of `stable` is written after it, so a later look at the alias
        # is never older than the rollout.
        entry = self.rollouts.last(adapter, known)
        pointers = self.aliases.pointers(adapter)
        used = set(pointers.values())
        if entry is not None and entry.open:
            used |= {entry.canary, entry.stable} - {0}
            pointers[STABLE] = entry.serving
        elif entry is not None and entry.state == "rolled_back" and pointers.get(STABLE) == entry.canary:
            target = owed(entry, self.aliases.log(adapter, STABLE))
            if target is not None:
                pointers[STABLE] = target.version or 0
        if pointers.get(STABLE) == 0:
            del pointers[STABLE]
        return Standing(entry, pointers, frozenset({*used, *pointers.values()}))

    def pointers(self, adapter: str) -> dict[str, int]:
        """Return what the aliases of an adapter mean now, where the version has a folder."""
        numbers = set(self.versions.numbers(adapter))
        return {alias: n for alias, n in self.standing(adapter).pointers.items() if n in numbers}

    def summary(self, adapter: str) -> AdapterBrief | None:
        """Return an adapter at a glance, None when no version of it is live."""
        numbers = self.live(adapter)
        if not numbers:
            return None
        aliases = {alias: n for alias, n in self.standing(adapter).pointers.items() if n in numbers}
        stable = aliases.get(STABLE)
        barred = False
        with contextlib.suppress(WardrobeError):  # `status` and `verify` tell of an unreadable one
            barred = stable is not None and stable in self.quarantine.reasons(adapter)
        return AdapterBrief(
            adapter,
            stable,
            numbers[-1],
            len(numbers),
            dict(sorted(aliases.items())),
            stable_quarantined=barred,
        )

    def summaries(self) -> list[AdapterBrief]:
        """Return every adapter at a glance, by name; a broken one has a `problem`."""
        found, problems = self.each(self.summary)
        known = [summary for summary in found.values() if summary is not None]
        known += [AdapterBrief(name, None, 0, 0, {}, problem) for name, problem in problems.items()]
        return sorted(known, key=lambda summary: summary.adapter)

    def golden(self, adapter: str) -> bytes | None:
        """Return the adapter's golden prompts, None when it has none."""
        try:
            return disk.read(self.root.adapter(adapter) / "golden.jsonl")
        except Missing:
            return None

    def view(self, adapter: str, before: AdapterView | None = None) -> AdapterView | None:
        """Read an adapter; None when no version of it is live.

        `before` is an earlier view of it: versions and proofs never change, so they are taken from there.

        Raises: CorruptStore: in its aliases or rollouts; StorageFailed.
        """
        # Aliases first: what they point to was there before them, and a tombstone that comes later is void.
        standing = self.standing(adapter, before.rollout if before else None)
        rollout = standing.rollout
        numbers = self.versions.numbers(adapter)
        deleted = self.tombstones.effective(adapter, standing.used)
        quarantined = self.quarantine.reasons(adapter)
        live = [number for number in numbers if number not in deleted]
        if not live:
            return None
        versions: dict[int, Version] = {}
        for number in live:
            try:
                versions[number] = self._version(adapter, number, before)
            except CorruptStore as error:
                quarantined.setdefault(number, str(error))
        return AdapterView(
            name=adapter,
            versions=MappingProxyType(versions),
            aliases=MappingProxyType({alias: n for alias, n in standing.pointers.items() if n in live}),
            quarantined=MappingProxyType({n: reason for n, reason in quarantined.items() if n in live}),
            proved=self._proved(adapter, versions, before),
            rollout=rollout if rollout and rollout.open else None,
        )

    def mark(self, adapter: str) -> None:
        """Tell watchers that an adapter changed.

        The change itself is on disk already, and watchers find it by their slow sweep as well; so a disk
        that is too full for the mark does not make the change a failure.
        """
        with contextlib.suppress(StorageFailed):
            files.touch(self.root.path / "changes" / adapter)

    def marked(self) -> list[tuple[str, float]]:
        """Return every adapter and when it last changed (UNIX seconds), the latest change first.

        One without a mark (a backup leaves out empty files) may have changed at any time: infinity.

        Raises: StorageFailed.
        """
        folder, found = self.root.path / "changes", dict.fromkeys(self.known(), math.inf)
        for name in disk.names(folder):
            with contextlib.suppress(Missing):
                if name in found:
                    found[name] = disk.status(folder / name).st_mtime
        return sorted(found.items(), key=lambda one: (-one[1], one[0]))

    def _version(self, adapter: str, number: int, before: AdapterView | None) -> Version:
        known = before.versions.get(number) if before else None
        return known or self.versions.read(adapter, number)

    def _proved(
        self, adapter: str, versions: Mapping[int, Version], before: AdapterView | None
    ) -> frozenset[int]:
        attested = set(self.attestations.numbers(adapter))
        known = before.proved if before else frozenset()
        return frozenset(
            number
            for number in versions
            if number in attested and (number in known or self.attestations.proved(adapter, number))
        )
