"""One replica's part in all rollouts: recorders, baselines, and the files that they become.

Owns the recorders (one per open rollout) and the baselines (one per adapter). `find` and `baseline` are
called on the hot path and never touch the disk; `keep` is called once a second and does all of it in a
thread. Invariant: a replica's evidence is not written before what it had written earlier was taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest

from pydantic import ValidationError

from registry.errors import CorruptStore, WardrobeError
from registry.records import RolloutEntry
from registry.store import Registry
from registry.views.view import View
from serve.rollout.assignment import Arm
from serve.rollout.recording.attributing import MOST_SOURCES
from serve.rollout.recording.baselines import BaselineArm, BaselineDocument, DenseCounts
from serve.rollout.recording.evidence import COUNTED, FAILURES, ArmName, Recent, ReplicaEvidence
from serve.rollout.recording.recorder import Recorder

BASELINE_SECONDS = 5.0
FINAL_SECONDS = 30.0
"""How long after its end a rollout's last requests may still come in and be written."""

_ARMS: Mapping[ArmName, Arm] = {"stable": Arm.STABLE, "canary": Arm.CANARY, "base": Arm.BASE}

_NONE = DenseCounts()

_log = logging.getLogger("wardrobe.rollout")


_Totals = dict[tuple[Arm, str], DenseCounts]
"""Counts of an arm, '' for all sources together, else of one of the largest."""


@dataclass(slots=True, eq=False)
class _Kept:
    recorder: Recorder
    snapshots: deque[tuple[float, _Totals]] = field(default_factory=deque)
    document: ReplicaEvidence | None = None
    ended: float | None = None


class EvidenceWriter:
    """The recorders and baselines of one replica.

    `givers` returns the groups that may give evidence of an adapter and have a key to do so with.
    """

    def __init__(
        self,
        registry: Registry,
        replica: str,
        clock: Callable[[], float] = time.time,
        givers: Callable[[str], frozenset[str]] = lambda _: frozenset(),
    ) -> None:
        self._givers = givers
        self._registry = registry
        self._replica = replica
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._baselines: dict[str, BaselineArm] = {}
        self._baselines_at = 0.0
        self._unknown: set[str] = set()

    def find(self, entry: RolloutEntry) -> Recorder:
        """Return the recorder of an open rollout, acting on `entry` or a newer record."""
        kept = self._kept.get(entry.rollout)
        if kept is None:
            kept = self._kept[entry.rollout] = _Kept(Recorder(entry, self._replica, self._clock))
            kept.recorder.crowd.expect(self._givers(entry.adapter))
        kept.recorder.follow(entry)
        return kept.recorder

    def knows(self, entry: RolloutEntry) -> bool:
        """Return whether this release can act on a record; told once when it cannot."""
        try:
            self.find(entry).crowd.expect(self._givers(entry.adapter))
        except CorruptStore as error:
            if entry.rollout not in self._unknown:
                self._unknown.add(entry.rollout)
                _log.warning("%s", error)
            return False
        return True

    def baseline(self, adapter: str) -> BaselineArm:
        """Return the rolling counts of an adapter's stable."""
        found = self._baselines.get(adapter)
        if found is None:
            found = self._baselines[adapter] = BaselineArm(self._clock())
        return found

    def recorder(self, rollout: str) -> Recorder | None:
        """Return the recorder of a rollout that this replica knows."""
        kept = self._kept.get(rollout)
        return kept.recorder if kept else None

    def document(self, rollout: str) -> ReplicaEvidence | None:
        """Return this replica's newest evidence of a rollout, as of the last `keep`."""
        kept = self._kept.get(rollout)
        return kept.document if kept else None

    def follow(self, view: View, last: Mapping[str, RolloutEntry]) -> None:
        """Have a recorder for every open rollout; `last` are newest records by rollout's id, open or not."""
        now = self._clock()
        opened = {adapter.rollout.rollout for adapter in view.adapters.values() if adapter.rollout}
        for adapter in view.adapters.values():
            if adapter.rollout is not None:
                self.knows(adapter.rollout)
        for rollout, kept in list(self._kept.items()):
            if rollout in opened:
                continue
            if rollout in last:
                kept.recorder.follow(last[rollout])
            kept.ended = kept.ended or now
            if now - kept.ended > FINAL_SECONDS:
                del self._kept[rollout]

    async def keep(self) -> None:
        """Bring the files up to date: restore what is new here, then write what changed.

        What cannot be written is kept and tried again with the next call.

        Raises: StorageFailed.
        """
        for kept in list(self._kept.values()):
            if not kept.recorder.restored:
                await self._restore(kept.recorder)
            answers = kept.recorder.take_answers()
            if answers:
                kept.recorder.book_forms(await asyncio.to_thread(kept.recorder.judge, answers))
            kept.document = self._document(kept)
        texts = {
            document.rollout: document.model_dump_json().encode()
            for document in (kept.document for kept in self._kept.values())
            if document is not None
        }
        baselines = self._due_baselines()
        if not texts and not baselines:
            return  # as in most ticks: no rollout is open
        await asyncio.to_thread(self._write, texts, baselines)

    async def _restore(self, recorder: Recorder) -> None:
        rollout = recorder.entry.rollout
        try:
            found = (await asyncio.to_thread(self._registry.evidence, rollout)).get(self._replica)
            document = read_document(rollout, self._replica, found) if found else None
        except WardrobeError as error:
            _log.warning("this replica begins to count anew: %s", error)
            document = None
        recorder.restore(document)

    def _document(self, kept: _Kept) -> ReplicaEvidence:
        document = kept.recorder.document()
        entry = kept.recorder.entry
        # A hold asks how stable is since then, without what led to it.
        held = entry.state_since if entry.state == "hold" else 0.0
        begin = max(document.at - kept.recorder.policy.health.window_seconds, held)
        totals = {(arm, name): counts for arm in _ARMS.values() for name, counts in _each(kept.recorder, arm)}
        kept.snapshots.append((document.at, totals))
        while len(kept.snapshots) > 2 and kept.snapshots[1][0] <= begin:
            kept.snapshots.popleft()
        earlier = kept.snapshots[0][1]
        document.recent = {name: _recent(totals, earlier, arm) for name, arm in _ARMS.items()}
        return document

    def _due_baselines(self) -> dict[str, bytes]:
        now = self._clock()
        if now - self._baselines_at < BASELINE_SECONDS:
            return {}
        self._baselines_at = now
        changed = {name: arm for name, arm in self._baselines.items() if arm.changed}
        for arm in changed.values():
            arm.changed = False
        return {name: arm.document(now).model_dump_json().encode() for name, arm in changed.items()}

    def _write(self, evidence: Mapping[str, bytes], baselines: Mapping[str, bytes]) -> None:
        for rollout, text in evidence.items():
            self._registry.put_evidence(rollout, self._replica, text)
        for adapter, text in baselines.items():
            self._registry.put_baseline(adapter, self._replica, text)


