"""One damaged evidence file is left out by name, and switches no guard off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.errors import CorruptStore
from serve.rollout.decision.health import check_health
from serve.rollout.policy import policy_of
from serve.rollout.recording.baselines import freeze
from serve.rollout.recording.evidence import (
    BUCKETS,
    ArmTally,
    Exceedances,
    Rating,
    Recent,
    ReplicaEvidence,
    Segment,
    ShadowPairs,
    baseline_of,
)
from serve.rollout.recording.keeper import read_baselines, read_document, read_evidence
from serve.rollout.recording.pooling import pool
from serve.rollout.statistics.judge import judge
from serve.rollout.statistics.judgement import MetricVerdict
from tests.fakes.rollouts import ROLLOUT, make_entry, tally, unit, units
from tests.fakes.store import make_registry

ENTRY = make_entry(weight=5_000)
NUMBERS = (-1, -0.5, 0.5, 10**12, 10**13, 10**400, "@NaN", "@1e999", "@-Infinity")
WRONG: tuple[Any, ...] = (*NUMBERS, "x", None, [], {})
"""What is put in place of every value; what begins with @ is written as it stands."""


def document(replica: str, canary: ArmTally, **changes: Any) -> ReplicaEvidence:
    segment = Segment(
        seq=2, step=0, weight=5_000, began=1.0, ended=2.0, arms={"stable": tally(200), "canary": canary},
        pairs=ShadowPairs(both_ok=3),
    )  # fmt: skip
    recent = Recent(requests=100, failures=1, first_token={3: 90, BUCKETS - 1: 10}, per_token={0: 100})
    every = {"rollout": ROLLOUT, "adapter": "support", "at": 5.0, "seq": 2, "segments": [segment], **changes}
    return ReplicaEvidence(replica=replica, recent={"stable": recent, "canary": recent}, **every)


def full() -> dict[str, Any]:
    """Return a document with a value in every field."""
    times = Exceedances(count=9, over=[3, 2, 1], histogram=[9, *[0] * (BUCKETS - 1)])
    canary = tally(50, failed=[unit(5_000)], begin=5_000).model_copy(
        update={
            "first_token": times, "per_token": times, "judged": 9, "malformed": [unit(5_001)],
            "ratings": [Rating(at=1.0, unit=unit(5_002), score=0.5)], "finish": {"stop": 9},
        }
    )  # fmt: skip
    found: dict[str, Any] = document("old", canary).model_dump(mode="json")
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value; of a list the first one's."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def changed(path: tuple[Any, ...], wrong: Any) -> bytes:
    """Return the full document with one other value."""
    found = full()
    *outer, last = path
    inner = found
    for name in outer:
        inner = inner[name]
    inner[last] = wrong
    text = json.dumps(found)
    return (text.replace(json.dumps(wrong), wrong[1:]) if str(wrong).startswith("@") else text).encode()


def renamed(path: tuple[Any, ...], name: str) -> bytes:
    """Return the full document with one key of another name."""
    found = full()
    *outer, last = path
    inner = found
    for step in outer:
        inner = inner[step]
    inner[name] = inner.pop(last)
    return json.dumps(found).encode()


def assert_guarded(text: bytes) -> None:
    """Pass when a harmful canary is found out beside a document, or the document is refused by name."""
    harmful = document("r1", tally(200, failed=units(120, 1_000), begin=1_000))
    documents, said = [harmful], f"evidence/{ROLLOUT}/old.json"
    try:
        documents.append(read_document(ROLLOUT, "old", text))
    except CorruptStore as error:
        said = str(error)
    assert said.startswith(f"evidence/{ROLLOUT}/old.json")
    policy, baseline = policy_of(ENTRY), baseline_of(ENTRY)
    checks = judge(policy, pool(documents, step=0), baseline).checks
    check_health(documents, baseline, policy.health)
    if len(documents) == 1:
        assert [check.verdict for check in checks if check.metric == "errors"] == [MetricVerdict.FAIL]


@pytest.mark.parametrize("path", list(places(full())), ids=lambda path: ".".join(map(str, path)))
def test_no_value_of_a_document_breaks_the_judgement(path: tuple[Any, ...]) -> None:
    for wrong in WRONG:
        assert_guarded(changed(path, wrong))
    if isinstance(path[-1], str):
        for name in ("9999", "-1", "evil", ""):
            assert_guarded(renamed(path, name))


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("recent", "canary", "first_token"), {"9999": 100}),
        (("recent", "canary", "first_token"), {"-1": 100}),
        (("recent", "canary", "failures"), 101),
        (("recent", "evil"), {}),
        (("segments", 0, "weight"), 10_001),
        (("segments", 0, "arms", "evil"), {}),
        (("segments", 0, "arms", "canary", "units"), 10**30),
        (("segments", 0, "arms", "canary", "sketch"), ["é"] * 50),
        (("segments", 0, "arms", "canary", "failed"), units(60)),
        (("segments", 0, "arms", "canary", "malformed"), units(10)),
        (("segments", 0, "arms", "canary", "first_token", "over"), [10]),
        (("segments", 0, "arms", "canary", "first_token", "over"), [1] * 4),
        (("segments", 0, "arms", "canary", "first_token", "histogram"), [1]),
        (("segments", 0, "arms", "canary", "ratings", 0, "score"), 1.5),
        (("segments", 0, "arms", "canary", "ratings", 0, "score"), "@1e999"),
        (("format",), 2),
        (("rollout",), "f" * 16),
        (("replica",), "r1"),
    ],
)
def test_what_cannot_have_been_counted_is_left_out(path: tuple[Any, ...], wrong: Any) -> None:
    with pytest.raises(CorruptStore, match="left out of all decisions"):
        read_document(ROLLOUT, "old", changed(path, wrong))


def test_a_whole_document_is_taken_as_it_was_written() -> None:
    assert read_document(ROLLOUT, "old", json.dumps(full()).encode()).model_dump(mode="json") == full()


def test_a_damaged_file_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    whole = document("r1", tally(5))
    registry.put_evidence(ROLLOUT, "r1", whole.model_dump_json().encode())
    registry.put_evidence(ROLLOUT, "old", changed(("recent", "canary", "first_token"), {"9999": 100}))
    registry.put_evidence(ROLLOUT, "copy", whole.model_dump_json().encode())
    noted: list[BaseException] = []
    assert read_evidence(registry, ROLLOUT, noted.append) == [whole]
    told = sorted(str(error) for error in noted)
    assert told[0].startswith(f"evidence/{ROLLOUT}/copy.json: says replica 'r1', which is another's")
    assert told[1].startswith(f"evidence/{ROLLOUT}/old.json: cannot be read: recent.canary.first_token.9999")


def test_a_damaged_baseline_is_left_out(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    good = {"at": 5.0, "requests": 10, "failures": 1}
    for replica, more in (("r1", {}), ("r2", {"failures": -5}), ("r3", {"failures": 11}), ("r4", {"at": -1}),
                          ("r5", {"first_token": [-1] * BUCKETS}), ("r6", {"per_token": [1]})):  # fmt: skip
        registry.put_baseline("support", replica, json.dumps({**good, **more}).encode())
    found = read_baselines(registry, "support", 6.0, 60.0)
    assert freeze(found).requests == 10
