"""Swapping and rolling back under load: no failed request, and no answer from a wrong version."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.live import Live, wardrobe, wardrobe_json
from tests.e2e.asking import ALPHA, BRAVO, Answer, ask

MARKER_OF_VERSION = {"swap@1": ALPHA, "swap@2": BRAVO}


@dataclass
class Load:
    """Eight clients that stream without pause until told to stop."""

    live: Live
    model: str
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[float, Answer]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def _client(self) -> None:
        client = self.live.client()
        while not self.stop.is_set():
            started = time.time()
            try:
                self.answers.append((started, ask(client, self.model, max_tokens=24)))
            except Exception as error:  # noqa: BLE001 - every failure is counted
                self.failures.append(error)

    def run(self, scenario: Sequence[tuple[str, ...]], *, pause_seconds: float) -> list[float]:
        """Run the commands one after the other under load; return when each had been acknowledged."""
        threads = [threading.Thread(target=self._client) for _ in range(8)]
        for thread in threads:
            thread.start()
        acknowledged = []
        for command in scenario:
            time.sleep(pause_seconds)
            wardrobe(self.live.root, *command)
            acknowledged.append(time.time())
        time.sleep(pause_seconds)
        self.stop.set()
        for thread in threads:
            thread.join(120)
        return acknowledged


def test_swaps_under_load_lose_nothing_and_take_effect_within_a_second(
    live: Live, markers: dict[str, Path]
) -> None:
    wardrobe(live.root, "register", "swap", markers["alpha"])
    wardrobe(live.root, "register", "swap", markers["bravo"])
    load = Load(live, "swap")
    scenario = [("promote", "swap@2"), ("rollback", "swap"), ("promote", "swap@2")]
    moved = load.run(scenario, pause_seconds=4)
    assert load.failures == []
    assert len(load.answers) > 40
    # The text itself tells which weights answered; the name in the answer must agree with it.
    assert {(a.model, a.marker) for _, a in load.answers} == set(MARKER_OF_VERSION.items())
    expected = [("swap@1", 0.0, moved[0]), ("swap@2", moved[0], moved[1]), ("swap@1", moved[1], moved[2])]
    for name, begin, end in [*expected, ("swap@2", moved[2], time.time())]:
        # The commands themselves take about a second, in which the alias moves; that second is left out.
        inside = {a.model for started, a in load.answers if begin + 1 < started < end - 3}
        assert inside <= {name}
    for began in moved:
        assert any(started > began + 1 for started, _ in load.answers)


def test_an_adapter_uploaded_over_http_answers_at_once(live: Live, markers: dict[str, Path]) -> None:
    created = wardrobe_json(live.root, "--url", live.url, "register", "uploaded", markers["bravo"])
    assert (created["adapter"], created["version"]) == ("uploaded", 1)
    assert ask(live.client(), "uploaded").marker == BRAVO
    again = wardrobe_json(live.root, "--url", live.url, "register", "uploaded", markers["bravo"])
    assert (again["version"], again["created"]) == (1, False)


def test_an_alias_of_the_users_own_is_served_and_follows_its_moves(
    live: Live, markers: dict[str, Path]
) -> None:
    wardrobe(live.root, "register", "aliased", markers["alpha"])
    wardrobe(live.root, "register", "aliased", markers["bravo"])
    wardrobe(live.root, "alias", "set", "aliased", "night", "2")
    time.sleep(1)
    assert ask(live.client(), "aliased@night").marker == BRAVO
    assert ask(live.client(), "aliased").marker == ALPHA
    wardrobe(live.root, "--url", live.url, "alias", "set", "aliased", "night", "1")
    assert ask(live.client(), "aliased@night").marker == ALPHA


def test_the_history_tells_every_move_of_stable(live: Live) -> None:
    moves = [entry for entry in wardrobe_json(live.root, "history", "swap") if entry["alias"] == "stable"]
    assert [entry["version"] for entry in moves] == [1, 2, 1, 2]