def read_evidence(
    registry: Registry, rollout: str, note: Callable[[BaseException], None]
) -> list[ReplicaEvidence]:
    """Return every replica's evidence of a rollout; what is damaged or another's is left out, and noted."""
    found = []
    for replica, text in sorted(registry.evidence(rollout).items()):
        try:
            found.append(read_document(rollout, replica, text))
        except CorruptStore as error:
            note(error)
    return found


def read_document(rollout: str, replica: str, text: bytes) -> ReplicaEvidence:
    """Return what a replica wrote about a rollout.

    Raises: CorruptStore: it cannot be read, counts what cannot be, or is of another rollout or replica.
    """
    try:
        document = ReplicaEvidence.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        more = f" ({error.error_count()} faults)" if error.error_count() > 1 else ""
        fact = f"cannot be read: {where}: {first['msg'][:200]}{more}"
        raise _left_out(rollout, replica, fact) from error
    for name, told, wanted in (
        ("rollout", document.rollout, rollout),
        ("replica", document.replica, replica),
    ):
        if told != wanted:
            raise _left_out(rollout, replica, f"says {name} {told[:100]!r}, which is another's")
    return document


def _left_out(rollout: str, replica: str, fact: str) -> CorruptStore:
    remedy = "it is left out of all decisions; delete it: a replica that lives writes it anew"
    return CorruptStore(f"evidence/{rollout}/{replica}.json", fact, remedy)


def read_baselines(
    registry: Registry, adapter: str, now: float, age_seconds: float
) -> list[BaselineDocument]:
    """Return every replica's baseline of an adapter that is at most `age_seconds` old."""
    found = []
    for text in registry.baselines(adapter).values():
        with contextlib.suppress(ValidationError):  # a baseline is a help, and is written anew in seconds
            found.append(BaselineDocument.model_validate_json(text))
    return [document for document in found if now - document.at <= age_seconds]


def _totals(recorder: Recorder, arm: Arm) -> DenseCounts:
    total = DenseCounts()
    for record in recorder.arm_records(arm):
        total.requests += sum(record.outcomes[word] for word in COUNTED)
        total.failures += sum(record.outcomes[word] for word in FAILURES)
        total.first_token = _plus(total.first_token, record.first_token.histogram)
        total.per_token = _plus(total.per_token, record.per_token.histogram)
    return total


def _each(recorder: Recorder, arm: Arm) -> Iterator[tuple[str, DenseCounts]]:
    """Yield an arm's counts, then copies of those of its largest sources."""
    yield "", _totals(recorder, arm)
    found = {name: counts for (its, name), counts in recorder.by_source.items() if its is arm}
    for name in nlargest(MOST_SOURCES, found, key=lambda one: found[one].requests):
        yield name, found[name].copy()


def _recent(now: _Totals, before: _Totals, arm: Arm) -> Recent:
    """Return what an arm did since a snapshot, and each of its largest sources where there are several."""
    whole = _difference(now[arm, ""], before[arm, ""])
    parts = {
        name: _difference(counts, before.get((arm, name), _NONE))
        for (its, name), counts in now.items()
        if its is arm and name
    }
    whole.sources = parts if len(parts) > 1 else {}
    return whole


def _plus(total: list[int], more: list[int]) -> list[int]:
    return [a + b for a, b in zip(total, more, strict=True)]


def _difference(now: DenseCounts, before: DenseCounts) -> Recent:
    return Recent(
        requests=now.requests - before.requests,
        failures=now.failures - before.failures,
        first_token=_sparse(now.first_token, before.first_token),
        per_token=_sparse(now.per_token, before.per_token),
    )


def _sparse(now: list[int], before: list[int]) -> dict[int, int]:
    return {place: n - was for place, (n, was) in enumerate(zip(now, before, strict=True)) if n - was}
