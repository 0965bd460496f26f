"""A real store for every test that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.store import Registry
from tests.fakes.store import make_registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)
