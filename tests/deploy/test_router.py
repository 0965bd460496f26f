"""The real Rust vllm-router, started by our script, in front of fake replicas over one root.

Two real engines take minutes to start, and to come back after a kill, on two cores: `make drills` runs those
(loadtests/drills/balancers.py). A fake replica is the real router over the real root, in a process that can
be killed and drained like a real one, so here everything runs but the model.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadtests.live import free_port
from registry.store import Registry
from tests.fakes.replicas import (
    Load,
    Replica,
    chat,
    paced,
    read_stream,
    replicas,
    start_replica,
    status,
    wait_until,
)
from tests.fakes.served import make_root, publish

pytestmark = pytest.mark.slow

START = Path(__file__).resolve().parents[2] / "deploy" / "router" / "start.sh"


@contextlib.contextmanager
def router(behind: list[Replica], policy: str = "cache_aware") -> Iterator[str]:
    """Run the router and give its URL; it takes requests when the block begins."""
    port = free_port()
    environment = {
        **os.environ,
        "PORT": str(port),
        "METRICS_PORT": str(free_port()),
        "POLICY": policy,
        "VLLM_ROUTER": str(Path(sys.executable).with_name("vllm-router")),
    }
    process = subprocess.Popen(
        [str(START), *(one.url for one in behind)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: status(url, "/v1/models") == 200, "the router answers")
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_root(tmp_path)


def test_what_is_registered_once_is_served_by_every_replica_and_the_router(
    registry: Registry, tmp_path: Path
) -> None:
    with replicas(registry.root, 2) as two, router(two) as url:
        assert chat(url).status_code == 404
        publish(registry, tmp_path, "support", seed=1)
        for one in (*(replica.url for replica in two), url):
            wait_until(lambda one=one: chat(one).status_code == 200, f"{one} serves it")  # type: ignore[misc]
        assert chat(url).headers["x-wardrobe-adapter"] == "support@1"
        assert status(url, "/readyz") == status(url, "/livez") == 200
        assert "access-control-allow-origin" not in chat(url).headers


def test_a_stream_comes_through_piece_by_piece(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "support", seed=1)
    with replicas(registry.root, 2) as two, router(two) as url:
        stream = read_stream(url, **paced(5, 0.05))
    assert stream.whole
    assert stream.pieces >= 5


def test_streams_without_a_session_are_spread_by_load(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "support", seed=1)
    with replicas(registry.root, 2) as two, router(two) as url, ThreadPoolExecutor(24) as pool:
        streams = list(pool.map(lambda _: read_stream(url, **paced(10, 0.1)), range(24)))
    assert all(stream.whole for stream in streams)
    assert {stream.replica for stream in streams} == {"r0", "r1"}


def test_with_consistent_hash_a_session_stays_where_it_is_until_its_replica_dies(
    registry: Registry, tmp_path: Path
) -> None:
    publish(registry, tmp_path, "support", seed=1)
    with replicas(registry.root, 2) as two, router(two, "consistent_hash") as url:
        sessions = [f"session-{number}" for number in range(16)]
        first = {one: chat(url, one).headers["x-replica"] for one in sessions}
        assert {chat(url, one).headers["x-replica"] for one in sessions} == {"r0", "r1"}
        assert {one: chat(url, one, turn=2).headers.get("x-replica") for one in sessions} == first
        two[0].kill()
        assert {chat(url, one).headers["x-replica"] for one in sessions} == {"r1"}


def test_when_a_replica_dies_only_what_it_was_answering_fails(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "support", seed=1)
    with replicas(registry.root, 2) as two, router(two, "consistent_hash") as url:
        with Load(url) as load:
            load.wait(8)
            two[0].kill()
            load.wait(24)
        assert len(load.failed()) <= load.clients, load.failed()
        assert {stream.replica for stream in load.failed()} <= {"r0"}
        assert load.by_replica()["r1"] >= 20


def test_a_replica_that_drains_costs_nobody_an_answer_and_its_successor_is_used(
    registry: Registry, tmp_path: Path
) -> None:
    publish(registry, tmp_path, "support", seed=1)
    with replicas(registry.root, 2) as two, router(two, "consistent_hash") as url:
        with Load(url) as load:
            load.wait(8)
            two[0].drain()
            two[0].process.wait(20)
            load.wait(8)
            port = int(two[0].url.rpartition(":")[2])
            assert two[0].process.stdout is not None
            two[0].process.stdout.close()
            two[0] = start_replica(registry.root, "r0-again", port)
            wait_until(lambda: load.by_replica()["r0-again"] >= 4, "the successor answers")
        assert load.failed() == []


@pytest.mark.parametrize("arguments", [[], ["replica:8000"], ["--", "--policy", "random"]])
def test_the_script_says_how_it_is_used(arguments: list[str]) -> None:
    done = subprocess.run([START, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage:" in done.stderr
