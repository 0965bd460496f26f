"""What the balancers drill does to two replicas behind a balancer, and what its clients saw meanwhile.

Which replica answered a stream is read from the replicas' access logs by the stream's id: a stream that is
in nobody else's log was the victim's. The judgements are pure functions of streams and times.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import httpx

from deploy.verify.load import LoadRun, StreamResult
from loadtests.drills.stages import REPLICAS, BalancedStage, LiveReplica
from loadtests.live import descendants, is_alive, wardrobe

CLIENTS = 8
STEP_SECONDS = 1.0
"""What the project promises: a step applies on every replica within a second."""

POLICY = """\
name: drill
steps:
  - {weight: 20%, min_units: 1, min_seconds: 6}
  - {weight: 50%, min_units: 1000000, min_seconds: 86400}
metrics: {errors: null, latency: null, feedback: null}
guard: {latency_factor: 100}
"""
_LONG = {"max_tokens": 48, "ignore_eos": True}
_SHORT = {"max_tokens": 1}
_SESSIONS_PER_CLIENT = 2
_WATCHED_SECONDS = 8.0
_SETTLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class WeightChange:
    """A change of the canary's weight under load.

    `seconds` is how long after it the last request began that the old weight still decided, on any replica;
    `moved` counts the sessions that changed their arm, `by_replica` the requests a second after it and on.
    """

    event: str
    seconds: float
    moved: int
    by_replica: Mapping[str, int]
    failed: int

    @property
    def kept(self) -> bool:
        """Return whether it applied everywhere in time, and whether there was anything to see."""
        seen = self.moved > 0 and sum(count > 0 for count in self.by_replica.values()) == REPLICAS
        return seen and self.seconds <= STEP_SECONDS and not self.failed


@dataclass(frozen=True, slots=True)
class Loss:
    """A replica lost under load: what it had in flight, and what failed there and elsewhere."""

    streams: int
    in_flight_on_it: int
    failed: int
    failed_elsewhere: int
    faults: Mapping[str, int]
    others_answered_meanwhile: int
    back_seconds: float
    processes_left: int

    @property
    def kept(self) -> bool:
        """Return whether nothing failed but what the lost replica was answering, and the others went on."""
        clean = self.failed <= self.in_flight_on_it and not self.failed_elsewhere and not self.processes_left
        return clean and self.in_flight_on_it > 0 and self.others_answered_meanwhile > 0


@dataclass(frozen=True, slots=True)
class Rolling:
    """All replicas replaced one after the other, under load."""

    streams: int
    failed: int
    faults: Mapping[str, int]
    replaced: int
    seconds: float

    @property
    def kept(self) -> bool:
        """Return whether every replica was replaced and every stream was whole."""
        return self.replaced == REPLICAS and self.streams > 0 and not self.failed


def step(stage: BalancedStage, model: str) -> list[WeightChange]:
    """Roll out version 2 of `model` under load: the ramp's own step, then an abort."""
    root, policy = stage.registry.root, stage.folder / "policy.yaml"
    policy.write_text(POLICY)
    wardrobe(root, "rollout", "start", f"{model}@2", "--policy", policy)
    with LoadRun(stage.url, _ask(model, _SHORT), clients=CLIENTS, sessions=_SESSIONS_PER_CLIENT) as load:
        stage.wait(lambda: "advance" in _decided(stage, model), "the rollout steps on")
        time.sleep(_WATCHED_SECONDS)
        wardrobe(root, "rollout", "abort", model)
        time.sleep(_WATCHED_SECONDS)
    time.sleep(_SETTLE_SECONDS)
    times = _decided(stage, model)
    ends = {"advance": times["abort"], "abort": time.time()}
    return [_moved(stage, load, event, times[event], end) for event, end in ends.items()]


