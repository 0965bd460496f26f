"""Reserve, commit, release: never over the limit, whatever comes in between; and little of it is lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.entries.rights import GroupLimits
from serve.groups.accounts import (
    INPUT,
    OUTPUT,
    REQUESTS,
    LimitRefusal,
    Reservation,
    UsageAccount,
    amounts,
    part,
    reserve,
)
from serve.groups.shares import ReplicaShares

_LIMITS = st.builds(
    GroupLimits,
    requests_per_minute=st.none() | st.integers(1, 20),
    input_tokens_per_minute=st.none() | st.integers(1, 500),
    output_tokens_per_minute=st.none() | st.integers(1, 500),
    concurrency=st.none() | st.integers(1, 5),
    tokens_per_day=st.none() | st.integers(1, 3_000),
)
_REQUEST = st.tuples(
    st.integers(1, 4),  # answers
    st.integers(0, 200),  # the prompt's bound
    st.integers(0, 100),  # the answer's bound, each
    st.floats(0, 1),  # how much of the bounds is used
    st.booleans(),  # a stream
)
_STEP = st.one_of(
    st.tuples(st.just("ask"), _REQUEST),
    st.tuples(st.just("pass"), st.floats(0.01, 45)),
    st.tuples(st.just("emit"), st.integers(1, 60)),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("end"), st.sampled_from(["ok", "fail", "leave"])),
)


@dataclass
class _Running:
    """A request as the engine sees it: what it used and when, by the world's clock."""

    reservation: Reservation
    tokens_in: int
    tokens_out: int
    streams: bool
    emitted: int = 0


@dataclass
class _World:
    """One server whose engine tells what was really used, and when."""

    accounts: tuple[UsageAccount, ...]
    now: float = 1_000.0
    running: list[_Running] = field(default_factory=list)
    used: dict[int, list[tuple[float, int]]] = field(
        default_factory=lambda: {REQUESTS: [], INPUT: [], OUTPUT: []}
    )
    today: int = 0

    def step(self, name: str, value: Any) -> None:
        getattr(self, f"_{name}")(value)

    def _ask(self, request: tuple[int, int, int, float, bool]) -> None:
        answers, bound_in, bound_out, share, streams = request
        meters = tuple(meter for account in self.accounts for meter in account.meters)
        before = [(meter.held, meter.room(self.now)) for meter in meters]
        found = reserve(self.accounts, meters, self.now, amounts(bound_in, bound_out * answers))
        if isinstance(found, LimitRefusal):
            assert [(meter.held, meter.room(self.now)) for meter in meters] == before
            assert found.wait_seconds >= 0
            return
        tokens_in = int(bound_in * share)
        one = _Running(found, tokens_in, int(bound_out * answers * share), streams)
        self.used[REQUESTS].append((self.now, 1))
        self.used[INPUT].append((self.now, tokens_in))
        self.today += tokens_in
        self.running.append(one)

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def _emit(self, tokens: int) -> None:
        for one in self.running[:2]:
            more = min(tokens, one.tokens_out - one.emitted)
            one.emitted += more
            self.today += more
            self.used[OUTPUT].append((self.now, more))

    def _tick(self, _: None) -> None:
        for one in self.running:
            if one.streams and one.emitted:
                one.reservation.advance(self.now, one.emitted)

    def _end(self, how: str) -> None:
        if not self.running:
            return
        one = self.running.pop(0)
        if how == "ok":
            more = one.tokens_out - one.emitted
            one.emitted += more
            self.today += more
            self.used[OUTPUT].append((self.now, more))
        one.reservation.commit(self.now, one.tokens_in, one.emitted)
        one.reservation.commit(self.now, 0, 0)  # a second end changes nothing

    def within(self, measure: int) -> int:
        """Return what was really used in the last 60 seconds."""
        return sum(amount for at, amount in self.used[measure] if self.now - 60 < at <= self.now)


def _check(world: _World) -> None:
    for account in world.accounts:
        limits = account.limits
        for limit, used in (
            (limits.requests_per_minute, world.within(REQUESTS)),
            (limits.input_tokens_per_minute, world.within(INPUT)),
            (limits.output_tokens_per_minute, world.within(OUTPUT)),
            (limits.concurrency, len(world.running)),
            (limits.tokens_per_day, world.today),
        ):
            assert limit is None or used <= limit


