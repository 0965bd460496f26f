"""A thousand versions: how many fit, who is asked how often, and when."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp

from loadtests.bench.peers.engines.spread import ATTENTION
from loadtests.bench.thousand import (
    FIXED_BYTES,
    ThousandBench,
    available_bytes,
    how_many,
    options,
    publish_all,
    server_bytes,
    version_bytes,
)
from registry import Registry
from registry.records import Limits
from tests.fakes.base import SMOLLM2, base_record, make_base
from tests.fakes.llm_server import llm_server


def test_a_version_takes_its_matrices_twice_and_as_many_fit_as_memory_holds(tmp_path: Path) -> None:
    base = base_record(make_base(tmp_path / "base", SMOLLM2), SMOLLM2)
    shapes = [dims for name, dims in base.modules.items() if name.rpartition(".")[2] in ATTENTION]
    assert shapes
    assert version_bytes(base, 8, ATTENTION) == 2 * 2 * 8 * sum(map(sum, shapes))
    assert how_many(1024, FIXED_BYTES + 10 * 2**20, 2**20) == 10
    assert how_many(1024, FIXED_BYTES + 2**40, 2**20) == 1024
    assert how_many(1024, 0, 2**20) == 1
    assert available_bytes("MemTotal: 9 kB\nMemAvailable:   2048 kB\n") == 2**21


def test_many_are_asked_by_zipf_and_one_is_asked_as_often_at_the_same_times() -> None:
    names = [f"fast-{place}" for place in range(64)]

    async def go(url: str) -> tuple[Counter[str], list[str]]:
        async with aiohttp.ClientSession() as session:
            bench = ThousandBench(url, session, names)
            asked = Counter(question.model for question in bench.asked(4_000, 1, many=True))
            run = await bench.open(200.0, 0.1, 2, many=False)
            return asked, [reply.model for reply in run.replies]

    with llm_server(*names) as (url, _):
        asked, one = asyncio.run(go(url))
    assert one == ["fast-0"] * 20
    assert 1.6 < asked["fast-0"] / asked["fast-1"] < 2.5
    assert len(asked) > 50


def test_every_version_has_a_slot_and_other_weights(tmp_path: Path) -> None:
    registry = Registry.init(
        tmp_path / "root", make_base(tmp_path / "base", SMOLLM2), limits=Limits(max_lora_rank=8)
    )
    names = publish_all(registry, tmp_path / "made", 3)
    assert names == ["tenant-0000", "tenant-0001", "tenant-0002"]
    assert len({registry.version(name, 1).digest for name in names}) == 3
    asked = options(3)
    assert asked[asked.index("--max-loras") + 1] == asked[asked.index("--max-cpu-loras") + 1] == "3"
    assert server_bytes(1 << 22) == 0
