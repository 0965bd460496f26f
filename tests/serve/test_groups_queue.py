"""The queue before the engine: seats are never left empty, nobody is starved, and what waits is bounded."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve.groups.queue import MEMORY_SECONDS, FairQueue, SeatState, SeatTicket
from tests.fakes.clock import Clock

GROUPS = ("red", "green", "blue")


def sits(ticket: SeatTicket) -> bool:
    """Return whether a ticket has a seat now."""
    return ticket.standing is SeatState.SEATED


class QueueMachine(RuleBasedStateMachine):
    """Any order of coming, leaving, losing patience and waiting, checked after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.open: list[SeatTicket] = []
        self.told: Counter[SeatTicket] = Counter()

    @initialize(seats=st.integers(1, 12), most=st.integers(0, 6))
    def build(self, seats: int, most: int) -> None:
        self.queue = FairQueue(seats, most, self.clock)
        self.most = most

    @rule(
        group=st.sampled_from(GROUPS),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
        cost=st.floats(1, 2_000),
        seats=st.integers(1, 4),
        patient=st.booleans(),
    )
    def come(self, group: str, weight: float, cost: float, seats: int, patient: bool) -> None:
        waited = self.queue.waiting
        ticket = self.queue.enter(group, weight, cost, seats=seats, patient=patient)
        if ticket.standing is SeatState.OUT:
            assert not patient
            assert waited >= self.most, "refused while the line was not full"
            return
        ticket.told = lambda: self._tell(ticket)
        self.open.append(ticket)

    def _tell(self, ticket: SeatTicket) -> None:
        self.told[ticket] += 1
        assert ticket.standing is not SeatState.WAITING

    @precondition(lambda self: self.open)
    @rule(data=st.data(), used=st.none() | st.floats(0, 4_000))
    def go(self, data: st.DataObject, used: float | None) -> None:
        ticket = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.queue.leave(ticket, used)

    @rule(seconds=st.sampled_from([0.1, 5.0, MEMORY_SECONDS + 1]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.open = [one for one in self.open if one.standing is not SeatState.OUT]
        seated = [one for one in self.open if one.standing is SeatState.SEATED]
        waiting = [one for one in self.open if one.standing is SeatState.WAITING]
        assert self.queue.seats is not None
        assert sum(one.seats for one in seated) == self.queue.seats - self.queue.free == self.queue.taken
        assert self.queue.free >= 0
        assert len(waiting) == self.queue.waiting
        assert sum(not one.patient for one in waiting) <= self.most + sum(one.patient for one in waiting)
        assert all(count == 1 for count in self.told.values()), "told twice"
        heads = [line.waiting[0] for line in self.queue._busy if line.waiting]
        for head in sorted(heads, key=lambda one: (one.line.counter, one.line.seats)):
            if head.seats > self.queue.free:
                break  # it is next, and nobody overtakes it
            assert self.queue.free - head.seats < self.queue.seats // 2, "a seat is empty and somebody waits"


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def test_a_server_without_a_bound_seats_everybody() -> None:
    queue = FairQueue(None, 0)
    tickets = [queue.enter("red", 1.0, 900) for _ in range(1_000)]
    assert {one.standing for one in tickets} == {SeatState.SEATED}
    for one in tickets:
        queue.leave(one, 900)
    assert not queue.taken


@given(
    weights=st.tuples(st.sampled_from([1.0, 2.0, 4.0]), st.sampled_from([1.0, 2.0, 4.0])),
    costs=st.tuples(st.integers(10, 1_000), st.integers(10, 1_000)),
    seats=st.integers(1, 16),
    wrong=st.floats(0.3, 3.0),
)
@settings(max_examples=150, deadline=None)
def test_two_groups_that_always_wait_are_given_tokens_by_their_weights(
    weights: tuple[float, float], costs: tuple[int, int], seats: int, wrong: float
) -> None:
    # The estimates are wrong by a factor, and another one for each group: what was used counts.
    queue = FairQueue(seats, None)
    groups = [("red", weights[0], costs[0], wrong), ("blue", weights[1], costs[1], 1 / wrong)]
    given_tokens = {"red": 0.0, "blue": 0.0}
    used = {"red": costs[0], "blue": costs[1]}
    inside: list[SeatTicket] = []
    for _ in range(60):
        for name, weight, cost, factor in groups:
            queue.enter(name, weight, cost * factor)
    # The first that came had the seats before anybody else was there: a round later all is fair.
    lines = list(queue._lines.values())
    for _ in range(400):
        inside = [ticket for line in lines for ticket in line.inside]
        oldest = min(inside, key=lambda one: one.start)
        name = oldest.line.name
        queue.leave(oldest, used[name])
        given_tokens[name] += used[name]
        _, weight, cost, factor = next(one for one in groups if one[0] == name)
        queue.enter(name, weight, cost * factor)
    shares = [given_tokens["red"] / weights[0], given_tokens["blue"] / weights[1]]
    # The bound of virtual counters: what can be in flight, and one request more, whatever the time.
    bound = 2 * (seats + 1) * max(costs[0] / weights[0], costs[1] / weights[1]) * max(wrong, 1 / wrong)
    assert abs(shares[0] - shares[1]) <= bound


def test_who_comes_beside_a_flood_is_next_and_has_no_credit_for_its_absence() -> None:
    clock = Clock()
    queue = FairQueue(4, None, clock)
    flood = [queue.enter("flood", 1.0, 900) for _ in range(40)]
    light = queue.enter("light", 1.0, 20)
    assert not sits(light)
    queue.leave(flood[0], 900)
    assert sits(light)
    assert light.start <= flood[1].start, "the engine is to take it before what the flood has in flight"
    clock.now += 1.0
    several = [queue.enter("light", 1.0, 900) for _ in range(20)]
    for one in flood[1:8]:
        queue.leave(one, 900)
    queue.leave(light, 20)
    seated = [one for one in several if one.standing is SeatState.SEATED]
    assert 0 < len(seated) < 4, "an absence was paid for"


def test_as_many_seats_are_kept_as_others_could_use_lately() -> None:
    clock = Clock()
    queue = FairQueue(16, None, clock)
    for one in [queue.enter("light", 1.0, 20) for _ in range(3)]:
        queue.leave(one, 20)
    flood = [queue.enter("flood", 1.0, 900) for _ in range(20)]
    assert queue.free == 3
    light = [queue.enter("light", 1.0, 20) for _ in range(3)]
    assert all(map(sits, light))
    assert not queue.enter("light", 1.0, 20).yields
    assert flood[12].yields
    clock.now += 3 * MEMORY_SECONDS
    for one in light:
        queue.leave(one, 20)
    assert queue.free == 0, "nobody else is about: the flood has them all"


def test_no_more_than_half_is_kept_however_much_the_others_asked() -> None:
    queue = FairQueue(16, None, Clock())
    for one in [queue.enter("other", 100.0, 20) for _ in range(16)]:
        queue.leave(one, 20)
    flood = [queue.enter("flood", 1.0, 900) for _ in range(20)]
    assert sum(map(sits, flood)) == 8


def test_a_flood_that_fills_the_line_gives_way_to_who_comes() -> None:
    queue = FairQueue(1, 4)
    queue.enter("flood", 1.0, 900)
    waiting = [queue.enter("flood", 1.0, 900) for _ in range(4)]
    sent: list[str] = []
    waiting[-1].told = lambda: sent.append("away")
    assert queue.enter("flood", 1.0, 900).standing is SeatState.OUT
    assert queue.enter("light", 1.0, 20).standing is SeatState.WAITING
    assert sent == ["away"]
    assert [one.standing for one in waiting] == [SeatState.WAITING] * 3 + [SeatState.OUT]


def test_a_request_of_many_answers_is_not_overtaken_for_ever() -> None:
    queue = FairQueue(4, None)
    small = [queue.enter("red", 1.0, 10) for _ in range(4)]
    large = queue.enter("red", 1.0, 10, seats=4)
    later = queue.enter("red", 1.0, 10)
    for one in small[:3]:
        queue.leave(one, 10)
    assert not sits(large)
    assert not sits(later)
    queue.leave(small[3], 10)
    assert sits(large)
    assert not sits(later)


@pytest.mark.parametrize("used", [0.0, 5_000.0])
def test_a_wrong_estimate_is_made_good_at_the_end(used: float) -> None:
    queue = FairQueue(2, None)
    other = queue.enter("green", 1.0, 1_000)
    queue.leave(queue.enter("red", 1.0, 1_000), used)
    queue.enter("blue", 1.0, 1)
    waiting = {name: queue.enter(name, 1.0, 1_000) for name in ("green", "red")}
    queue.leave(other, 1_000)
    assert sits(waiting["red"]) == (used < 1_000)
