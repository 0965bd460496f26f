"""The engines' comparison: what is asked, what counts as failed, how a swap is seen, and the figures."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from loadtests.adapters import write_adapter
from loadtests.bench.peers.engines.__main__ import EnginePlan
from loadtests.bench.peers.engines.arms import Bare, Ours, Refused, Staged
from loadtests.bench.peers.engines.asking import BROKEN, BenchQuestion, BenchRun, Reply, Steady, ask, crowd
from loadtests.bench.peers.engines.ledger import (
    LedgerRow,
    SampleLedger,
    Statistic,
    figures,
    ratio,
    side_by_side,
)
from loadtests.bench.peers.engines.recovery import back_after_kill, until_idle
from loadtests.bench.peers.engines.reuse import distance
from loadtests.bench.peers.engines.spread import (
    AdapterMix,
    add_crowding,
    add_run,
    crowded_cells,
    resident_cells,
    version_tails,
)
from loadtests.bench.peers.engines.start import (
    BenchServer,
    Sizes,
    bare_command,
    bare_environment,
    tuned_environment,
)
from loadtests.bench.peers.engines.swap import add_delays, cold_requests, swap_once
from loadtests.bench.peers.engines.usage import ResourceUsage, busy
from registry import Registry
from registry.foreign import python
from serve.engine.environment import engine_environment
from serve.settings import ServeSettings
from tests.fakes.base import SMOLLM2, base_record, make_base
from tests.fakes.http_server import served
from tests.fakes.llm_server import llm_server

T = TypeVar("T")


def text(word: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"' + word.encode() + b'"}}]}\n'


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n'


def test_a_reply_counts_the_servers_tokens_and_only_pieces_with_text() -> None:
    reply = Reply("m", 10.0, ended=12.5, status=200)
    for now, line in ((10.1, text("")), (11.0, text("a")), (12.0, text("bc")), (12.4, USAGE), (12.5, b"\n")):
        reply.read(line, now)
    assert (reply.ok, reply.tokens, reply.arrivals) == (True, 4, [11.0, 12.0])
    assert reply.first_token_seconds == 1.0
    assert reply.token_seconds == 0.5
    assert reply.gaps(11.5, 11.6) == [1.0]


def test_an_error_event_and_a_stream_without_its_end_are_failures() -> None:
    broken = Reply("m", 0.0, status=200)
    broken.read(b'data: {"error":{"message":"died","code":500}}\n', 1.0)
    cut = Reply("m", 0.0, status=200)
    cut.read(text("a"), 1.0)
    whole = Reply("m", 0.0, status=200, tokens=4)
    run = BenchRun([broken, cut, whole], 2.0)
    assert (broken.ok, cut.ok, run.failed, run.tokens_per_second) == (False, False, 2, 2.0)


def test_every_failed_request_of_a_crowd_is_kept_beside_the_answers() -> None:
    asked = [
        BenchQuestion(f"{kind}-{index}", "Hello you", 4)
        for index in range(3)
        for kind in ("fast", "busy", "event")
    ]
    with llm_server(*(one.model for one in asked)) as (url, server):
        run = with_session(lambda session: crowd(session, url, asked, streams=4))
        gone = with_session(
            lambda session: ask(session, "http://127.0.0.1:9", BenchQuestion("fast-0", "x", 1))
        )
    assert len(run.replies) == len(server.seen) == 9
    assert [reply.model.partition("-")[0] for reply in run.answered] == ["fast"] * 3
    assert sorted(reply.status for reply in run.replies if not reply.ok) == [500] * 3 + [503] * 3
    assert all(reply.version == f"{reply.model}@1" and reply.tokens == 4 for reply in run.answered)
    assert gone.status == BROKEN


def test_a_question_is_greedy_exact_in_length_and_streamed_on_either_route() -> None:
    chat, plain = BenchQuestion("m", "Hi", 7), BenchQuestion("m", "Hi", 7, chat=False)
    assert (chat.path, plain.path) == ("/v1/chat/completions", "/v1/completions")
    assert chat.body()["messages"] == [{"role": "user", "content": "Hi"}]
    assert plain.body()["prompt"] == "Hi"
    for body in (chat.body(), plain.body()):
        assert (body["max_tokens"], body["ignore_eos"], body["temperature"]) == (7, True, 0)


@dataclass
class RuntimeLoading:
    """vLLM's own routes: names that are loaded, and completions of those alone."""

    loaded: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    load_seconds: float = 0.0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/load_lora_adapter", self.load, methods=["POST"]),
                Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
            ]
        )

    async def load(self, request: Request) -> Response:
        body = await request.json()
        self.calls.append("replace" if body.get("load_inplace") else "load")
        if body["lora_name"] in self.loaded and not body.get("load_inplace"):
            return JSONResponse({"error": {"message": "already loaded"}}, 400)
        await asyncio.sleep(self.load_seconds)
        self.loaded[body["lora_name"]] = body["lora_path"]
        return PlainTextResponse("Success")

    async def unload(self, request: Request) -> Response:
        self.calls.append("unload")
        if self.loaded.pop((await request.json())["lora_name"], None) is None:
            return JSONResponse({"error": {"message": "not loaded"}}, 404)
        return PlainTextResponse("Success")

    async def complete(self, request: Request) -> Response:
        if (await request.json())["model"] not in self.loaded:
            return JSONResponse({"error": {"message": "does not exist"}}, 404)

        async def stream() -> AsyncIterator[bytes]:
            yield b'data: {"choices":[{"text":"a"}]}\n\n'
            yield b'data: {"choices":[],"usage":{"completion_tokens":1}}\n\ndata: [DONE]\n\n'

        return StreamingResponse(stream(), media_type="text/event-stream")