def lose(stage: BalancedStage, model: str, process: Callable[[LiveReplica], int]) -> Loss:
    """Kill -9 `process` of the replica that answers most, under load, and wait until it answers again."""
    begun = time.time()
    with LoadRun(stage.url, _ask(model, _LONG), clients=CLIENTS) as load:
        stage.wait(lambda: stage.all_answer(begun), "both replicas answer")
        before = stage.replicas()
        victim = max(before, key=LiveReplica.in_flight)
        below = descendants(victim.launcher)
        killed = time.time()
        os.kill(process(victim), signal.SIGKILL)
        stage.wait(lambda: not is_alive(victim.server), "its server is gone")
        gone = time.time()
        stage.wait(lambda: len(_but(stage, {victim.server})) == REPLICAS, "it is ready again")
        ready = time.time()
        stage.wait(lambda: stage.all_answer(ready), "the balancer sends it requests")
        back = time.time()
    time.sleep(_SETTLE_SECONDS)
    answers = stage.answers()
    elsewhere = {answer.id for name, some in answers.items() if name != victim.name for answer in some}
    survivors = [answer for one in before if one != victim for answer in answers[one.name]]
    own, failed = lost(load.streams, killed, gone, elsewhere), load.failed()
    return Loss(
        streams=len(load.streams),
        in_flight_on_it=len(own),
        failed=len(failed),
        failed_elsewhere=sum(stream not in own for stream in failed),
        faults=dict(Counter(stream.fault for stream in failed)),
        others_answered_meanwhile=sum(answer.ok and killed < answer.at < ready for answer in survivors),
        back_seconds=round(back - killed, 1),
        processes_left=sum(map(is_alive, below)),
    )


def roll(stage: BalancedStage, model: str) -> Rolling:
    """Restart every replica, draining, one after the other, under load."""
    begun = time.time()
    with LoadRun(stage.url, _ask(model, _LONG), clients=CLIENTS) as load:
        stage.wait(lambda: stage.all_answer(begun), "both replicas answer")
        before, started = {one.server for one in stage.replicas()}, time.time()
        for _ in stage.restart():
            now = time.time()
            stage.wait(lambda now=now: stage.all_answer(now), "the next one answers")  # type: ignore[misc]
        stage.wait(lambda: len(_but(stage, before)) == REPLICAS, "all are replaced")
        ready = time.time()
        stage.wait(lambda: stage.all_answer(ready), "the new ones answer")
        seconds, replaced = time.time() - started, len(_but(stage, before))
    failed = load.failed()
    faults = dict(Counter(stream.fault for stream in failed))
    return Rolling(len(load.streams), len(failed), faults, replaced, round(seconds, 1))


def lost(
    streams: Sequence[StreamResult], killed: float, gone: float, elsewhere: Collection[str]
) -> list[StreamResult]:
    """Return the streams that were open between the kill and the server's end, and not answered elsewhere.

    `elsewhere` holds the ids of what the other replicas answered; a stream that ended before its first piece
    has none.
    """
    open_then = [one for one in streams if one.began <= gone and killed <= one.began + one.seconds]
    return [one for one in open_then if not one.id or one.id not in elsewhere]


def applied(streams: Sequence[StreamResult], at: float, end: float) -> tuple[float, int]:
    """Return how long after `at` a request still began under the old weight, and how many sessions moved.

    A session's last arm before the `end` is that of the new weight; what differs from it after `at` is the
    old one. What was open at one of the two times may have been decided on either side of it.
    """
    ordered = sorted(streams, key=lambda one: one.began)
    old = {one.session: one.arm for one in ordered if one.began + one.seconds < at}
    after = [one for one in ordered if at <= one.began and one.began + one.seconds < end]
    new = {one.session: one.arm for one in after}
    late = [one.began - at for one in after if one.arm != new[one.session]]
    return max(late, default=0.0), sum(old.get(session, arm) != arm for session, arm in new.items())


def _moved(stage: BalancedStage, load: LoadRun, event: str, at: float, end: float) -> WeightChange:
    seconds, moved = applied([one for one in load.streams if one.whole], at, end)
    later = {one.id for one in load.streams if at + STEP_SECONDS <= one.began < end}
    by_replica = {name: sum(a.id in later for a in some) for name, some in stage.answers().items()}
    return WeightChange(event, round(seconds, 2), moved, by_replica, len(load.failed()))


def _ask(model: str, fields: Mapping[str, object]) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}


def _decided(stage: BalancedStage, model: str) -> dict[str, float]:
    """Return when each of the rollout's decisions was made, by its event (UNIX time)."""
    url = stage.replicas()[0].url
    status = httpx.get(f"{url}/admin/v1/rollouts/{model}", timeout=60).raise_for_status().json()
    return {one["event"]: one["at"] for one in status["decisions"]}


def _but(stage: BalancedStage, servers: Collection[int]) -> list[LiveReplica]:
    return [one for one in stage.replicas() if one.server not in servers]
