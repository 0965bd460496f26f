from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from registry import Watcher
from registry.errors import Conflict, CorruptStore, InvalidName, NotFound, Quarantined, StorageFailed
from registry.names import parse_model
from registry.records import RolloutEntry
from registry.storage import files
from registry.store import Registry
from tests.fakes.rollout_log import ROLLOUT, first_entry, go, start
from tests.fakes.store import publish, put

OTHER = "ffeeddccbbaa9988"


@pytest.fixture
def three(registry: Registry) -> Registry:
    """A store with the versions 1, 2 and 3 of `support`; 1, then 2 were made stable."""
    for seed in (1, 2, 3):
        put(registry, seed=seed)
    registry.promote("support", 2, who="tester")
    return registry


def resolved(registry: Registry, name: str) -> int:
    return registry.resolve(parse_model(name)).number


def stables(registry: Registry) -> list[tuple[int | None, str, int | None]]:
    log = registry.catalogue.aliases.log("support", "stable")
    return [(move.version, move.why, move.restores) for move in log]


def test_an_entry_reads_back_as_it_was_written(three: Registry) -> None:
    assert three.rollout("support") is None
    assert three.rollout_log("support") == []
    entry = replace(first_entry(three, 3), policy={"name": "fast", "steps": [1]}, facts={"n": 1}, forced=True)
    assert three.append_rollout("support", lambda _: entry) == entry
    assert three.rollout("support") == entry
    assert three.rollout_log("support") == [entry]


def test_whoever_is_slower_decides_again(three: Registry) -> None:
    start(three, 3)
    seen: list[int] = []

    def decide(last: RolloutEntry | None) -> RolloutEntry:
        assert last is not None
        if not seen:
            go(three, "ramping", 500)
        seen.append(last.seq)
        return replace(last, seq=last.seq + 1, sentence="mine")

    made = three.append_rollout("support", decide)
    assert seen == [1, 2]
    assert made is not None
    assert (made.seq, made.weight, made.sentence) == (3, 500, "mine")
    assert [entry.seq for entry in three.rollout_log("support")] == [1, 2, 3]


def test_nothing_decided_is_nothing_written(three: Registry) -> None:
    assert three.append_rollout("support", lambda _: None) is None
    assert not (three.root / "rollouts").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight", "half"),
        ("weight", 10_001),
        ("base_weight", -1),
        ("forced", 1),
        ("state", "resting"),
        ("rollout", "../evil"),
        ("policy", []),
        ("at", None),
        ("seq", 7),
        ("adapter", "another"),
    ],
)
def test_an_entry_that_was_edited_is_named_with_its_field(field: str, value: object, three: Registry) -> None:
    start(three, 3)
    path = three.root / "rollouts/support/1.json"
    path.chmod(0o644)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(
        CorruptStore, match=rf"rollouts/support/1\.json: .*{'' if field in 'seq adapter' else field}"
    ):
        three.rollout("support")


def test_unknown_fields_of_a_newer_version_are_ignored(three: Registry) -> None:
    start(three, 3)
    path = three.root / "rollouts/support/1.json"
    path.chmod(0o644)
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "good"}))
    assert three.rollout("support") == first_entry(three, 3)


def test_a_gap_in_the_log_is_named(three: Registry) -> None:
    start(three, 3)
    go(three, "ramping", 500)
    (three.root / "rollouts/support/1.json").unlink()
    with pytest.raises(CorruptStore, match=r"rollouts/support/1\.json: is missing"):
        three.rollout_log("support")


def test_an_adapter_has_one_open_rollout(three: Registry) -> None:
    start(three, 3)
    with pytest.raises(Conflict, match=rf"support@1: rollout {ROLLOUT} of support@3 is open \(preloading\)"):
        start(three, 1, rollout=OTHER)
    go(three, "rolled_back")
    start(three, 1, rollout=OTHER)
    assert [entry.rollout for entry in three.rollout_log("support")] == [ROLLOUT, ROLLOUT, OTHER]


