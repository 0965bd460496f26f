from __future__ import annotations

import itertools
from collections.abc import Iterator

from registry.tuning.fairness import WaitingJob, choose


def served(waiting: list[WaitingJob], history: dict[str, float] | None = None) -> Iterator[str]:
    """Yield the jobs in the order in which one worker would do them."""
    turns, left = dict(history or {}), list(waiting)
    clock = itertools.count(1_000)
    while (chosen := choose(left, [], turns)) is not None:
        job = next(one for one in left if one.id == chosen)
        left.remove(job)
        turns[job.who] = next(clock)
        yield chosen


def test_nothing_waits_and_nothing_is_chosen() -> None:
    assert choose([], ["alice"], {"alice": 1.0}) is None


def test_keys_take_turns_and_within_a_key_the_oldest_goes_first() -> None:
    many = [WaitingJob(f"a{n}", "alice", n) for n in range(4)]
    few = [WaitingJob(f"b{n}", "bob", 100 + n) for n in range(2)]
    assert list(served([*reversed(many), *few])) == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_whoever_had_a_turn_before_waits_for_the_other() -> None:
    waiting = [WaitingJob("a", "alice", 1.0), WaitingJob("b", "bob", 2.0)]
    assert list(served(waiting, {"alice": 50.0, "bob": 40.0})) == ["b", "a"]


def test_a_key_with_a_job_in_training_lets_others_go_first() -> None:
    waiting = [WaitingJob("a", "alice", 1.0), WaitingJob("b", "bob", 2.0)]
    assert choose(waiting, ["alice"], {"bob": 99.0}) == "b"
    assert choose(waiting, ["alice", "bob"], {"bob": 99.0}) == "a"


def test_of_jobs_made_in_one_second_the_choice_is_always_the_same() -> None:
    waiting = [WaitingJob(name, "alice", 1.0) for name in ("x", "c", "m")]
    assert {choose(order, [], {}) for order in itertools.permutations(waiting)} == {"c"}