@given(_LIMITS, _LIMITS, st.lists(_STEP, max_size=60))
@settings(max_examples=1_000, deadline=None)
def test_no_history_goes_over_a_limit(
    group: GroupLimits, key: GroupLimits, steps: list[tuple[str, Any]]
) -> None:
    accounts = UsageAccount("group a"), UsageAccount("key b")
    accounts[0].bound(group)
    accounts[1].bound(key)
    world = _World(accounts)
    for name, value in steps:
        world.step(name, value)
        _check(world)
    while world.running:
        world.step("end", "leave")
    assert all(meter.held == 0 for account in accounts for meter in account.meters)


@dataclass
class _Fleet:
    """Replicas of one root, each with its own account; some are killed and come back under their name."""

    limits: GroupLimits
    worlds: dict[str, _World] = field(default_factory=dict)
    shares: dict[str, ReplicaShares] = field(default_factory=dict)
    gone: list[tuple[float, int]] = field(default_factory=list)
    starts: list[tuple[float, int]] = field(default_factory=list)
    now: float = 1_000.0

    def start(self, name: str) -> None:
        account = UsageAccount("group a")
        self.worlds[name] = _World((account,), self.now)
        self.shares[name] = ReplicaShares(name)
        self.look([name])
        # What it may have before the others know of it.
        self.starts.append((self.now, self._part(name)))
        self.look()

    def kill(self, name: str) -> None:
        world = self.worlds.pop(name)
        del self.shares[name]
        for one in world.running:  # the engine dies with it
            del one
        self.gone += world.used[OUTPUT]

    def look(self, names: Iterable[str] | None = None) -> None:
        for name in names or self.worlds:
            self.shares[name].observe(self.now, self.worlds)
            share = self.shares[name]
            self.worlds[name].accounts[0].bound(self.limits, share.replicas, share.rank)

    def _part(self, name: str) -> int:
        meters = self.worlds[name].accounts[0].meters
        return next(meter.limit for meter in meters if meter.measure == OUTPUT)

    def used(self) -> int:
        return sum(
            amount
            for used in (self.gone, *(world.used[OUTPUT] for world in self.worlds.values()))
            for at, amount in used
            if self.now - 60 < at <= self.now
        )

    def allowed(self) -> int:
        limit = self.limits.output_tokens_per_minute or 0
        recent = sum(share for at, share in self.starts if self.now - 60 < at <= self.now)
        return limit + recent


_FLEET_STEP = st.one_of(
    st.tuples(st.just("on"), st.tuples(st.sampled_from("abc"), _STEP)),
    st.tuples(st.just("kill"), st.sampled_from("abc")),
    st.tuples(st.just("start"), st.sampled_from("abc")),
    st.tuples(st.just("pass"), st.floats(0.1, 50)),
)


@given(st.integers(1, 500), st.lists(_FLEET_STEP, max_size=60))
@settings(max_examples=1_000, deadline=None)
def test_replicas_use_no_more_than_the_limit_and_the_parts_of_those_that_began_within_the_minute(
    limit: int, steps: list[tuple[str, Any]]
) -> None:
    fleet = _Fleet(GroupLimits(output_tokens_per_minute=limit))
    fleet.start("a")
    fleet.starts.clear()  # there was nobody before
    for name, value in steps:
        if name == "pass":
            fleet.now += value
            for world in fleet.worlds.values():
                world.now = fleet.now
            fleet.look()
        elif name == "kill" and value in fleet.worlds:
            fleet.kill(value)
            fleet.look()
        elif name == "start" and value not in fleet.worlds:
            fleet.start(value)
        elif name == "on" and value[0] in fleet.worlds and value[1][0] != "pass":
            fleet.worlds[value[0]].step(*value[1])
        assert fleet.used() <= fleet.allowed()


@given(st.integers(0, 10**6), st.integers(1, 50))
def test_the_parts_of_all_replicas_are_the_limit(limit: int, replicas: int) -> None:
    assert sum(part(limit, replicas, rank) for rank in range(replicas)) == limit
    assert sum(part(limit, replicas, None) for _ in range(replicas)) <= limit


