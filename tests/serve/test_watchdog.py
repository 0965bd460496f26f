"""A router whose engine hangs: told at once, given up, and nobody left waiting. Real router, fake engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.background import Background
from serve.process_group import TICKS_PER_SECOND, Activity
from serve.settings import EngineSettings
from serve.watchdog.watch import WORKERS_SECONDS, EngineWatch
from tests.fakes.engine import FakeEngine
from tests.fakes.served import Served, make_root, publish, serve, wait_until

HANG = EngineSettings(hang_seconds=0.3)
IDLE = Activity({7: 100})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    with serve(registry, tmp_path, engine=still_engine(), engine_settings=HANG) as running:
        yield running


def still_engine() -> FakeEngine:
    """An engine whose processes compute nothing."""
    engine = FakeEngine(base_name="tiny")
    engine.doing = IDLE
    return engine


def test_a_hung_engine_makes_the_replica_not_ready_and_says_why(served: Served) -> None:
    assert served.client.get("/readyz").status_code == 200
    served.engine.frozen = True
    wait_until(lambda: served.client.get("/readyz").status_code == 503, "not ready")
    assert served.client.get("/readyz").json() == {
        "status": "not ready",
        "reasons": ["the engine hangs: it has not answered for 0.3 s and computes nothing"],
    }
    assert served.client.get("/livez").status_code == 200
    assert served.engine.given_up == "it has not answered for 0.3 s and computes nothing"


def test_a_hung_engine_is_seen_in_the_metrics(served: Served) -> None:
    assert served.metric("wardrobe_engine_hung", replica="r1") == 0
    assert served.metric("wardrobe_engine_hangs_total", replica="r1") == 0
    served.engine.frozen = True
    wait_until(lambda: served.metric("wardrobe_engine_pulse_age_seconds", replica="r1") > 0.1, "an age")
    wait_until(lambda: served.metric("wardrobe_engine_hung", replica="r1") == 1, "it hangs")
    wait_until(lambda: served.metric("wardrobe_engine_up", replica="r1") == 0, "it is given up")
    assert served.metric("wardrobe_engine_ready", replica="r1") == 0


def test_new_requests_of_a_hung_engine_are_told_to_come_back(served: Served) -> None:
    served.engine.frozen = True
    wait_until(lambda: not served.engine.alive(), "it is given up")
    answer = served.chat()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "engine_dead"
    assert "hangs" in answer.json()["error"]["message"]


def ask_in_background(
    served: Served, model: str = "support", **fields: object
) -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(served.chat(model, **fields)))
    thread.start()
    return thread, answers


def end(served: Served, thread: threading.Thread) -> None:
    """End the server as the handover does."""
    served.server.config.timeout_graceful_shutdown = 0.1  # type: ignore[assignment]
    served.server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_a_stream_of_a_hung_engine_ends_with_an_error_and_not_in_silence(served: Served) -> None:
    thread, answers = ask_in_background(served, play="slow", stream=True)
    wait_until(lambda: served.inner.running, "it runs")
    served.engine.frozen = True
    wait_until(lambda: not served.engine.alive(), "it is given up")
    end(served, thread)
    assert answers[0].status_code == 200
    last = answers[0].text.strip().splitlines()[-1]
    assert "hangs: it has not answered" in last
    assert '"code":"engine_dead"' in last


def test_a_request_of_a_hung_engine_that_has_no_answer_yet_gets_a_503(served: Served) -> None:
    thread, answers = ask_in_background(served, play="hang")
    wait_until(lambda: served.inner.running, "it runs")
    served.engine.frozen = True
    wait_until(lambda: not served.engine.alive(), "it is given up")
    end(served, thread)
    assert answers[0].status_code == 503
    assert int(answers[0].headers["retry-after"]) > 0


def test_a_request_that_waits_for_a_load_as_the_engine_ends_gets_a_503(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1, no_stable=True)
    with serve(registry, tmp_path, engine=still_engine(), engine_settings=HANG) as served:
        served.engine.load_seconds = 60
        thread, answers = ask_in_background(served, "support@1")
        wait_until(lambda: ("load", "support@1") in served.engine.calls, "it loads")
        served.engine.give_up("a test says so")
        end(served, thread)
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "engine_dead"


def test_what_was_in_use_as_the_hang_began_is_booked_as_at_a_death(served: Served) -> None:
    served.publish("other", 2)
    wait_until(lambda: "other@1" in served.runtime.resident(), "it is loaded")
    thread, _ = ask_in_background(served, play="slow", stream=True)
    wait_until(lambda: served.inner.running, "it runs")
    served.engine.frozen = True
    wait_until(lambda: not served.engine.alive(), "it is given up")
    deaths = served.registry.engine_deaths
    wait_until(lambda: deaths("support@1", since=0), "a record of it")
    assert deaths("other@1", since=0) == 0
    end(served, thread)


def test_a_hang_of_an_idle_engine_is_nobodys_fault(served: Served) -> None:
    served.engine.frozen = True
    wait_until(lambda: not served.engine.alive(), "it is given up")
    assert served.chat().status_code == 503
    controller = served.runtime._controller
    assert controller is not None
    wait_until(lambda: controller._death_recorded, "its death is booked")
    assert served.registry.engine_deaths("support@1", since=0) == 0


def test_without_a_limit_no_pulse_is_sent(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    never = EngineSettings(hang_seconds=0)
    with serve(registry, tmp_path, engine=still_engine(), engine_settings=never) as served:
        served.engine.frozen = True
        assert served.client.get("/readyz").status_code == 200
        assert served.engine.pulses == []


class Steps:
    """A watch that is looked through step by step, on a clock of its own."""

    def __init__(self, engine: FakeEngine, hang_seconds: float = 10.0) -> None:
        self.engine = engine
        self.now = 1000.0
        self.watch = EngineWatch(engine, hang_seconds, clock=lambda: self.now)

    async def look(self, times: int = 1, seconds: float = 1.0, spent: float = 0.0) -> None:
        """Look `times` times, `seconds` apart; the engine's process computes for `spent` of each second."""
        for _ in range(times):
            self.now += seconds
            if self.engine.doing is not None:
                ticks = self.engine.doing.ticks[7] + round(spent * seconds * TICKS_PER_SECOND)
                self.engine.doing = Activity({7: ticks})
            self.watch.look()
            await asyncio.sleep(0.005)


