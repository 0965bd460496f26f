"""The guide "Bring your data and config": its commands run, and print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.train.tiny import make_tiny_base

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "bring-your-data.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Sentences of the guide's outputs that do not depend on the base or on the order of lines.
SHOWN = (
    "row 1 is prompt/completion (question: frage, answer: antwort)",
    "warning D-DUPLICATE  the row repeats another: 1 ×; keep one",
    '{"row": 41, "rule": "D-DUPLICATE", "action": "dropped", "of": 1}',
    "faq.jsonl: 40 of 42 rows",
    "nothing that is learnt depends on base_model, flash_attention",
    "held out: 4 of 40 rows (share 0.1, 40 sets of like rows): 4 of faq",
    "steps       5 (1 epoch of 5 steps)",
    "warm-up     2 steps",
)


@pytest.mark.training
def test_the_commands_of_the_guide_run_and_print_what_it_shows(tmp_path: Path, tokenizer: Any) -> None:
    text = GUIDE.read_text()
    scripts = [body for language, body in BLOCK.findall(text) if language == "bash"]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BASE": str(make_tiny_base(tmp_path / "base", tokenizer)),
        "WARDROBE_ROOT": str(tmp_path / "root"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-euc", "\n".join(scripts)],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for line in SHOWN:
        assert line in text
        assert line in done.stdout
    assert "faq@1" in done.stdout
