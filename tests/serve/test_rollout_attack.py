"""One key that makes up sessions and rates them by arm decides nothing: a real router, a real controller.

Each attack is also played where shares are 1, which is how it was before there were any: there it succeeds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import DEFAULT_GROUP, Group, Scope
from serve.rollout.display.status import read_status
from serve.rollout.documents import RolloutStatus
from serve.rollout.policy import (
    ErrorMetric,
    EvidenceShares,
    FeedbackMetric,
    Policy,
    PolicyMetrics,
    Promotion,
    RampStep,
    Shadow,
)
from serve.rollout.recording.sources import RATINGS_ALLOWANCE, UNITS_ALLOWANCE
from tests.fakes.served import Served, make_root, publish, serve, wait_until

HALF, WHOLE = EvidenceShares(), EvidenceShares(group_share=1, key_share=1)
ROUNDS = 90
MADE_UP = 3
"""Sessions that the attacker makes up for each one of the users."""

OVER = {"rolled_back", "promoted", "closed"}


def policy(shares: EvidenceShares) -> Policy:
    """Return a policy that promotes after 80 canary units in which no harm was found."""
    return Policy(
        steps=(RampStep(weight=5_000, min_units=80, min_seconds=0),),
        metrics=PolicyMetrics(
            errors=ErrorMetric(), feedback=FeedbackMetric(alpha=0.05), latency=None, format=None
        ),
        promotion=Promotion(no_harm_units=80),
        evidence=shares,
    )


@dataclass(slots=True)
class Sender:
    """Somebody with a key: asks in sessions of its own, and rates what answered by its arm."""

    served: Served
    token: str
    name: str
    scores: dict[str, float]
    sent: int = 0
    counted: list[str] = field(default_factory=list)

    def ask(self) -> None:
        """Begin a session, and rate the answer."""
        self.sent += 1
        head = {"authorization": f"Bearer {self.token}"}
        answer = self.served.client.post(
            "/v1/chat/completions",
            json={"model": "support", "messages": [{"role": "user", "content": "Hello"}]},
            headers={**head, "x-session-id": f"{self.name}-{self.sent}"},
        )
        assert answer.status_code == 200, answer.text
        score = self.scores[answer.headers["x-wardrobe-arm"]]
        body = {"response_id": answer.json()["id"], "score": score}
        receipt = self.served.client.post("/v1/feedback", json=body, headers=head).json()
        if receipt["counted"]:
            self.counted.append(answer.headers["x-wardrobe-arm"])


@dataclass(slots=True)
class Play:
    """A server with a user and an attacker: in groups of their own, or two keys of one group."""

    served: Served
    user: Sender
    attacker: Sender

    def run(self, *, attack: int = MADE_UP) -> RolloutStatus:
        """Let both send until the rollout is over, and return how it stands."""
        for _ in range(ROUNDS):
            if self.user.scores:
                self.user.ask()
            for _ in range(attack):
                self.attacker.ask()
            if self.status().state in OVER:
                break
        time.sleep(0.3)  # some looks at all of it
        return self.status()

    def status(self) -> RolloutStatus:
        """Return how the rollout stands."""
        return read_status(self.served.registry, "support", time.time())


@pytest.fixture(params=["groups", "keys"])
def groups(request: pytest.FixtureRequest) -> bool:
    """Return whether user and attacker have groups of their own."""
    return bool(request.param == "groups")


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: bool) -> Iterator[Play]:
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 0.05)
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    names = ["users", "rivals"] if groups else [DEFAULT_GROUP, DEFAULT_GROUP]
    for name in names if groups else []:
        GroupStore(registry.root).create(Group(name), who="tester")
    tokens = [KeyStore(registry.root).create([Scope.INFER], who="t", group=name)[1] for name in names]
    with serve(registry, tmp_path) as served:
        yield Play(served, Sender(served, tokens[0], "u", {}), Sender(served, tokens[1], "a", {}))


def begin(play: Play, shares: EvidenceShares, *, users: dict[str, float], attack: dict[str, float]) -> None:
    """Open a rollout; what users and attacker give each arm is told."""
    now = time.time()
    play.user.scores, play.attacker.scores = users, attack
    play.served.open_rollout(policy(shares), weight=5_000, at=now, began=now, state_since=now, step_since=now)


def share(status: RolloutStatus, play: Play) -> tuple[float, float]:
    """Return the attacker's shares of units and ratings, less what is allowed to everybody."""
    key = play.attacker.token.split("_")[1]
    mine = [one for one in status.sources if one.key == key]
    units, ratings = sum(one.units for one in status.sources), sum(one.ratings for one in status.sources)
    return (
        (mine[0].units - UNITS_ALLOWANCE / 2) / units,
        (mine[0].ratings - RATINGS_ALLOWANCE / 2) / ratings,
    )