def steps(play: Callable[[Steps], Coroutine[Any, Any, None]]) -> Steps:
    """Play on a still engine; what hangs in the end is let go."""
    made = Steps(still_engine())

    async def run() -> None:
        await play(made)
        made.engine.frozen = False
        await asyncio.sleep(0.01)

    asyncio.run(run())
    return made


def test_a_frozen_engine_is_given_up_after_the_limit_and_not_before() -> None:
    async def play(made: Steps) -> None:
        await made.look(3)
        made.engine.frozen = True
        await made.look(10)  # the first of them sends the pulse
        assert made.engine.alive()
        await made.look(1)
        assert not made.engine.alive()

    assert steps(play).engine.given_up == "it has not answered for 10 s and computes nothing"


def test_a_long_step_that_computes_is_left_alone() -> None:
    async def play(made: Steps) -> None:
        made.engine.frozen = True
        await made.look(90, spent=0.5)
        made.engine.frozen = False
        await made.look(2)

    made = steps(play)
    assert made.engine.alive()
    assert made.watch.age == 0


def test_a_machine_that_was_suspended_has_missed_two_looks_at_most() -> None:
    async def play(made: Steps) -> None:
        made.engine.frozen = True
        await made.look(3)
        await made.look(1, seconds=3600)
        made.engine.frozen = False
        await made.look(2)

    assert steps(play).engine.alive()


def test_workers_are_asked_once_a_minute_because_that_costs_them_a_second() -> None:
    async def play(made: Steps) -> None:
        await made.look(int(3 * WORKERS_SECONDS))

    pulses = steps(play).engine.pulses
    assert len(pulses) == 3 * WORKERS_SECONDS
    assert sum(pulses) == 3


def test_requests_that_wait_while_nothing_is_made_of_any_are_answered_by_a_probe() -> None:
    """A grammar that takes minutes to compile keeps only its own request waiting."""

    async def play(made: Steps) -> None:
        made.engine.unfinished = 1
        await made.look(300)

    made = steps(play)
    assert made.engine.alive()


def test_requests_that_wait_with_the_probe_are_a_hang() -> None:
    async def play(made: Steps) -> None:
        made.engine.unfinished = 1

        async def answer(*, workers: bool) -> None:
            """The scheduler turns, so pulses come back; nothing is scheduled."""

        made.engine.pulse = answer  # type: ignore[method-assign]
        made.engine.frozen = True
        await made.look(12)

    assert steps(play).engine.given_up.startswith("it has made nothing of its requests for 10 s")


def test_a_pulse_that_fails_is_an_answer() -> None:
    async def play(made: Steps) -> None:
        async def fail(*, workers: bool) -> None:
            raise RuntimeError("Call to list_loras method failed")

        made.engine.pulse = fail  # type: ignore[method-assign]
        await made.look(30)

    assert steps(play).engine.alive()


def test_a_look_that_fails_does_not_end_the_watch() -> None:
    engine = still_engine()
    watch = EngineWatch(engine, 0.2, in_use=lambda: 1 // 0 * ("",))

    async def run() -> None:
        background = Background()
        watching = background.loop(background.work("engine", watch.look, watch.look_seconds))
        await asyncio.sleep(0.1)
        assert background.problems() == {"engine": "ZeroDivisionError: integer division or modulo by zero"}
        watch.in_use = tuple
        engine.frozen = True
        async with asyncio.timeout(10):
            while engine.alive():  # noqa: ASYNC110 - a stand-in that does not tell
                await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(run())
    assert not engine.alive()
