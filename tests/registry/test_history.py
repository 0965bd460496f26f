from __future__ import annotations

from registry.store import Registry
from tests.fakes.rollout_log import ROLLOUT, go, start
from tests.fakes.store import put


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_every_change_is_in_the_audit_in_order_with_who_did_it(registry: Registry) -> None:
    clock = Clock()
    timed = Registry(registry.catalogue.root, clock=clock)
    put(timed, seed=1, note="first", lineage={"seed": 1})
    put(timed, seed=2, alias="stable")
    timed.rollback("support", who="anna")
    timed.quarantine("support", 2, "it harms", who="ben")
    timed.delete("support", 2, who="carl")
    timed.gc(apply=True)
    found = [(entry.who, entry.action, entry.subject, entry.detail) for entry in timed.audit()]
    digests = [entry[3].split()[0] for entry in found if entry[1] == "publish"]
    assert found == [
        ("tester", "publish", "support@1", f"{digests[0]} first"),
        ("tester", "attest", "support@1", "lineage"),
        ("tester", "alias", "support@stable", "support@1 (register)"),
        ("tester", "publish", "support@2", digests[1]),
        ("tester", "alias", "support@stable", "support@2 (register)"),
        ("anna", "rollback", "support@stable", "support@1 (rollback)"),
        ("ben", "quarantine", "support@2", "it harms"),
        ("carl", "delete", "support@2", digests[1]),
    ]
    assert [entry.action for entry in timed.audit(since=1007)] == ["quarantine", "delete"]


def test_the_history_keeps_the_order_of_a_log_although_clocks_disagree(registry: Registry) -> None:
    clock = Clock()
    timed = Registry(registry.catalogue.root, clock=clock)
    for seed in (1, 2, 3):
        put(timed, seed=seed, alias="stable")
        clock.now -= 500
    assert [(move.seq, move.version) for move in timed.history("support")] == [(1, 1), (2, 2), (3, 3)]
    assert timed.rollback("support", who="tester").version == 2


def test_a_rollout_is_in_the_audit_with_who_when_and_why(registry: Registry) -> None:
    for seed in (1, 2):
        put(registry, seed=seed)
    start(registry, 2)
    go(registry, "promoted", 10_000)
    found = [entry for entry in registry.audit() if entry.action == "rollout"]
    assert [(entry.at, entry.who, entry.subject) for entry in found] == [
        (1_000.0, "anna", "support@2"),
        (2_000.0, "anna", "support@2"),
    ]
    assert [entry.detail for entry in found] == [
        f"start: preloading at 0% (start: begins; {ROLLOUT}#1)",
        f"promoted: promoted at 100% (promoted: begins; {ROLLOUT}#2)",
    ]
    moved = registry.history("support")[-1]
    assert (moved.version, moved.why) == (2, f"rollout {ROLLOUT}#2")