@given(st.lists(st.integers(0, 2_000), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 5_000))
@settings(deadline=None)
def test_replicas_that_know_of_each_other_never_use_more_than_the_day_has(
    sizes: list[int], replicas: int, limit: int
) -> None:
    budgets = []
    for _ in range(replicas):
        account = UsageAccount("group a")
        account.bound(GroupLimits(tokens_per_day=limit), replicas)
        budgets.append(account)
    used = [0] * replicas
    for place, size in enumerate(sizes):
        who = place % replicas
        account = budgets[who]
        assert account.budget is not None
        account.budget.elsewhere = sum(used) - used[who]
        found = reserve((account,), account.meters, 0.0, amounts(0, size))
        if isinstance(found, Reservation):
            found.commit(0.0, 0, size)
            used[who] += size
    assert sum(used) <= limit


@pytest.mark.parametrize(
    ("seconds", "streams", "bound"),
    [(0.5, False, 30), (2.0, False, 30), (2.0, True, 60), (5.0, True, 30), (2.0, False, 40)],
)
def test_a_client_that_saturates_gets_its_quota(seconds: float, streams: bool, bound: int) -> None:
    """What is held and not used is lost for as long as the answer takes, and nothing else is."""
    limit, minutes, tokens = 3_000, 10, 30
    account = UsageAccount("group a")
    account.bound(GroupLimits(output_tokens_per_minute=limit))
    now, end, used = 0.0, 60.0 * minutes, 0
    running: list[tuple[float, Reservation]] = []
    while now < end:
        for begun, one in list(running):
            done = min(1.0, (now - begun) / seconds)
            if done >= 1.0:
                one.commit(now, 0, tokens)
                running.remove((begun, one))
                used += tokens
            elif streams:
                one.advance(now, int(tokens * done))
        need = amounts(0, bound)
        while isinstance(found := reserve((account,), account.meters, now, need), Reservation):
            running.append((now, found))
        now += 0.25
    assert used <= limit * (minutes + 1)
    assert used >= 0.95 * limit * minutes


def test_a_refusal_names_the_limit_that_is_in_the_way_for_longest_and_when_it_is_not() -> None:
    group, key = UsageAccount("group a"), UsageAccount("key b")
    group.bound(GroupLimits(requests_per_minute=1, output_tokens_per_minute=100))
    key.bound(GroupLimits(input_tokens_per_minute=10))
    meters = (*group.meters, *key.meters)
    first = reserve((group, key), meters, 100.0, amounts(10, 50))
    assert isinstance(first, Reservation)
    first.commit(110.0, 10, 50)
    found = reserve((group, key), meters, 120.0, amounts(1, 40))
    assert isinstance(found, LimitRefusal)
    assert (found.owner, found.measure, found.room, found.hopeless) == ("key b", INPUT, 0, False)
    again = 120.0 + found.wait_seconds
    assert again == pytest.approx(170.5)
    assert isinstance(reserve((group, key), meters, again - 0.01, amounts(1, 40)), LimitRefusal)
    assert isinstance(reserve((group, key), meters, again, amounts(1, 40)), Reservation)


def test_what_no_wait_would_make_fit_is_said_to_be_hopeless() -> None:
    account = UsageAccount("group a")
    account.bound(GroupLimits(output_tokens_per_minute=100, requests_per_minute=5))
    found = reserve((account,), account.meters, 0.0, amounts(0, 101))
    assert isinstance(found, LimitRefusal)
    assert found.hopeless


def test_a_limit_that_changes_keeps_what_was_used() -> None:
    account = UsageAccount("group a")
    account.bound(GroupLimits(output_tokens_per_minute=100))
    one = reserve((account,), account.meters, 0.0, amounts(0, 80))
    assert isinstance(one, Reservation)
    one.commit(0.0, 0, 80)
    account.bound(GroupLimits(output_tokens_per_minute=50))
    assert account.meters[0].room(0.0) == -30
    account.bound(GroupLimits(output_tokens_per_minute=200))
    assert account.meters[0].room(0.0) == 120


def test_the_part_of_a_replica_that_went_is_free_a_minute_later() -> None:
    shares = ReplicaShares("b")
    assert shares.observe(0.0, ["a", "b", "c"])
    assert (shares.replicas, shares.rank) == (3, 1)
    assert shares.observe(10.0, ["a", "b"])
    assert (shares.replicas, shares.rank) == (3, None)
    assert not shares.observe(60.0, ["a", "b"])
    assert shares.observe(72.0, ["a", "b"])
    assert (shares.replicas, shares.rank) == (2, 1)