@pytest.mark.parametrize(
    ("in_place", "calls"), [(False, ["load", "unload", "load"]), (True, ["load", "replace"])]
)
def test_a_bare_swap_fails_its_clients_between_unload_and_load_only(in_place: bool, calls: list[str]) -> None:
    server = RuntimeLoading()

    async def swap(session: aiohttp.ClientSession, url: str) -> tuple[float, list[Reply]]:
        arm = Bare(url, "base", session, 1, in_place=in_place)
        await arm.publish("name", Path("/old"))
        server.load_seconds = 0.3
        async with Steady(session, url, BenchQuestion("name", "x", 1, chat=False), 0.02) as steady:
            seconds = await swap_once(arm, Staged("name", Path("/new"), "name"), steady)
        return seconds, steady.replies

    with served(server.app()) as url:
        seconds, replies = with_session(lambda session: swap(session, url))
    assert server.calls == calls
    assert server.loaded == {"name": "/new"}
    assert any(reply.ok for reply in replies)
    assert seconds >= 0.3
    statuses = {reply.status for reply in replies if not reply.ok}
    assert statuses == (set() if in_place else {404})


def test_a_load_that_the_server_refuses_ends_the_measurement() -> None:
    server = RuntimeLoading({"name": "/old"})

    async def load(session: aiohttp.ClientSession, url: str) -> None:
        await Bare(url, "base", session, 1).publish("name", Path("/new"))

    with served(server.app()) as url, pytest.raises(Refused, match="already loaded"):
        with_session(lambda session: load(session, url))


def test_the_first_request_for_what_nobody_loaded_is_a_status_and_the_cold_ones_are_timed(
    tmp_path: Path,
) -> None:
    base = base_record(make_base(tmp_path / "base", SMOLLM2), SMOLLM2)
    ledger = SampleLedger()

    async def cold(session: aiohttp.ClientSession, url: str) -> None:
        await cold_requests(Bare(url, "base", session, 1), tmp_path, base, 3, ledger)

    server = RuntimeLoading()
    with served(server.app()) as url:
        with_session(lambda session: cold(session, url))
    measured = {row.name: samples for row, samples in ledger.samples.items()}
    assert measured["a version that nobody loaded answers"] == [404]
    assert measured["an unknown name answers"] == [404]
    assert len(measured["cold 4 MB version: load and first token"]) == 2
    assert list(server.loaded) == ["cold-1", "cold-2"]