@pytest.mark.parametrize("end", ["rolled_back", "closed"])
def test_a_rollout_that_has_ended_goes_nowhere(end: str, three: Registry) -> None:
    start(three, 3)
    go(three, end)
    with pytest.raises(Conflict, match=f"has ended \\({end}\\)"):
        go(three, "ramping", 500)
    with pytest.raises(ValueError, match="cannot follow"):
        three.append_rollout("support", lambda _: first_entry(three, 3, rollout=OTHER, seq=1))


def test_a_rollout_begins_only_with_versions_that_can_be_served(three: Registry) -> None:
    with pytest.raises(NotFound, match="support@9"):
        start(three, 9)
    with pytest.raises(Conflict, match="is against support@1, but stable points to support@2"):
        start(three, 3, stable=1)
    with pytest.raises(InvalidName, match="16 hex digits"):
        start(three, 3, rollout="r1")
    three.quarantine("support", 3, "it harms", who="tester")
    with pytest.raises(Quarantined, match="it harms"):
        start(three, 3)
    assert three.rollout("support") is None


def test_while_it_is_open_names_mean_what_the_log_says(three: Registry) -> None:
    start(three, 3)
    assert (resolved(three, "support"), resolved(three, "support@stable")) == (2, 2)
    assert resolved(three, "support@canary") == 3
    go(three, "promoted", 10_000)
    assert (resolved(three, "support"), resolved(three, "support@stable")) == (3, 3)
    assert resolved(three, "support@canary") == 3
    go(three, "closed")
    assert resolved(three, "support") == 3
    with pytest.raises(NotFound, match="no rollout is open"):
        resolved(three, "support@canary")


def test_a_view_holds_the_entry_of_an_open_rollout_only(three: Registry) -> None:
    start(three, 3)
    assert three.adapter_view("support").rollout == three.rollout("support")
    go(three, "rolled_back")
    assert three.adapter_view("support").rollout is None


def test_a_quarantined_canary_is_refused_by_name_and_stable_is_not(three: Registry) -> None:
    start(three, 3)
    three.quarantine("support", 3, "it harms", who="tester")
    with pytest.raises(Quarantined, match="it harms"):
        resolved(three, "support@canary")
    assert resolved(three, "support") == 2


def test_against_the_base_model_a_bare_name_is_nobody_until_the_promotion(registry: Registry) -> None:
    put(registry, seed=1, no_stable=True)
    start(registry, 1)
    assert registry.aliases("support") == {}
    with pytest.raises(NotFound, match="has no stable version"):
        resolved(registry, "support")
    assert resolved(registry, "support@canary") == 1
    go(registry, "promoted", 10_000)
    assert resolved(registry, "support") == 1
    go(registry, "rolled_back")
    assert stables(registry) == [
        (1, f"rollout {ROLLOUT}#2", None),
        (None, f"rollout {ROLLOUT}#3", 0),
    ]
    with pytest.raises(NotFound, match="has no stable version"):
        resolved(registry, "support")
    with pytest.raises(Conflict, match="no earlier version"):
        registry.rollback("support", who="tester")


def test_the_move_after_a_promotion_names_the_rollout_and_is_made_once(three: Registry) -> None:
    start(three, 3)
    go(three, "promoted", 10_000)
    assert stables(three)[2:] == [(3, f"rollout {ROLLOUT}#2", None)]
    assert three.history("support")[-1].who == "anna"
    assert three.settle_rollout("support") is None
    go(three, "closed")
    assert len(stables(three)) == 3


