"""Three replicas over one root decide together: one of them wins each transition, and none waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from registry.records import Heartbeat, RolloutEntry
from registry.store import Registry
from registry.watcher import Watcher
from serve.rollout.assignment import Arm, choose_arm
from serve.rollout.decision.controller import Controller, Local
from serve.rollout.decision.machine import begin, transition
from serve.rollout.decision.states import Event, EventType
from serve.rollout.policy import Policy, Promotion, RampStep
from serve.rollout.recording.evidence import Baseline
from serve.rollout.recording.keeper import EvidenceWriter
from tests.fakes.rollouts import unit
from tests.fakes.served import make_root, publish

POLICY = Policy(
    name="test",
    steps=(
        RampStep(weight=1_000, min_units=30, min_seconds=5),
        RampStep(weight=5_000, min_units=30, min_seconds=5),
    ),
    promotion=Promotion(no_harm_units=60, no_harm_seconds=5),
    cooldown_seconds=20,
    recovery_seconds=10,
)


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Replica:
    """One replica without a server: its controller, and what its engine would say."""

    name: str
    registry: Registry
    clock: Clock
    living: bool = True
    failing: tuple[str, int] = ("", 0)
    inflight: tuple[str, ...] = ()
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.registry)
        self.watcher.refresh()
        self.keeper = EvidenceWriter(self.registry, self.name, self.clock)
        local = Local(
            replica=self.name,
            require_proof=True,
            alive=lambda: self.living,
            failure=lambda _: self.failing,
            inflight=lambda: self.inflight,
            ask=self._ask,
        )
        self.controller = Controller(
            self.registry, self.watcher, self.keeper, local, notifier=self, clock=self.clock
        )

    async def _ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        return 500, b"no"

    def notify(self, before: RolloutEntry | None, after: RolloutEntry) -> None:
        self.told.append(after.state)

    def beat(self, *resident: str) -> None:
        self.registry.beat(Heartbeat(self.name, "http://x", "sha256:0", resident, 8, "ready", 0.0, 1))

    def serve(self, numbers: range, outcome: Callable[[Arm, int], str] = lambda arm, number: "ok") -> None:
        """Answer one request of each unit, as the router would."""
        entry = self.watcher.view.adapters["support"].rollout
        assert entry is not None
        recorder = self.keeper.find(entry)
        for number in numbers:
            arm = choose_arm(recorder.split, "support", unit(number))
            recorder.observe(recorder.segment, arm, unit(number), outcome(arm, number), first_turn=True)


@dataclass
class Fleet:
    registry: Registry
    clock: Clock
    replicas: list[Replica]

    def start(self, policy: Policy = POLICY) -> None:
        versions = {one.number: one for one in self.registry.versions("support")}

        def decide(last: RolloutEntry | None) -> RolloutEntry:
            return begin(
                "support", versions[2], versions[1], policy, who="ann", now=self.clock(),
                seq=1 if last is None else last.seq + 1, rollout_id="00112233445566aa", baseline=Baseline(),
            )  # fmt: skip

        self.registry.append_rollout("support", decide)
        self.look()

    def move(self, occasion: EventType, policy: Policy = POLICY) -> None:
        """Do what a person's command does."""

        def decide(last: RolloutEntry | None) -> RolloutEntry:
            assert last is not None
            return transition(last, Event(occasion, "ann", "drill"), policy, self.clock())

        self.registry.append_rollout("support", decide)
        self.look()

    def look(self) -> None:
        for replica in self.replicas:
            replica.watcher.refresh()

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass, and every replica look at the same moment."""
        self.clock.now += seconds

        async def all_at_once() -> None:
            await asyncio.gather(*(replica.controller.tick() for replica in self.replicas))
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

        for replica in self.replicas:
            replica.beat("support@1", *(() if replica.failing[0] else ("support@2",)))
        asyncio.run(all_at_once())
        self.look()

    def load(self) -> None:
        """Pass the preflight and have every replica act on it."""
        for _ in range(3):
            self.tick()
        assert self.last.state == "ramping", self.last

    @property
    def last(self) -> RolloutEntry:
        entry = self.registry.rollout("support")
        assert entry is not None
        return entry

    def log(self) -> list[str]:
        return [entry.event for entry in self.registry.rollout_log("support")]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
        registry.attest("support", seed, "proof", {"passed": True}, who="test")
    clock = Clock()
    return Fleet(registry, clock, [Replica(f"r{number}", registry, clock) for number in range(3)])


def failing(share: int) -> Callable[[Arm, int], str]:
    return lambda arm, number: "engine_error" if arm is Arm.CANARY and number % 100 < share else "ok"


def test_a_good_version_goes_step_by_step_to_stable_with_one_record_per_step(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    for round_number in range(12):
        for place, replica in enumerate(fleet.replicas):
            begins = (round_number * 3 + place) * 100
            if replica.watcher.view.adapters["support"].rollout:
                replica.serve(range(begins, begins + 100))
        fleet.tick(2)
    for _ in range(3):
        fleet.tick(10)
    assert fleet.log() == ["start", "loaded", "advance", "promote", "cooled"]
    assert fleet.registry.aliases("support")["stable"] == 2
    assert "no harm" in fleet.registry.rollout_log("support")[3].sentence
    told = [state for replica in fleet.replicas for state in replica.told]
    assert sorted(told) == sorted(["ramping", "ramping", "promoted", "closed"])


def test_a_bad_version_is_taken_back_and_stable_never_moves(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    for round_number in range(4):
        for place, replica in enumerate(fleet.replicas):
            if replica.watcher.view.adapters["support"].rollout:
                begins = (round_number * 3 + place) * 100
                replica.serve(range(begins, begins + 100), failing(50))
        fleet.tick(0.5)
    assert fleet.last.state == "rolled_back"
    assert (fleet.last.reason, fleet.last.weight) == ("errors", 0)
    assert "canary units failed" in fleet.last.sentence
    assert fleet.registry.aliases("support")["stable"] == 1
    assert fleet.log().count("guard") == 1
    fleet.tick()
    assert "wardrobe_rollback_duration" in str(
        [metric.name for metric in fleet.replicas[0].controller.metrics.collect() if metric.samples]
    )


def test_a_version_that_one_replica_cannot_load_is_taken_back_before_anybody_met_it(fleet: Fleet) -> None:
    fleet.replicas[1].failing = ("support@2: could not be loaded", 2)
    fleet.start()
    fleet.tick()
    assert (fleet.last.state, fleet.last.reason) == ("rolled_back", "preload")
    assert all(entry.weight == 0 for entry in fleet.registry.rollout_log("support"))


def test_the_preflight_waits_for_every_live_replica(fleet: Fleet) -> None:
    fleet.start()
    late = fleet.replicas.pop()
    for replica in fleet.replicas:
        replica.beat("support@1", "support@2")
    late.beat("support@1")
    for _ in range(3):
        fleet.tick()
    assert fleet.last.state == "preloading"
    late.beat("support@1", "support@2")
    for _ in range(2):
        fleet.tick()
    assert fleet.last.state == "ramping"


def test_a_quarantined_canary_is_taken_back(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    fleet.registry.quarantine("support", 2, "bit rot", who="verify")
    fleet.look()
    fleet.tick()
    assert (fleet.last.state, fleet.last.reason) == ("rolled_back", "forbidden")


def test_golden_prompts_without_an_answer_take_the_version_back(fleet: Fleet, tmp_path: Path) -> None:
    folder = fleet.registry.root / "adapters/support"
    (folder / "golden.jsonl").write_text('{"prompt": "hi", "name": "greeting"}\n')
    fleet.start()
    for _ in range(3):
        fleet.tick()
        asyncio.run(asyncio.sleep(0))
    assert fleet.last.state == "rolled_back"
    assert "greeting" in fleet.last.sentence
    (attestation,) = fleet.registry.attestations("support", 2, "golden")[:1]
    assert attestation.body["ok"] is False


def test_a_replica_that_cannot_load_the_canary_any_more_brakes_alone(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    fleet.replicas[0].failing = ("support@2: gone", 1)
    fleet.tick()
    splits = [replica.keeper.find(fleet.last).split.weight for replica in fleet.replicas]
    assert splits == [0, 1_000, 1_000]
    fleet.replicas[0].failing = ("", 0)
    fleet.tick()
    assert fleet.replicas[0].keeper.find(fleet.last).split.weight == 1_000


def test_a_root_that_cannot_be_read_freezes_then_sends_everybody_to_stable(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.start()
    fleet.load()
    replica, seq = fleet.replicas[0], fleet.last.seq
    for silent, weight in ((11.0, 1_000), (61.0, 0)):
        replica.watcher.last_success -= silent
        asyncio.run(replica.controller.tick())
        assert replica.keeper.find(fleet.last).split.weight == weight
        replica.watcher.refresh()
    assert fleet.last.seq == seq


def test_an_engine_death_with_the_canary_in_use_suspends_and_then_takes_it_back(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    dying = fleet.replicas[2]
    dying.living, dying.inflight = False, ("support@1", "support@2")
    fleet.tick()
    assert (fleet.last.state, fleet.last.weight, fleet.last.reason) == ("hold", 0, "suspect")
    dying.living = True
    fleet.tick()
    for replica in fleet.replicas:
        replica.serve(range(30))
    fleet.tick()
    fleet.tick()
    assert (fleet.last.state, fleet.last.reason) == ("rolled_back", "suspect")
    assert fleet.registry.engine_deaths("support@2") == 1


def test_an_engine_death_without_the_canary_in_use_is_not_the_canarys(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    fleet.replicas[2].living = False
    fleet.tick()
    assert fleet.last.state == "ramping"


def test_two_deaths_quarantine_what_was_in_use_but_never_a_stable(fleet: Fleet) -> None:
    for _ in range(2):
        dying = Replica("r9", fleet.registry, fleet.clock, living=False, inflight=("support@1", "support@2"))
        fleet.clock.now += 1
        asyncio.run(dying.controller.tick())
    assert fleet.registry.quarantined("support", 2) == "was in use at two deaths of an engine"
    assert fleet.registry.quarantined("support", 1) is None


def test_a_restarted_replica_goes_on_with_its_counts(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    fleet.replicas[0].serve(range(200))
    fleet.tick(0.1)
    before = fleet.replicas[0].keeper.document(fleet.last.rollout)
    fleet.replicas[0] = Replica("r0", fleet.registry, fleet.clock)
    fleet.tick(0.1)
    after = fleet.replicas[0].keeper.document(fleet.last.rollout)
    assert before is not None
    assert after is not None
    assert _requests(before) == _requests(after) == 200


def test_a_persons_abort_reaches_every_replica_and_its_last_requests_are_written(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    segment = fleet.replicas[0].keeper.find(fleet.last).segment
    fleet.move(EventType.ABORT)
    recorder = fleet.replicas[0].keeper.recorder(fleet.last.rollout)
    assert recorder is not None
    recorder.observe(segment, Arm.CANARY, unit(5), "ok", first_turn=True)
    fleet.tick()
    assert recorder.split.weight == 0
    assert recorder.entry.state == "rolled_back"
    document = fleet.replicas[0].keeper.document(fleet.last.rollout)
    assert document is not None
    assert document.seq == fleet.last.seq
    assert _requests(document) == 1


def test_a_paused_rollout_stays_armed_and_does_not_advance(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    fleet.move(EventType.PAUSE)
    fleet.replicas[0].serve(range(1_000))
    fleet.tick(60)
    assert fleet.last.state == "paused"
    fleet.replicas[0].serve(range(1_000, 2_000), failing(80))
    fleet.tick()
    assert (fleet.last.state, fleet.last.reason) == ("rolled_back", "errors")


def test_a_policy_of_a_later_release_stops_no_other_rollout(fleet: Fleet, tmp_path: Path) -> None:
    for seed in (3, 4):
        publish(fleet.registry, tmp_path, "later", seed)
    first = fleet.registry.versions("later")
    later = begin(
        "later", first[1], first[0], POLICY, who="ann", now=fleet.clock(), seq=1,
        rollout_id="ffeeddccbbaa9988", baseline=Baseline(),
    )  # fmt: skip
    strange = replace(later, policy={**later.policy, "invented": 1})
    fleet.registry.append_rollout("later", lambda last: strange)
    fleet.start()
    fleet.load()
    found = fleet.registry.rollout("later")
    assert found is not None
    assert found.state == "preloading"


def test_a_rollout_shows_in_the_metrics(fleet: Fleet) -> None:
    fleet.start()
    fleet.load()
    fleet.replicas[0].serve(range(300))
    fleet.tick(0.5)
    fleet.tick(0.5)
    samples: dict[tuple[str, str], float] = {}
    for metric in fleet.replicas[0].controller.metrics.collect():
        for sample in metric.samples:
            kind = sample.labels.get("state") or sample.labels.get("arm") or ""
            samples[sample.name, kind] = sample.value
    assert samples["wardrobe_rollout_state", "ramping"] == 1
    assert samples["wardrobe_rollout_state", "paused"] == 0
    assert samples["wardrobe_rollout_target_weight_ratio", "canary"] == 0.1
    assert samples["wardrobe_rollout_observed_weight_ratio", "canary"] == pytest.approx(0.1, abs=0.05)
    assert samples["wardrobe_rollout_samples", "stable"] > 200


def _requests(document: Any) -> int:
    return sum(tally.requests for segment in document.segments for tally in segment.arms.values())


def test_evidence_that_cannot_be_written_or_read_is_told_once_and_stops_no_decision(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.start()
    fleet.load()
    folder = fleet.registry.root / "evidence" / fleet.last.rollout
    (folder / "stranger.json").write_text('{"replica": 7}')
    mine = folder / f"{fleet.replicas[0].name}.json"
    mine.unlink(missing_ok=True)
    mine.mkdir()
    work = fleet.replicas[0].controller.work
    with caplog.at_level("WARNING"):
        for _ in range(4):
            fleet.tick()
            work.succeed()
    told = [record.getMessage() for record in caplog.records]
    assert sum("stranger" in text for text in told) == len(fleet.replicas)
    assert sum(mine.name in text and "file system refused" in text for text in told) == 1
    assert "stranger" in work.problem
    fleet.registry.quarantine("support", 2, "bit rot", who="verify")
    fleet.look()
    fleet.tick()
    assert fleet.last.state == "rolled_back"


def test_a_dead_replicas_damaged_evidence_does_not_switch_the_rollback_off(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.start()
    fleet.load()
    rollout = fleet.last.rollout
    recent = {"requests": 100, "failures": 0, "first_token": {"9999": 100}}
    old = {
        "rollout": rollout,
        "adapter": "support",
        "replica": "old",
        "at": 1.0,
        "recent": {"canary": recent},
    }
    fleet.registry.put_evidence(rollout, "old", json.dumps(old).encode())
    for replica in fleet.replicas:
        replica.serve(range(400), lambda arm, number: "engine_error" if arm is Arm.CANARY else "ok")
    fleet.tick()
    fleet.tick()
    assert fleet.last.state == "rolled_back"
    assert f"evidence/{rollout}/old.json" in caplog.text