def test_ours_stages_a_version_without_stable_and_swaps_by_moving_it(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "root", make_base(tmp_path / "base", SMOLLM2))
    folders = [write_adapter(tmp_path / str(seed), registry.base, seed, 1) for seed in range(2)]

    async def go(session: aiohttp.ClientSession) -> Staged:
        arm = Ours("http://nowhere", registry, session, 1)
        await arm.publish("support", folders[0])
        staged = await arm.stage("support", folders[1])
        assert registry.aliases("support")["stable"] == 1
        await arm.swap(staged)
        assert arm.shows(Reply("support", 1.0, status=200, version="support@2"), staged, 5.0)
        assert not arm.shows(Reply("support", 9.0, status=200, version="support@1"), staged, 5.0)
        return staged

    staged = with_session(go)
    assert (staged.model, staged.number) == ("support@2", 2)
    assert registry.aliases("support")["stable"] == 2


def test_a_figure_is_the_statistic_of_each_arm_and_their_ratio() -> None:
    speed = LedgerRow("16 adapters: tokens/s", "tok/s", floor=0.95)
    tail = LedgerRow("16 adapters: time to first token", "ms", Statistic.P99)
    lost = LedgerRow("16 adapters: failed", "requests", Statistic.TOTAL, ceiling=0)
    bare, ours = SampleLedger(), SampleLedger()
    bare.add(speed, [100.0, 120.0, 110.0])
    ours.add(speed, [55.0, 60.0, 50.0])
    bare.add(tail, np.arange(1.0, 102.0))
    bare.add(lost, [1.0, 0.0, 1.0])
    ours.add(lost, [0.0, 1.0])
    ours.add(tail, [])
    found = {figure.name: figure for figure in figures({"bare": bare, "ours": ours})}
    assert found["16 adapters: tokens/s, bare"].value.median == 110
    half = found["16 adapters: tokens/s, ours / bare"]
    assert (half.value.median, half.reached) == (0.5, False)
    assert 50 / 120 <= half.value.low < 0.5 < half.value.high <= 60 / 100
    assert found["16 adapters: time to first token, bare"].value.median == 100
    assert "16 adapters: time to first token, ours" not in found
    assert "16 adapters: failed, ours / bare" not in found
    assert [found[f"16 adapters: failed, {arm}"].reached for arm in ("bare", "ours")] == [True, False]
    assert [found[f"16 adapters: failed, {arm}"].value.median for arm in ("bare", "ours")] == [2, 1]


def test_the_table_has_one_line_for_all_arms_and_both_quantiles_and_counts_the_failures() -> None:
    bare, ours = SampleLedger(), SampleLedger()
    for statistic in (Statistic.MEDIAN, Statistic.P99):
        bare.add(LedgerRow("wait", "ms", statistic), [200.0, 200.0])
        ours.add(LedgerRow("wait", "ms", statistic), [300.0])
    bare.add(LedgerRow("lost", "requests", Statistic.TOTAL), [1.0, 0.0, 1.0])
    ours.add(LedgerRow("lost", "requests", Statistic.TOTAL), [0.0, 0.0])
    bare.add(LedgerRow("well", "requests", Statistic.TOTAL), [0.0] * 5)
    bare.add(LedgerRow("answers", "status"), [404.0])
    ours.add(LedgerRow("answers", "status"), [200.0])
    tuned = SampleLedger()
    tuned.add(LedgerRow("wait", "ms"), [150.0])
    assert side_by_side({"bare": bare, "tuned": tuned, "ours": ours}).splitlines()[2:] == [
        "| wait | ms, median / p99 | 200 / 200 | 150 / – | 300 / 300 | 1.50 / 1.50 | 2.00 / – |",
        "| lost | requests | 2 of 3 | – | 0 of 2 | – | – |",
        "| answers | status | 404 | – | 200 | – | – |",
        "| failed of all other requests | requests | 0 of 5 | 0 of 0 | 0 of 0 | – | – |",
    ]