def test_what_a_killed_process_left_owing_counts_and_is_settled_by_anybody(three: Registry) -> None:
    start(three, 3)
    last = three.rollout("support")
    assert last is not None
    promoted = replace(last, seq=2, state="promoted", weight=10_000)
    three.catalogue.rollouts.append("support", lambda _: promoted)
    assert len(stables(three)) == 2
    assert three.aliases("support") == {"stable": 3}
    move = three.settle_rollout("support")
    assert move is not None
    assert (move.version, move.why) == (3, f"rollout {ROLLOUT}#2")
    three.catalogue.rollouts.append(
        "support", lambda _: replace(promoted, seq=3, state="rolled_back", weight=0)
    )
    assert three.aliases("support") == {"stable": 2}
    assert resolved(three, "support") == 2
    assert [summary.stable for summary in three.summaries()] == [2]
    with pytest.raises(Conflict, match="alias stable points to it"):
        three.delete("support", 2, who="tester")
    assert stables(three)[2:] == [(3, f"rollout {ROLLOUT}#2", None), (2, f"rollout {ROLLOUT}#3", 2)]


def test_a_promotion_that_was_taken_back_leaves_rollback_where_it_was(three: Registry) -> None:
    start(three, 3)
    go(three, "promoted", 10_000)
    go(three, "rolled_back")
    assert three.rollback("support", who="tester").version == 1


def test_rollback_undoes_a_promotion_by_rollout_like_any_other(three: Registry) -> None:
    start(three, 3)
    go(three, "promoted", 10_000)
    go(three, "closed")
    assert three.rollback("support", who="tester").version == 2
    assert three.rollback("support", who="tester").version == 1
    assert three.settle_rollout("support") is None
    assert resolved(three, "support") == 1


def test_a_suspended_promotion_serves_stable_and_moves_nothing(three: Registry) -> None:
    start(three, 3)
    go(three, "promoted", 10_000)
    go(three, "hold")
    assert resolved(three, "support") == 2
    go(three, "rolled_back")
    assert stables(three)[-1] == (2, f"rollout {ROLLOUT}#4", 2)


