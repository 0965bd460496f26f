"""The fake engine keeps the contract that the real one is held to in tests/e2e."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from registry.errors import NotServable
from tests.contracts.engine import EngineContract
from tests.contracts.engine import folders as folders  # noqa: PLC0414 - a fixture, used by name
from tests.fakes.engine import FakeEngine


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine()


class TestFakeEngine(EngineContract):
    """The fake keeps the contract."""


def test_a_dead_fake_engine_refuses_everything(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.die()
    assert not engine.alive()
    with pytest.raises(NotServable, match="dead"):
        asyncio.run(engine.load("one", tmp_path))