def test_other_work_is_what_the_cores_did_for_neither_the_server_nor_us() -> None:
    cores = os.cpu_count() or 1
    before = ResourceUsage(clock=100.0, server=5.0, own=1.0, all_cores=50.0)
    after = ResourceUsage(clock=110.0, server=9.0, own=2.0, all_cores=50.0 + 5.0 + 2.5 * cores)
    assert after.others_share(before) == pytest.approx(25.0)
    assert (
        busy("cpu  100 20 30 999 888 1 2 3 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n") * os.sysconf("SC_CLK_TCK") == 156
    )
    assert ResourceUsage.now(os.getpid()).server > 0


def test_a_ledger_that_was_kept_is_read_as_it_was() -> None:
    ledger = SampleLedger()
    ledger.add(LedgerRow("speed", "tok/s", floor=0.95), [1.5, 2.5])
    ledger.add(LedgerRow("lost", "requests", Statistic.TOTAL, ceiling=0), [0.0, 1.0])
    again = SampleLedger.from_json(ledger.to_json())
    assert again == ledger
    again.extend(ledger)
    assert again.samples[LedgerRow("speed", "tok/s", floor=0.95)] == [1.5, 2.5, 1.5, 2.5]


def test_the_interval_of_a_ratio_of_equal_samples_holds_one() -> None:
    draws = np.random.default_rng(7).normal(10, 1, 60)
    value = ratio(draws[:30].tolist(), draws[30:].tolist(), Statistic.MEDIAN)
    assert value.low < 1 < value.high
    assert value.n == 30


def test_a_run_gives_a_row_for_speed_each_latency_and_failures() -> None:
    ledger = SampleLedger()
    answered = [Reply("m", 0.0, ended=2.0, status=200, tokens=11, arrivals=[1.0, 2.0])] * 3
    add_run(ledger, "case", BenchRun([*answered, Reply("m", 0.0, status=404)], 3.0), None)
    values = {(row.name, row.statistic): samples for row, samples in ledger.samples.items()}
    assert values["case: tokens/s", Statistic.MEDIAN] == [11.0]
    assert values["case: time to first token", Statistic.P99] == [1000.0] * 3
    assert values["case: time per token", Statistic.P99] == [100.0] * 3
    assert values["case: failed", Statistic.TOTAL] == [0, 0, 0, 1]


def test_the_mixes_are_those_that_the_table_names() -> None:
    assert all(2 * cell.requests >= cell.adapters for cell in crowded_cells(quick=False))
    assert [cell.adapters for cell in resident_cells(quick=False)] == [0, 1, 16, 64, 256]
    assert [AdapterMix(count, 1).title for count in (0, 1, 4)] == ["base only", "1 adapter", "4 adapters"]


def test_the_arms_turn_round_with_every_part_and_every_round(tmp_path: Path) -> None:
    plan = EnginePlan(tmp_path, tmp_path, rounds=2)
    assert "".join(turn.arm[0] for turn in plan.turns()) == "bto" + "otb" + "bo" + "otb" + "bto" + "ob"
    assert plan.complete
    assert not replace(plan, arms=["bare"]).complete
    assert not replace(plan, quick=True).complete


def test_bare_gets_the_same_options_as_ours_and_nothing_of_ours_in_its_environment() -> None:
    inherited = {"PATH": "/bin", "WARDROBE_ROOT": "/root", "WARDROBE_CPU_LORA": "grouped"}
    environment = bare_environment(inherited)
    assert not [name for name in environment if name.startswith("WARDROBE_")]
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert not [one for one in environment["VLLM_PLUGINS"].split(",") if "wardrobe" in one]
    sizes = Sizes(slots=4, resident=8, rank=32)
    command = bare_command(Path("/base"), "base", 1, sizes)
    assert command[-len(sizes.options()) :] == list(sizes.options())
    assert "--middleware" not in command