REFUSED: dict[str, Callable[[Registry], object]] = {
    "promote": lambda r: r.promote("support", 1, who="t"),
    "rollback": lambda r: r.rollback("support", who="t"),
    "alias set": lambda r: r.set_alias("support", "stable", 3, who="t"),
    "alias remove": lambda r: r.remove_alias("support", "stable", who="t"),
    "delete stable": lambda r: r.delete("support", 2, who="t"),
    "delete canary": lambda r: r.delete("support", 3, who="t"),
    "register as stable": lambda r: publish(r, seed=4, alias="stable"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_while_a_rollout_is_open_its_log_alone_decides(name: str, three: Registry) -> None:
    start(three, 3)
    go(three, "ramping", 500)
    words = rf"rollout {ROLLOUT} of support@3 against support@2 is open \(ramping\).*rollout abort support`"
    with pytest.raises(Conflict, match=words):
        REFUSED[name](three)
    assert len(stables(three)) == 2
    assert [version.number for version in three.versions("support")] == [1, 2, 3]
    go(three, "rolled_back")
    if name != "delete stable":
        REFUSED[name](three)


def test_what_is_not_the_rollouts_stays_free(three: Registry) -> None:
    start(three, 3)
    three.set_alias("support", "beta", 3, who="t")
    three.remove_alias("support", "beta", who="t")
    three.delete("support", 1, who="t")
    assert put(three, seed=4).number == 4


def test_registering_again_does_not_make_stable_what_a_rollout_took_back(registry: Registry) -> None:
    put(registry, seed=1, no_stable=True)
    start(registry, 1)
    assert publish(registry, seed=1).alias_moves == ()
    go(registry, "rolled_back")
    assert publish(registry, seed=1).alias_moves == ()
    assert registry.aliases("support") == {}


def test_a_full_disk_after_a_promotion_does_not_undo_it(three: Registry) -> None:
    start(three, 3)

    def refuse(label: str) -> None:
        if "3.json" in label:  # the third move of stable
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with files.watch_steps(refuse):
        go(three, "promoted", 10_000)
    assert len(stables(three)) == 2
    assert resolved(three, "support") == 3
    with files.watch_steps(refuse), pytest.raises(StorageFailed):
        three.settle_rollout("support")
    go(three, "promoted", 10_000)  # nothing to do, and settles
    assert stables(three)[-1][0] == 3


def test_a_watcher_sees_a_change_within_its_interval_and_no_evidence(three: Registry) -> None:
    watcher = Watcher(three, 0.02, sweep_seconds=600)
    watcher.start()
    try:
        start(three, 3)
        _until(lambda: watcher.view.adapters["support"].rollout is not None)
        assert watcher.view.resolve(parse_model("support@canary")).number == 3
        go(three, "rolled_back")
        _until(lambda: watcher.view.adapters["support"].rollout is None)
        marks = [(p.name, p.stat().st_mtime_ns) for p in (three.root / "changes").iterdir()]
        three.put_evidence(ROLLOUT, "one", b"{}")
        three.put_baseline("support", "one", b"{}")
        three.append_feedback("support", "one", b"{}\n")
        three.record_engine_death("one", 1.0, ["support@3"])
        assert [(p.name, p.stat().st_mtime_ns) for p in (three.root / "changes").iterdir()] == marks
    finally:
        watcher.stop()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_evidence_and_baselines_are_one_document_per_replica(registry: Registry) -> None:
    assert registry.evidence(ROLLOUT) == {}
    registry.put_evidence(ROLLOUT, "one", b"1")
    registry.put_evidence(ROLLOUT, "one", b"2")
    registry.put_evidence(ROLLOUT, "two.local", b"3")
    registry.put_baseline("support", "one", b"4")
    assert registry.evidence(ROLLOUT) == {"one": b"2", "two.local": b"3"}
    assert registry.evidence(OTHER) == {}
    assert registry.baselines("support") == {"one": b"4"}
    assert registry.baselines("another") == {}


@pytest.mark.parametrize("replica", ["../one", "", ".one", "a/b"])
def test_a_replica_cannot_write_elsewhere(replica: str, registry: Registry) -> None:
    for write in (
        lambda: registry.put_evidence(ROLLOUT, replica, b""),
        lambda: registry.put_baseline("support", replica, b""),
        lambda: registry.append_feedback("support", replica, b""),
        lambda: registry.record_engine_death(replica, 1.0, []),
        lambda: registry.put_evidence("../../evil", "one", b""),
        lambda: registry.put_baseline("../evil", "one", b""),
    ):
        with pytest.raises(InvalidName):
            write()


def test_feedback_is_appended_by_day_and_a_torn_line_spoils_none_but_itself(registry: Registry) -> None:
    def today() -> str:
        return time.strftime("%Y-%m-%d.jsonl", time.gmtime())

    folder, days = registry.root / "feedback/support/one", [today()]
    registry.append_feedback("support", "one", b'{"n": 1}\n{"n": 2}\n')
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes() + b'{"n": 3')
    registry.append_feedback("support", "one", b'{"n": 4}\n')
    days.append(today())  # midnight may have been in between
    written = {path.name: path.read_bytes().splitlines() for path in sorted(folder.iterdir())}
    assert written.keys() <= set(days)
    assert [line for lines in written.values() for line in lines] == [
        b'{"n": 1}',
        b'{"n": 2}',
        b'{"n": 3',
        b'{"n": 4}',
    ]


def test_an_engine_death_counts_once_however_often_it_is_told(registry: Registry) -> None:
    assert registry.engine_deaths("support@3") == 0
    assert registry.record_engine_death("one", 10.0, ["support@3", "other@1", "support@3"])
    assert not registry.record_engine_death("one", 10.0, ["support@3"])
    assert registry.record_engine_death("two", 10.0, ["support@3"])
    assert registry.record_engine_death("one", 20.0, ["other@1"])
    assert registry.engine_deaths("support@3") == 2
    assert registry.engine_deaths("other@1") == 2
    assert registry.engine_deaths("other@1", since=15.0) == 1
    assert registry.engine_deaths("support@30") == 0