GOOD = {"stable": 1.0, "canary": 1.0}
BAD = {"stable": 1.0, "canary": 0.0}
AGAINST = {"stable": 1.0, "canary": 0.0}
FOR = {"stable": 0.0, "canary": 1.0}


def test_a_good_canary_is_not_taken_back_by_one_who_rates_it_down(play: Play) -> None:
    begin(play, HALF, users=GOOD, attack=AGAINST)
    status = play.run()
    assert status.state in {"hold", "promoted"}
    assert max(share(status, play)) <= 0.5
    if status.state == "hold":
        assert status.reason == "disputed"
        assert "alone raises this alarm" in status.sentence


def test_a_bad_canary_is_not_promoted_by_one_who_rates_it_up(play: Play) -> None:
    begin(play, HALF, users=BAD, attack=FOR)
    status = play.run()
    assert status.state in {"hold", "rolled_back"}
    assert max(share(status, play)) <= 0.5
    if status.state == "hold":
        assert status.reason == "disputed"
        assert "alone hides an alarm" in status.sentence


def test_a_bad_canary_that_nobody_helps_is_taken_back(play: Play) -> None:
    begin(play, HALF, users=BAD, attack=BAD)
    assert play.run(attack=1).state == "rolled_back"


def test_before_there_were_shares_one_key_took_a_good_canary_back(play: Play) -> None:
    begin(play, WHOLE, users=GOOD, attack=AGAINST)
    assert play.run().state == "rolled_back"


def test_before_there_were_shares_one_key_had_a_bad_canary_promoted(play: Play) -> None:
    begin(play, WHOLE, users=BAD, attack=FOR)
    assert play.run().state == "promoted"


@pytest.mark.parametrize("groups", ["groups"], indirect=True)
def test_alone_on_an_idle_server_one_group_of_two_decides_nothing(play: Play) -> None:
    begin(play, HALF, users={}, attack=FOR)
    status = play.run(attack=2)
    assert (status.state, status.sources[0].units) == ("ramping", UNITS_ALLOWANCE)
    assert len(play.attacker.counted) == RATINGS_ALLOWANCE
    assert any("left out" in sentence for sentence in status.missing)


def test_pairs_of_the_shadow_are_of_units_that_count(play: Play) -> None:
    play.user.scores = play.attacker.scores = {"stable": 1.0}
    plan = policy(HALF).model_copy(update={"shadow": Shadow(share=10_000, pairs=10_000, concurrency=100)})
    now = time.time()
    recorder = play.served.open_rollout(
        plan, state="shadow", step=-1, weight=0, shadow=10_000, at=now, state_since=now
    )
    for _ in range(4):
        play.user.ask()
    for _ in range(40):
        play.attacker.ask()
    taken = 4 + 4 + UNITS_ALLOWANCE
    wait_until(lambda: sum(recorder.segment.pairs.model_dump().values()) >= taken, "all copies are compared")
    time.sleep(0.1)
    assert sum(recorder.segment.pairs.model_dump().values()) == taken
