"""The routers beside peers: exact pins, whole environments, whole answers, figures against the direct arm."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from loadtests.bench.mock import ANSWER, CHUNK, CHUNKS, LAST
from loadtests.bench.peers import page
from loadtests.bench.peers.__main__ import HALVES
from loadtests.bench.peers.answers import complaint, streamed
from loadtests.bench.peers.environments import MARKER, PeerUnavailable, environment, peers, requirements
from loadtests.bench.peers.options import PeerOptions
from loadtests.bench.peers.processes import cpu_seconds, session_and_seconds
from loadtests.bench.peers.routers import PEERS, SETTLE_SECONDS, measure, own_arms
from loadtests.bench.peers.turns import (
    DIRECT,
    OURS,
    REFERENCE,
    LoadKind,
    Measured,
    RouterTurn,
    figures,
    notes,
    summary,
)
from loadtests.bench.router import mock_server
from loadtests.bench.wrk import WrkRun
from registry.errors import NotFound
from tests.fakes.http_server import served

REPOSITORY = Path(__file__).resolve().parents[2]
JSON, STREAM = LoadKind("json", 1), LoadKind("stream", 16)


def test_every_peer_has_exact_pins_that_hold_its_own_version() -> None:
    assert set(peers()) == set(PEERS)
    for name in peers():
        found = requirements(name)
        assert found[name], name
        assert len(found) >= 25, name


def test_the_router_is_pinned_to_the_version_that_the_deployment_has() -> None:
    assert (
        f'"vllm-router=={requirements("vllm-router")["vllm-router"]}"'
        in (REPOSITORY / "pyproject.toml").read_text()
    )


@pytest.mark.parametrize("line", ["litellm>=1.1", "litellm", "litellm[proxy]==1.1", "litellm==1.*", ""])
def test_a_pin_that_is_not_exact_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "litellm.txt").write_text(f"{line}\n")
    with pytest.raises(PeerUnavailable, match=r"litellm\.txt: .* is not NAME==VERSION; pin it exactly"):
        requirements("litellm", pins=tmp_path)


class Maker:
    """Makes a small environment instead of pip's, and fails half-way as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self, folder: Path, pins: Path) -> None:
        self.calls += 1
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / f"program-{self.calls}").write_text(pins.read_text())
        if self.calls <= self.failures:
            raise subprocess.CalledProcessError(1, "pip", stderr="one\nno such version\n")


def test_an_environment_is_made_once_for_the_same_pins(tmp_path: Path) -> None:
    pins, make = tmp_path / "peer.txt", Maker()
    pins.write_text("peer==1.0\n")
    for _ in range(2):
        programs = environment("peer", tmp_path, pins=tmp_path, make=make)
    assert [path.name for path in programs.iterdir()] == ["program-1"]
    pins.write_text("peer==1.1\n")
    environment("peer", tmp_path, pins=tmp_path, make=make)
    assert [path.name for path in programs.iterdir()] == ["program-2"]


def test_a_half_made_environment_is_made_anew(tmp_path: Path) -> None:
    make = Maker(failures=1)
    (tmp_path / "peer.txt").write_text("peer==1.0\n")
    with pytest.raises(PeerUnavailable, match="peer: pip ended with 1: one; no such version; check"):
        environment("peer", tmp_path, pins=tmp_path, make=make)
    assert not (tmp_path / "peers" / "peer" / MARKER).exists()
    programs = environment("peer", tmp_path, pins=tmp_path, make=make)
    assert [path.name for path in programs.iterdir()] == ["program-2"]
    assert programs == tmp_path / "peers" / "peer" / "bin"


def test_the_cpu_time_of_a_process_is_read_whatever_its_name() -> None:
    tick = os.sysconf("SC_CLK_TCK")
    line = f"7 (a) b (c) S 1 7 42 0 -1 0 0 0 0 0 {3 * tick} {2 * tick} 0 0 20 0 1 0 9 0 0"
    assert session_and_seconds(line) == (42, 5.0)


