"""`wardrobe train prove` from the outside: light to ask about, and clear where it cannot begin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fakes.store import make_registry, put
from tests.fakes.terminal import Terminal


def test_help_loads_nothing_heavy_and_names_both_proofs() -> None:
    code = (
        "import sys\nfrom registry.cli.main import run\nrun(['train', 'prove', '--help'])\n"
        "print([name for name in ('numpy', 'torch', 'httpx', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "`parity`" in done.stdout
    assert "`tokens`" in done.stdout


def test_mistakes_are_named_before_anything_is_loaded(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    put(registry)
    terminal = Terminal(("--root", str(registry.root)))
    assert terminal("train", "prove", "support").code == 2
    alone = terminal("train", "prove", "support@1")
    assert "--offline" not in alone.err, "an option that this command has not"
    assert alone.code == 2
    assert "start `wardrobe serve`, or give --url" in alone.err
    url = ("--url", "http://127.0.0.1:1")
    assert "there is no support@9" in terminal(*url, "train", "prove", "support@9").err
    elsewhere = Terminal(("--root", str(tmp_path / "none")))(*url, "train", "prove", "support@1")
    assert "is not a Wardrobe root" in elsewhere.err
