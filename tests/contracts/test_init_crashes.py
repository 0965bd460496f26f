"""`wardrobe init` that is killed at any step: run again it goes on, and until then every verb says so."""

from __future__ import annotations

from pathlib import Path

from registry.storage import files
from registry.store import Registry
from tests.contracts.crashing import kill_at
from tests.fakes.base import make_base
from tests.fakes.store import with_reserve
from tests.fakes.terminal import Terminal


def test_an_init_that_was_killed_at_any_step_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    base = make_base(tmp_path / "tiny")
    steps: list[str] = []
    with files.watch_steps(steps.append):
        Registry.init(with_reserve(tmp_path / "whole"), base)
    assert len(steps) >= 12
    for index, label in enumerate(steps):
        root = with_reserve(tmp_path / f"killed-{index}")
        kill_at(index, lambda root=root: Registry.init(root, base))  # type: ignore[misc]
        wardrobe = Terminal(("--root", str(root)))
        whole = (root / "layout.json").exists()
        before = wardrobe("list")
        assert before.code == (0 if whole else 1), label
        assert whole or "wardrobe init --base PATH" in before.err, label
        if not whole and (root / "changes").exists():
            assert "has no layout.json, which `wardrobe init` writes last" in before.err, label
        again = wardrobe.ok("init", "--base", base)
        assert "held other things" not in again.err, label
        assert wardrobe.ok("--json", "list").json == [], label
        assert Registry.open(root).base == Registry.open(tmp_path / "whole").base, label


def test_what_is_not_an_inits_own_is_still_told_of(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "adapters").mkdir(parents=True)
    (root / "notes.txt").write_text("mine")
    done = Terminal(("--root", str(root))).ok("init", "--base", make_base(tmp_path / "tiny"))
    assert "held other things already, which stay beside the root's files: notes.txt" in done.err
