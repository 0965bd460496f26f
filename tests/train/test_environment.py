"""A training process gets its libraries once, and never loses what the user preloaded."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from train.process import environment


def test_what_the_user_preloads_stays_and_ours_comes_first() -> None:
    found = environment.environment({"LD_PRELOAD": "/opt/mine.so"})
    names = found["LD_PRELOAD"].split(":")
    assert names[-1] == "/opt/mine.so"
    assert names[:-1] == [str(path) for path in environment.preloads()]


def test_a_library_that_is_preloaded_already_is_not_preloaded_twice() -> None:
    for path in environment.preloads():
        found = environment.environment({"LD_PRELOAD": f"/elsewhere/{path.name}"})
        assert found["LD_PRELOAD"].count(path.name) == 1


def test_the_hub_is_off_unless_the_user_says_otherwise() -> None:
    assert environment.environment({})["HF_HUB_OFFLINE"] == "1"
    assert environment.environment({"HF_HUB_OFFLINE": "0"})["HF_HUB_OFFLINE"] == "0"


def test_a_process_is_replaced_once_by_the_same_command_with_the_same_id(tmp_path: Path) -> None:
    if not environment.preloads():
        pytest.skip("neither tcmalloc nor libiomp5 is here")
    script = tmp_path / "command.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys
        from train.process.environment import replace_process
        print(os.getpid(), sys.argv[1:], os.environ.get("LD_PRELOAD", ""), flush=True)
        replace_process()
        """)
    )
    inherited = {
        name: value for name, value in os.environ.items() if name not in {"LD_PRELOAD", environment.DONE}
    }
    done = subprocess.run(
        [sys.executable, str(script), "one", "two three"],
        env=inherited,
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = done.stdout.splitlines()
    assert before.split()[0] == after.split()[0]
    assert "['one', 'two three']" in after
    assert before.endswith("] ")
    assert after.endswith(":".join(str(path) for path in environment.preloads()))
