from __future__ import annotations

import re
from pathlib import Path

import pytest

from registry.store import Registry
from tests.checkout import REGISTRY_ROOMS
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base

README = Path(__file__).resolve().parents[2] / "registry" / "README.md"


def test_the_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    registry = Registry.init(tmp_path / "wardrobe-data", make_base(tmp_path / "base"))
    registry.publish("support", make_adapter(tmp_path / "first", seed=1), who="ben")
    make_adapter(tmp_path / "my-lora", seed=2)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert getattr(names["version"], "name", None) == "support@1"
    assert getattr(names["published"], "created", None) is True


def test_the_tables_of_modules_name_every_module() -> None:
    count = 0
    for room in (README.parent, *(README.parent / room for room in REGISTRY_ROOMS)):
        table = (room / "README.md").read_text().partition("## Invariants")[0]
        modules = {path.stem for path in room.glob("*.py")} - {"__init__"}
        count += len(modules)
        assert {name for name in modules if not re.search(rf"`{name}(\.py)?`", table)} == set()
    assert count > 50