def test_vllm_tuned_by_hand_has_the_threads_and_libraries_of_ours_and_none_of_its_code() -> None:
    tuned, bare = tuned_environment({"PATH": "/bin"}), bare_environment({"PATH": "/bin"})
    assert bare.items() <= tuned.items()
    ours = engine_environment(ServeSettings(root=Path("/root")), {"PATH": "/bin"})
    shared = tuned.keys() - bare.keys()
    assert {name: ours[name] for name in shared} == {name: tuned[name] for name in shared}
    assert not [name for name in shared if name.startswith("WARDROBE_")]


def test_what_a_swap_costs_others_is_the_slowest_answer_that_it_meets_over_the_usual_p99() -> None:
    ledger = SampleLedger()
    usual = [Reply("m", float(at), ended=at + 0.1, status=200, tokens=1) for at in range(100)]
    met = [Reply("m", 200.0 + at, ended=200.5 + at, status=200, tokens=1) for at in range(2)]
    lost = Reply("m", 200.2, ended=209.0, status=404)
    add_delays(ledger, "swap", [*usual, *met, lost], [(199.0, 200.0), (201.2, 201.3)])
    values = {row.name: samples for row, samples in ledger.samples.items()}
    assert values["swap: a steady request that a swap meets"] == pytest.approx([500.0, 500.0])
    slowest = values["swap: slowest request that a swap meets, over the usual p99"]
    assert slowest == pytest.approx([5.0, 5.0])
    found = figures({"ours": ledger})
    assert [figure.name for figure in found if not figure.reached] == [
        "swap: slowest request that a swap meets, over the usual p99, ours"
    ]


def test_beyond_the_slots_a_share_of_speed_and_the_worst_version_have_bars() -> None:
    def run(models: int, seconds: float, slow: float) -> BenchRun:
        replies = [
            Reply(f"m{at}", 0.0, seconds, 200, tokens=10, arrivals=[slow if at == 0 else 1.0])
            for at in range(models)
        ]
        return BenchRun(replies, seconds)

    ledger = SampleLedger()
    runs = {AdapterMix(8, 8): [run(8, 10.0, 1.0)] * 2, AdapterMix(64, 64): [run(64, 100.0, 4.0)] * 2}
    add_crowding(ledger, "4 slots", runs)
    assert list(ledger.samples.values()) == [[pytest.approx(0.8)], [pytest.approx(4.0)]]
    assert [figure.reached for figure in figures({"ours": ledger})] == [False, False]
    assert version_tails([]) == []


def test_a_measurement_waits_for_a_quiet_machine_no_longer_than_its_bound() -> None:
    spinner = subprocess.Popen([*python("-c", "while True: pass")])
    try:
        waited = asyncio.run(ResourceUsage.when_quiet(os.getpid(), 0.01, look_seconds=0.02))
    finally:
        spinner.kill()
        spinner.wait()
    assert waited < 5


def test_a_server_without_work_is_idle_at_the_first_look() -> None:
    sleeper = subprocess.Popen([*python("-c", "input()")], stdin=subprocess.PIPE)
    try:
        assert until_idle(sleeper.pid, 30.0, look_seconds=0.2) < 30
        with pytest.raises(RuntimeError, match="no engine"):
            back_after_kill(BenchServer("http://127.0.0.1:9", sleeper.pid, 0.0), "base")
    finally:
        sleeper.kill()
        sleeper.communicate()


def test_the_distance_is_the_largest_difference_of_what_both_name() -> None:
    assert distance({"a": -1.0, "b": -2.0, "c": 0.0}, {"a": -1.5, "b": -2.25, "d": -9.0}) == 0.5
    with pytest.raises(ValueError, match="empty"):
        distance({"a": 1.0}, {"b": 1.0})


def with_session(work: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, T]]) -> T:
    async def go() -> T:
        async with aiohttp.ClientSession() as session:
            return await work(session)

    return asyncio.run(go())
