"""Whatever dies, and whenever: each line of a batch is once in the files that it gives."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from registry.entries.openai.batch_states import BatchEvent, BatchState
from registry.entries.openai.batches import Batch, BatchStore
from registry.entries.openai.files import FileStore
from registry.records import Heartbeat
from registry.storage import files
from registry.store import Registry
from serve.batches.answers import AnswerLog, AnswerRecord, output_lines, survey
from serve.batches.gate import Gate, Place, room
from serve.batches.lines import MAX_LINES, check_lines
from serve.batches.runner import BatchRunner, holder_name
from serve.settings import BatchSettings
from tests.checkout import REPOSITORY
from tests.fakes.batch_server import CHAT, Answering, make_runner
from tests.fakes.served import wait_until


def make_batch(
    root: Path, count: int, *, who: str = "alice", clock: Callable[[], float] = time.time
) -> Batch:
    lines = (
        json.dumps({"custom_id": name, "method": "POST", "url": CHAT, "body": {"model": "m", "name": name}})
        for name in names(count)
    )
    file = FileStore(root).create("batch", "in.jsonl", (f"{one}\n".encode() for one in lines), who=who)
    return BatchStore(root, clock).create(CHAT, file.id, who=who)


def names(count: int) -> list[str]:
    return [f"{number:05d}" for number in range(count)]


def results(root: Path, batch: Batch, kind: str = "output") -> list[dict[str, Any]]:
    told = BatchStore(root).find(batch.id).last().facts["files"]
    assert isinstance(told, dict)
    if told[kind] is None:
        return []
    path = FileStore(root).content(str(told[kind]))
    return [json.loads(row) for row in path.read_text().splitlines()]


async def come(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def until_seen(runner: BatchRunner, batch: Batch, state: BatchState) -> None:
    """Have a runner take turns until a batch is in a state; it goes on then."""
    deadline = time.monotonic() + 10
    while batch.last().state is not state:
        assert time.monotonic() < deadline, f"{batch.last()}"
        await runner.turn()
        await asyncio.sleep(0.005)


async def until(runner: BatchRunner, batch: Batch, *states: BatchState, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while batch.last().state not in states:
        assert time.monotonic() < deadline, f"{batch.last()}"
        await runner.turn()
        await asyncio.sleep(0.005)
    if batch.last().state.final:
        await runner.stop()


def finish(root: Path, batch: Batch, app: Answering | None = None, **options: Any) -> Batch:
    """Have a batch brought to its end by a runner of this process."""
    found = BatchStore(root).find(batch.id)

    async def run() -> None:
        runner = make_runner(root, app or Answering(), **options)
        await until(runner, found, *(one for one in BatchState if one.final))

    asyncio.run(run())
    return found


def test_servers_that_are_killed_at_random_lose_no_line_and_give_none_twice(
    registry: Registry, tmp_path: Path
) -> None:
    batch, asked, dice = make_batch(registry.root, 400), tmp_path / "asked", random.Random(7)
    asked.touch()
    line = [sys.executable, "-m", "tests.fakes.batch_server", str(registry.root), "other", str(asked)]
    for _ in range(4):
        before = asked.stat().st_size
        with subprocess.Popen(line, cwd=REPOSITORY) as server:
            wait_until(lambda before=before: asked.stat().st_size > before, "it is at work")  # type: ignore[misc]
            time.sleep(dice.uniform(0, 0.2))
            server.kill()
    assert not batch.last().state.final, "the batch is too small to be killed in"
    done = finish(registry.root, batch)
    rows = results(registry.root, batch)
    assert sorted(row["custom_id"] for row in rows) == names(400)
    assert all(row["response"]["body"]["name"] == row["custom_id"] for row in rows)
    assert done.last().facts["counts"] == {"completed": 400, "failed": 0}
    assert done.last().facts["usage"] == {"input": 800, "output": 400, "total": 1200}
    again = Counter(asked.read_text().split())
    assert len(again) >= 12
    # So many can be in flight or unwritten at a kill.
    assert sum(count - 1 for count in again.values()) < 4 * 60


@pytest.mark.parametrize("event", [BatchEvent.STARTED, BatchEvent.ANSWERED, BatchEvent.COMPLETED])
def test_a_server_that_dies_before_it_writes_an_event_is_followed_by_another(
    registry: Registry, event: BatchEvent
) -> None:
    batch = make_batch(registry.root, 20)

    async def dying(call: Callable[[], Any], /) -> Any:
        def run() -> Any:
            def refuse(label: str) -> None:
                # The entry's number: claimed is 2.
                number = {BatchEvent.STARTED: 3, BatchEvent.ANSWERED: 4, BatchEvent.COMPLETED: 5}[event]
                if label.endswith((f"link {number}.json", f"rename to {number}.json")):
                    raise OSError(errno.EIO, "the disk breaks")

            with files.watch_steps(refuse):
                return call()

        return await asyncio.to_thread(run)

    async def run() -> None:
        runner = make_runner(registry.root, Answering(), "dead", on_disk=dying)
        await runner.turn()
        await come(lambda: not runner._mine)
        await runner.stop()

    asyncio.run(run())
    assert not batch.last().state.final
    app = Answering()
    assert finish(registry.root, batch, app).last().state is BatchState.COMPLETED
    assert sorted(row["custom_id"] for row in results(registry.root, batch)) == names(20)
    assert len(app.asked) == (20 if event is BatchEvent.STARTED else 0)
    assert len(FileStore(registry.root).list(purpose="batch_output")) == 1


def test_one_that_was_thought_dead_and_goes_on_spoils_nothing(registry: Registry) -> None:
    batch = make_batch(registry.root, 60)
    slow, quick = Answering(0.02), Answering(0.001)

    async def run() -> None:
        first = make_runner(registry.root, slow, "first")
        await first.turn()
        await come(lambda: slow.asked)
        second = make_runner(registry.root, quick, "second")
        await until(second, batch, BatchState.COMPLETED)
        await first.stop()

    asyncio.run(run())
    assert sorted(row["custom_id"] for row in results(registry.root, batch)) == names(60)
    assert len(slow.asked) < 60


def test_a_batch_of_a_server_that_lives_is_left_alone_until_it_drains(registry: Registry) -> None:
    batch, state = make_batch(registry.root, 1), ["ready"]
    batch.append(BatchEvent.CLAIMED, who="r", holder=holder_name("r", 1, 1.0))

    def beats() -> list[tuple[Heartbeat, bool]]:
        return [(Heartbeat("r", "http://x", "sha256:0", (), 4, state[0], 1.0, 1), True)]

    async def run() -> None:
        runner = make_runner(registry.root, Answering(), beats=beats)
        for _ in range(3):
            await runner.turn()
            assert not runner._mine
        state[0] = "draining"
        await until(runner, batch, BatchState.COMPLETED)

    asyncio.run(run())


def test_what_is_not_answered_in_time_expires(registry: Registry) -> None:
    now = [time.time()]
    batch = make_batch(registry.root, 12, clock=lambda: now[0])
    app = Answering()

    async def run() -> None:
        runner = make_runner(
            registry.root, app, clock=lambda: now[0], rule=BatchSettings(alone=1, quiet_seconds=0)
        )
        while len(app.asked) < 3:
            await runner.turn()
            await asyncio.sleep(0.001)
        app.pause_seconds = 60.0
        await asyncio.sleep(0.03)
        now[0] += 86_401
        await until(runner, batch, BatchState.EXPIRED)

    asyncio.run(run())
    good = [row["custom_id"] for row in results(registry.root, batch)]
    unasked = results(registry.root, batch, "error")
    assert sorted(good + [row["custom_id"] for row in unasked]) == names(12)
    assert {row["error"]["code"] for row in unasked} == {"batch_expired"}
    assert batch.last().facts["counts"] == {"completed": len(good), "failed": 12 - len(good)}


def test_a_busy_server_is_asked_again_and_a_refusal_is_an_answer(registry: Registry) -> None:
    batch = make_batch(registry.root, 3)
    app = Answering(statuses={"00000": [503, 429], "00001": [503] * 3, "00002": [400]})
    finish(registry.root, batch, app)
    assert [row["custom_id"] for row in results(registry.root, batch)] == ["00000"]
    refused = {
        row["custom_id"]: row["response"]["status_code"] for row in results(registry.root, batch, "error")
    }
    assert refused == {"00001": 503, "00002": 400}
    assert Counter(app.asked) == {"00000": 3, "00001": 3, "00002": 1}


def test_answers_wait_for_a_full_disk_and_are_not_lost(registry: Registry) -> None:
    batch, full = make_batch(registry.root, 30), [True]

    async def on_disk(call: Callable[[], Any], /) -> Any:
        def run() -> Any:
            def refuse(label: str) -> None:
                if full[0] and label.startswith("append to"):
                    raise OSError(errno.ENOSPC, "No space left on device")

            with files.watch_steps(refuse):
                return call()

        return await asyncio.to_thread(run)

    async def run() -> None:
        app = Answering()
        runner = make_runner(registry.root, app, on_disk=on_disk)
        await runner.turn()
        await come(lambda: app.asked)
        await asyncio.sleep(0.1)
        assert not list(batch.answers.iterdir())
        full[0] = False
        runner.clock = lambda: time.monotonic() + 60
        await until(runner, batch, BatchState.COMPLETED)

    asyncio.run(run())
    assert sorted(row["custom_id"] for row in results(registry.root, batch)) == names(30)
    assert sum(one.event is BatchEvent.CLAIMED for one in batch.log()) == 1


def test_two_threads_that_write_at_once_write_each_answer_once(tmp_path: Path) -> None:
    log, began, go = AnswerLog(tmp_path, 2), threading.Event(), threading.Event()

    def wait(label: str) -> None:
        began.set()
        assert go.wait(10)

    def write() -> None:
        with files.watch_steps(wait):
            log.write()

    log.add(AnswerRecord(0, "0", "batch_req_0", 200, "", msgspec.Raw(b"{}")))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(write)
        assert began.wait(10)
        log.add(AnswerRecord(1, "1", "batch_req_1", 200, "", msgspec.Raw(b"{}")))
        second = pool.submit(log.write)
        go.set()
        first.result(10)
        second.result(10)
    found = survey(tmp_path, 2)
    assert [json.loads(row)["custom_id"] for row in output_lines(found, good=True)] == ["0", "1"]
    assert (tmp_path / "2.jsonl").read_text().count("\n") == 2


def test_a_torn_answer_is_asked_again(registry: Registry) -> None:
    batch = make_batch(registry.root, 5)
    batch.append(BatchEvent.CLAIMED, who="dead", holder="dead")
    batch.append(BatchEvent.STARTED, who="dead", holder="dead", facts={"total": 5, "model": "m"})
    (batch.answers / "2.jsonl").write_text(
        '{"place":0,"custom_id":"00000","id":"batch_req_1","status":200,"req'
    )
    finish(registry.root, batch)
    assert sorted(row["custom_id"] for row in results(registry.root, batch)) == names(5)


def test_a_line_that_kills_every_server_is_given_up_and_the_others_are_answered(registry: Registry) -> None:
    batch, claims = make_batch(registry.root, 12), 0
    app = Answering(deadly="00004")
    for number in range(20):
        if BatchStore(registry.root).find(batch.id).last().state.final:
            break
        claims += 1
        asyncio.run(live(registry.root, batch, app, f"server {number}"))
    (given_up,) = results(registry.root, batch, "error")
    assert (given_up["custom_id"], given_up["response"]["status_code"]) == ("00004", 500)
    assert sorted(row["custom_id"] for row in results(registry.root, batch)) == names(12)[:4] + names(12)[5:]
    assert 4 <= claims <= 9


async def live(root: Path, batch: Batch, app: Answering, holder: str) -> None:
    """Answer a batch until it has ended, or until a line has killed this server."""
    app.died = False
    runner, found = make_runner(root, app, holder), BatchStore(root).find(batch.id)
    while not app.died and not found.last().state.final:
        await runner.turn()
        await asyncio.sleep(0.001)
    tasks = [*runner._mine.values()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_server_that_ends_in_order_lets_go(registry: Registry) -> None:
    batch = make_batch(registry.root, 3)
    app = Answering(60.0)

    async def run() -> None:
        runner = make_runner(registry.root, app)
        await runner.turn()
        await come(lambda: app.asked)
        await runner.stop()

    for _ in range(4):
        app.asked.clear()
        asyncio.run(run())
        assert (batch.last().event, batch.last().holder) == (BatchEvent.RELEASED, None)
    finish(registry.root, batch)
    assert sorted(row["custom_id"] for row in results(registry.root, batch)) == names(3)


def test_batches_of_several_keys_take_turns_line_by_line(registry: Registry) -> None:
    long, short = make_batch(registry.root, 300, who="alice"), make_batch(registry.root, 5, who="ben")
    app = Answering(0.001)

    async def run() -> None:
        runner = make_runner(registry.root, app, rule=BatchSettings(alone=1, quiet_seconds=0))
        await until(runner, short, BatchState.COMPLETED)
        assert not long.last().state.final
        await runner.stop()

    asyncio.run(run())
    assert len(app.asked) < 100


def test_what_has_no_lines_to_ask_waits_for_no_other_batch(registry: Registry) -> None:
    long, app = make_batch(registry.root, 300), Answering(60.0)

    async def run() -> Batch:
        runner = make_runner(registry.root, app)
        await until_seen(runner, long, BatchState.IN_PROGRESS)
        while len(app.asked) < 8:
            await runner.turn()
            await asyncio.sleep(0.005)
        wrong, waiting, cancelled = (make_batch(registry.root, lines) for lines in (0, 3, 3))
        await until_seen(runner, wrong, BatchState.FAILED)
        await until_seen(runner, waiting, BatchState.IN_PROGRESS)
        await until_seen(runner, cancelled, BatchState.IN_PROGRESS)
        cancelled.append(BatchEvent.WITHDRAWN, who="alice")
        await until_seen(runner, cancelled, BatchState.CANCELLED)
        await come(lambda: waiting.last().holder is None)
        assert long.last().state is BatchState.IN_PROGRESS
        await runner.stop()
        return cancelled

    cancelled = asyncio.run(run())
    assert len(results(registry.root, cancelled, "error")) == 3
    assert len(app.asked) == 8


def test_a_deleted_input_file_fails_a_batch_that_did_not_begin(registry: Registry) -> None:
    batch = make_batch(registry.root, 5)
    FileStore(registry.root).delete(batch.request.input_file)
    last = finish(registry.root, batch).last()
    assert last.state is BatchState.FAILED
    assert "'code': 'invalid_input_file'" in str(last.facts["errors"])


def test_a_file_of_too_many_requests_is_refused(tmp_path: Path) -> None:
    row = b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}\n'
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(row % number for number in range(MAX_LINES)))
    assert check_lines(path, CHAT, 100).total == MAX_LINES
    assert check_lines(path, CHAT, 100).faults == ()
    with path.open("ab") as file:
        file.write(row % MAX_LINES)
    assert [fault.code for fault in check_lines(path, CHAT, 100).faults] == ["too_many_tasks"]
    assert [fault.code for fault in check_lines(path, CHAT, 5).faults[:2]] == ["request_too_large"] * 2


def test_a_batch_that_ended_long_ago_is_forgotten(registry: Registry) -> None:
    batch = make_batch(registry.root, 1)
    finish(registry.root, batch)
    store = BatchStore(registry.root)
    assert store.outlived(time.time() - 60) == []
    assert [path.name for path in store.outlived(time.time() + 60)] == [batch.id]


def test_the_settings_give_clients_the_engine_and_batches_the_pauses() -> None:
    rule = BatchSettings(alone=8, beside=0, quiet_seconds=2.0, patience_seconds=10.0)
    assert room(rule, others=0, quiet=5.0, waited=0.0) == 8
    assert room(rule, others=0, quiet=1.0, waited=0.0) == 1
    assert room(rule, others=1, quiet=0.0, waited=9.0) == 0
    assert room(rule, others=9, quiet=0.0, waited=10.0) == 1
    assert room(BatchSettings(beside=4), others=1, quiet=0.0, waited=0.0) == 4


def test_lines_come_out_when_a_client_comes_and_are_asked_again(registry: Registry) -> None:
    batch, app, others = make_batch(registry.root, 12), Answering(60.0), [0]

    async def run() -> None:
        rule = BatchSettings(alone=4, beside=1, quiet_seconds=0, patience_seconds=60)
        runner = make_runner(registry.root, app, rule=rule, others=lambda: others[0])
        await runner.turn()
        await come(lambda: len(app.asked) == 4)
        others[0] = 1
        await come(lambda: runner.tools.gate.inside == 1)
        assert app.running == 1
        others[0], app.pause_seconds = 0, 0.0
        await come(lambda: len(app.asked) > 14)
        await runner.stop()

    asyncio.run(run())
    asked = Counter(app.asked)
    assert asked["00000"] == 1
    assert [asked[name] for name in names(4)[1:]] == [2, 2, 2]
    finish(registry.root, batch)
    assert sorted(row["custom_id"] for row in results(registry.root, batch)) == names(12)


def test_a_line_that_waited_long_goes_in_beside_clients_and_stays_in(registry: Registry) -> None:
    batch, app = make_batch(registry.root, 2), Answering(0.05)

    async def run() -> None:
        rule = BatchSettings(alone=4, quiet_seconds=0, patience_seconds=0.1)
        runner = make_runner(registry.root, app, rule=rule, others=lambda: 5)
        await until(runner, batch, BatchState.COMPLETED)

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began >= 0.2
    assert Counter(app.asked) == {"00000": 1, "00001": 1}


def test_as_many_lines_go_in_at_once_as_the_settings_say(registry: Registry) -> None:
    batch, app = make_batch(registry.root, 40), Answering(60.0)

    async def run() -> None:
        runner = make_runner(registry.root, app, rule=BatchSettings(alone=7, quiet_seconds=0))
        await runner.turn()
        await come(lambda: len(app.asked) == 7)
        await asyncio.sleep(0.05)
        assert (len(app.asked), runner.tools.gate.inside) == (7, 7)
        await runner.stop()
        assert runner.tools.gate.inside == 0

    asyncio.run(run())
    assert not batch.last().state.final


def test_places_are_given_in_the_order_of_asking_and_all_come_back() -> None:
    async def run() -> None:
        others, order = [1], []
        gate = Gate(
            BatchSettings(alone=1, quiet_seconds=0, patience_seconds=60),
            lambda: others[0] + gate.inside,
            look_seconds=0.001,
        )
        places = [Place(gate) for _ in range(3)]

        async def enter(number: int) -> None:
            await places[number].take()
            order.append(number)

        tasks = [asyncio.create_task(enter(number)) for number in range(3)]
        await asyncio.sleep(0.02)
        assert order == []
        others[0] = 0
        await come(lambda: order == [0])
        tasks[1].cancel()
        places[0].give_back()
        places[0].give_back()
        await come(lambda: order == [0, 2])
        assert gate.inside == 1
        places[2].give_back()
        assert gate.inside == 0
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
