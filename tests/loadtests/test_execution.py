"""Runs over a real socket: when requests are sent, and that every way of ending is told from the others."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtests.runner.records import RequestRecord
from loadtests.runner.results.documents import Report
from registry.errors import NotFound, WardrobeError
from tests.fakes.llm_server import llm_server
from tests.loadtests.making import play, scenario


def once(model: str, folder: Path, requests: int = 5, **changes: Any) -> tuple[Report, list[RequestRecord]]:
    """Ask `model` a few times at once on a server of its own."""
    made = scenario(
        adapters={"names": [model]},
        **{"arrival": {"process": "constant", "rate": 10 * requests}, "duration_seconds": 0.1, **changes},
    )
    with llm_server(model.partition("@")[0]) as (url, _):
        return play(url, folder, made)


def test_a_server_that_stalls_is_charged_for_everybody_who_waited(tmp_path: Path) -> None:
    # 50 requests a second; from the 10th on nobody is answered for 0.8 s. A client that waits for each
    # answer before it asks again would have met the stall once.
    with llm_server("fast", stall_from=10, stall_seconds=0.8) as (url, server):
        report, records = play(url, tmp_path, scenario())
    assert len(server.seen) == len(records) == 50
    waited = [one for one in records if one.ended - one.at > 0.3]
    assert len(waited) >= 20
    spread = report.overall.distributions["e2e_ms"]
    assert spread is not None
    assert spread.p50 is not None
    assert spread.p50 > 200


def test_requests_are_begun_when_they_are_due_though_none_is_answered(tmp_path: Path) -> None:
    report, records = once("hang", tmp_path, requests=8, timeout_seconds=0.5)
    assert [one.error for one in records] == ["timeout"] * 8
    assert report.generator.peak_in_flight == 8


def test_the_first_token_is_the_first_text_and_not_the_role(tmp_path: Path) -> None:
    _, records = once("role", tmp_path)
    assert len(records) == 5
    # The role comes at once, the first text 155 ms later.
    assert all(one.first is not None and one.first - one.sent > 0.15 for one in records)


def test_the_time_per_token_counts_tokens_as_the_server_does_and_not_chunks(tmp_path: Path) -> None:
    report, records = once("pairs", tmp_path)
    assert {(one.output_tokens, one.pieces) for one in records} == {(10, 5)}
    per_token = report.overall.distributions["tpot_ms"]
    chunks = report.overall.distributions["chunks_per_token"]
    assert per_token is not None
    assert chunks is not None
    assert chunks.mean == 0.5
    one = records[0]
    assert one.first is not None
    expected = sum((r.ended - (r.first or 0)) / 9 for r in records) / len(records) * 1_000
    assert per_token.mean == pytest.approx(expected, rel=1e-3)


def test_a_stream_that_comes_all_at_once_at_the_end_is_seen_as_such(tmp_path: Path) -> None:
    report, _ = once("fake", tmp_path)
    share = report.overall.distributions["ttft_share"]
    assert share is not None
    assert share.p50 is not None
    assert share.p50 > 0.9
    assert "looks like a whole answer sent at once" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("model", "kind", "detail"),
    [
        ("cut", "cut", "payload is not completed"),
        ("event", "error event", "EngineCore died"),
        ("busy", "http 503", "the engine is busy"),
    ],
)
def test_every_kind_of_failure_has_a_name(tmp_path: Path, model: str, kind: str, detail: str) -> None:
    report, records = once(model, tmp_path)
    assert {one.error for one in records} == {kind}
    assert [(one.kind, one.count) for one in report.errors] == [(kind, 5)]
    assert detail in report.errors[0].detail
    assert report.overall.error_rate == 1.0
    assert not report.passed


@contextmanager
def listener() -> Iterator[tuple[str, socket.socket]]:
    """A socket that speaks no HTTP of its own."""
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        yield f"http://127.0.0.1:{found.getsockname()[1]}", found


def test_a_connection_that_ends_before_an_answer_is_a_reset_and_none_at_all_is_refused(
    tmp_path: Path,
) -> None:
    with listener() as (url, server):

        def answer() -> None:
            answers = [b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"] + [b""] * 5
            for one in answers:
                client, _ = server.accept()
                client.recv(65_536)
                client.sendall(one)
                client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        made = scenario(arrival={"process": "constant", "rate": 50}, duration_seconds=0.1)
        _, records = play(url, tmp_path / "reset", made)
        thread.join(10)
    assert {one.error for one in records} == {"reset"}
    with pytest.raises(WardrobeError, match="cannot be reached"):
        play(url, tmp_path / "refused", made)


def test_a_server_that_goes_away_during_the_run_is_refused_from_then_on(tmp_path: Path) -> None:
    with listener() as (url, server):

        def answer() -> None:
            client, _ = server.accept()
            client.recv(65_536)
            client.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")
            client.close()
            server.close()

        thread = threading.Thread(target=answer)
        thread.start()
        made = scenario(arrival={"process": "trace", "trace": str(_trace(tmp_path))}, duration_seconds=2)
        report, _ = play(url, tmp_path / "run", made)
        thread.join(10)
    assert {one.kind for one in report.errors} == {"refused"}


def _trace(folder: Path) -> Path:
    path = folder / "trace.jsonl"
    path.write_text('{"at": 0.8}\n{"at": 0.9}\n')
    return path


def test_clients_that_leave_are_counted_apart_and_the_server_sees_them_go(tmp_path: Path) -> None:
    made = scenario(
        adapters={"names": ["slow"]},
        max_tokens={"mean": 60},
        cancel={"ratio": 0.5, "after_seconds": [0.05, 0.1]},
        arrival={"process": "constant", "rate": 40},
        duration_seconds=0.5,
    )
    with llm_server("slow") as (url, server):
        report, records = play(url, tmp_path, made)
    outcomes = Counter(one.outcome for one in records)
    assert outcomes["cancelled"] == report.overall.cancelled > 0
    assert 0 < server.left <= report.overall.cancelled  # one may leave before the server has seen it come
    assert outcomes["ok"] == report.overall.ok > 0
    assert report.overall.errors == 0
    assert report.overall.error_rate == 0.0


def test_more_in_flight_than_allowed_is_an_error_and_saturates_the_run(tmp_path: Path) -> None:
    report, records = once("hang", tmp_path, requests=8, timeout_seconds=0.5, max_in_flight=5)
    assert Counter(one.error for one in records) == {"timeout": 5, "shed": 3}
    assert report.generator.saturated
    assert "3 requests were not begun" in report.generator.sentence


def test_answers_that_are_no_streams_have_no_first_token(tmp_path: Path) -> None:
    report, records = once("fast", tmp_path, stream_ratio=0.0)
    assert {one.outcome for one in records} == {"ok"}
    assert report.overall.distributions["ttft_ms"] is None
    assert report.overall.distributions["e2e_ms"] is not None
    assert report.overall.output_tokens == 50


def test_completions_are_asked_by_their_own_route(tmp_path: Path) -> None:
    report, _ = once("fast", tmp_path, api="completions")
    assert (report.overall.ok, report.overall.errors) == (5, 0)


def test_an_answer_of_another_adapter_is_counted(tmp_path: Path) -> None:
    made = scenario(adapters={"names": ["fast-a", "fast-b"], "popularity": {"distinct": True}})
    with llm_server("fast-a", "fast-b", answered_by={"fast-b": "fast-a@1"}) as (url, _):
        report, _ = play(url, tmp_path, made)
    assert report.overall.wrong_adapter == 25
    assert {(one.version, one.figures.requests) for one in report.versions} == {("fast-a@1", 50)}


def test_arms_and_adapters_have_figures_of_their_own(tmp_path: Path) -> None:
    names = ["fast-a", "busy-b", "fast-c"]
    made = scenario(adapters={"names": names, "popularity": {"distinct": True}}, duration_seconds=0.6)
    with llm_server(*names, arms={"fast-c": "canary"}) as (url, _):
        report, _ = play(url, tmp_path, made)
    by_arm = {one.arm: one.figures for one in report.arms}
    assert (by_arm["stable"].ok, by_arm["canary"].ok) == (10, 10)
    by_adapter = {one.adapter: one.figures for one in report.adapters}
    assert (by_adapter["busy-b"].goodput.rate, by_adapter["fast-a"].goodput.rate) == (0.0, 1.0)
    assert {(one.adapter, one.arm) for one in report.groups} == {("fast-a", "stable"), ("fast-c", "canary")}


def test_conversations_take_their_answers_along_in_one_session(tmp_path: Path) -> None:
    made = scenario(sessions={"turns": 3, "think_seconds": 0.01}, arrival={"process": "constant", "rate": 2})
    with llm_server("fast") as (url, server):
        report, records = play(url, tmp_path, made)
    assert Counter(one.turn for one in records) == {0: 2, 1: 2, 2: 2}
    assert report.overall.requests == 6
    by_session: dict[str, list[int]] = {}
    for body in server.seen:
        by_session.setdefault(body["session"], []).append(len(body["messages"]))
    assert list(by_session.values()) == [[1, 3, 5], [1, 3, 5]]
    last = max((body["messages"] for body in server.seen), key=len)
    assert [one["role"] for one in last] == ["user", "assistant", "user", "assistant", "user"]
    assert last[1]["content"] == "word " * 10
    # A later turn is due when its thinking is over, not with the first.
    later = [one for one in records if one.turn == 1]
    assert all(one.at > 0 for one in later)


def test_two_runs_are_other_sessions_so_that_they_are_evidence_of_their_own(tmp_path: Path) -> None:
    with llm_server("fast") as (url, server):
        for name in ("a", "b"):
            play(url, tmp_path / name, scenario(duration_seconds=0.1))
    assert len({body["session"] for body in server.seen}) == len(server.seen) == 10


def test_names_that_are_not_served_end_the_run_before_its_first_request(tmp_path: Path) -> None:
    with llm_server("fast") as (url, server):
        with pytest.raises(NotFound, match=r"does not serve 2 of the scenario's 3 models \(slow-a, slow-b\)"):
            play(url, tmp_path, scenario(adapters={"names": ["slow-a", "fast@3", "slow-b"]}))
        assert server.seen == []