def test_the_cpu_time_counts_a_whole_session_and_nobody_else() -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    child = ["bash", "-c", f"{shutil.which('python3')} -c '{work}'; :"]
    with subprocess.Popen(child, stdin=-1, stdout=-1, start_new_session=True, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cpu_seconds([process.pid]) >= 0.25
        process.communicate("\n")
    assert cpu_seconds([process.pid]) == 0.0


def _answering(answer: bytes, stream: bytes, status: int = 200) -> Starlette:
    async def chat(request: Request) -> Response:
        body = stream if (await request.json())["stream"] else answer
        return PlainTextResponse(body.decode(), status)

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


@pytest.mark.parametrize(
    ("answer", "stream", "status", "said"),
    [
        (ANSWER, CHUNK * CHUNKS + LAST, 200, ""),
        (ANSWER, CHUNK * CHUNKS + LAST, 503, "json: status 503"),
        (ANSWER.replace(b"plain", b""), CHUNK * CHUNKS + LAST, 200, "json: 44 characters of text instead of"),
        (ANSWER, CHUNK * (CHUNKS - 1) + LAST, 200, "stream: 1008 characters of text instead of 1024"),
        (
            ANSWER,
            CHUNK.replace(b"some plain words", b"some plain words" * CHUNKS) + LAST,
            200,
            "stream: the text came in 1 pieces instead of 64",
        ),
    ],
)
def test_a_router_that_hands_on_something_else_is_not_measured(
    answer: bytes, stream: bytes, status: int, said: str
) -> None:
    with served(_answering(answer, stream, status)) as url:
        found = complaint(int(url.rpartition(":")[2]))
    assert found.startswith(said) if said else found == ""


def test_an_event_that_is_no_chunk_is_seen() -> None:
    with pytest.raises(KeyError, match="choices"):
        streamed('data: {"error": {"message": "no"}}\n\n')


def _turn(p50: float, rate: float, *, cpu: float = 10, wrong: int = 0, requests: int = 100) -> RouterTurn:
    return RouterTurn(WrkRun(p50=p50, p99=2 * p50, rate=rate, requests=requests, wrong=wrong), cpu)


def _measured(*, ours: float = 120, peer: float = 500, wrong: int = 0, requests: int = 100) -> Measured:
    return {
        (load, arm): [
            _turn(p50 + drift, 1e5 / p50, cpu=p50, wrong=bad, requests=requests) for drift in (0, 50, 10)
        ]
        for load in (JSON, STREAM)
        for arm, p50, bad in ((DIRECT, 100, 0), (OURS, ours, 0), ("peer 1", peer, wrong))
    }


def test_an_arm_is_held_against_the_direct_one_of_its_own_round() -> None:
    found = {figure.name: figure for figure in figures(_measured())}
    assert found["added p50, ours (json, 1 connection)"].value.median == 20
    assert found["added p99, peer 1 (json, 1 connection)"].value.high == 800
    assert found["added CPU time per answer, peer 1 (stream, 16 connections)"].value.median == 400
    assert found["requests/s of direct, peer 1 (stream, 16 connections)"].value.median == pytest.approx(0.2)
    assert found["p50 of ours less that of peer 1 (json, 1 connection)"].value.median == -380
    assert all(figure.reached for figure in found.values())


def test_a_peer_that_is_faster_misses_our_bars() -> None:
    missed = [figure.name for figure in figures(_measured(peer=110)) if not figure.reached]
    assert missed == [
        "p50 of ours less that of peer 1 (json, 1 connection)",
        "requests/s, ours / peer 1 (stream, 16 connections)",
    ]


def test_the_bare_pass_through_is_no_bar_of_ours() -> None:
    measured = {(load, arm.replace("peer 1", REFERENCE)): turns for (load, arm), turns in _measured().items()}
    assert not [figure.name for figure in figures(measured) if figure.bar != "–"]


def test_an_arm_with_wrong_answers_has_no_speed() -> None:
    measured = _measured(wrong=2)
    found = [figure for figure in figures(measured) if "peer 1" in figure.name]
    assert [(figure.name, figure.value.median, figure.reached) for figure in found] == [
        ("wrong answers, peer 1 (json, 1 connection)", 6.0, False),
        ("wrong answers, peer 1 (stream, 16 connections)", 6.0, False),
    ]
    assert "| peer 1 | fails: 6 wrong beside 300 answers |" in summary(measured)


def test_a_turn_without_any_answer_is_a_failure() -> None:
    measured = _measured()
    measured[JSON, "peer 1"][1] = _turn(0, 0, requests=0)
    assert [figure.name for figure in figures(measured) if not figure.reached] == [
        "wrong answers, peer 1 (json, 1 connection)"
    ]


def test_fewer_than_a_hundred_requests_have_no_p99() -> None:
    measured = _measured(requests=99)
    assert not [figure.name for figure in figures(measured) if "p99" in figure.name]
    assert "| ours | 130 | +20 | – | +20 |" in summary(measured)


def test_the_summary_has_a_line_per_load_and_arm_and_every_line_has_every_cell() -> None:
    lines = summary(_measured()).splitlines()
    assert len(lines) == 2 + 6
    assert len({line.count("|") for line in lines}) == 1
    assert lines[3] == "| json, 1 connection | ours | 130 | +20 | +40 | +20 | 833 | 0.833 | – |"


def test_a_missing_peer_is_named_with_its_reason() -> None:
    assert notes({"peer 1": "pip failed"})[-1] == "not measured: peer 1: pip failed"


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_mock_and_our_router_are_measured_in_turn() -> None:
    with mock_server() as ports:
        arms = own_arms(ports)
        assert [complaint(arm.port) for arm in arms] == ["", ""]
        measured = measure(arms, [STREAM], PeerOptions(rounds=2, seconds=1))
    assert [len(turns) for turns in measured.values()] == [2, 2]
    for turns in measured.values():
        assert all(turn.run.wrong == 0 and turn.run.requests > 0 and turn.cpu > 0 for turn in turns)
    assert len(figures(measured)) == 4
    assert SETTLE_SECONDS > 0


def test_the_page_takes_the_first_table_of_the_results(tmp_path: Path) -> None:
    (tmp_path / "peers-routers.md").write_text("# peers\n\n| a |\n|---|\n| 1 |\n\n| b |\n")
    place = tmp_path / "page.md"
    place.write_text("before\n<!-- routers -->\nold\n<!-- /routers -->\nafter\n")
    for _ in range(2):
        page.refresh("routers", page=place, folder=tmp_path)
    assert place.read_text() == ("before\n<!-- routers -->\n| a |\n|---|\n| 1 |\n<!-- /routers -->\nafter\n")


def test_the_page_stays_when_nothing_was_measured(tmp_path: Path) -> None:
    place = tmp_path / "page.md"
    place.write_text("no marks")
    page.refresh("routers", page=place, folder=tmp_path)
    assert place.read_text() == "no marks"
    (tmp_path / "peers-routers.md").write_text("| a |\n")
    with pytest.raises(NotFound, match="has no <!-- routers --> and <!-- /routers -->; put both lines"):
        page.refresh("routers", page=place, folder=tmp_path)


@pytest.mark.parametrize("half", HALVES)
def test_the_page_shows_what_was_measured_last(half: str) -> None:
    text = (REPOSITORY / "docs" / "peers.md").read_text()
    begin, end = page.marks(half)
    shown = text.partition(f"{begin}\n")[2].partition(end)[0]
    results = REPOSITORY / "bench-results" / f"peers-{half}.md"
    assert shown == (page.first_table(results.read_text()) if results.exists() else "Not measured yet.\n")
