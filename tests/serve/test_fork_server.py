"""What a fork server makes: in whose environment, and with whom it dies. No vLLM is imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from serve.engine import fork_server, machine
from serve.engine.environment import SUPERVISED_VARIABLE
from serve.engine.machine import HostFacts
from tests.fakes.replicas import wait_until
from tests.serve.test_lifetime import wait_until_alone

CPU = HostFacts(accelerator=False, cores=(0, 1), memory_bytes=2**30, libraries=())
GPU = HostFacts(accelerator=True, cores=(0, 1), memory_bytes=2**30, libraries=())

# The first asks the fork server for a second, as vLLM's engine does for its worker.
PROGRAM = """
import os, sys
from multiprocessing import forkserver
from serve.engine import fork_server
from tests.serve.fork_server_tree import first

def main():
    forkserver.set_forkserver_preload(["tests.serve.fork_server_tree"])
    forkserver.ensure_running()
    os.environ["AFTER"] = "set after the server"
    del os.environ["BEFORE"]
    process = fork_server.EngineProcessContext().Process(target=first, args=(sys.argv[1],))
    process.start()
    process.join()
    sys.exit(process.exitcode)

if __name__ == "__main__":
    main()
"""


def start(folder: Path, act: str) -> subprocess.Popen[bytes]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, SUPERVISED_VARIABLE: "1", "BEFORE": "1", "ACT": act}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, str(program), str(folder / "said.txt")], env=environment, start_new_session=True
    )


def said(folder: Path, lines: int) -> list[str]:
    """Return what the processes wrote, once there are so many lines."""
    path = folder / "said.txt"
    path.touch()
    wait_until(lambda: len(path.read_text().splitlines()) >= lines, f"{lines} processes say who they are")
    return path.read_text().splitlines()


def test_both_have_one_server_and_the_variables_of_who_started_them(tmp_path: Path) -> None:
    process = start(tmp_path, "end")
    assert process.wait(60) == 3, "the exit code of the second, passed on"
    first, second = (line.split(",") for line in said(tmp_path, 2))
    assert first[1] == second[1], "the fork server started both"
    assert first[2:] == ["set after the server", "", "False"]
    assert second[2:] == ["set by the first", "", "False"]


@pytest.mark.parametrize("victim", ["asks", "first", "server"])
def test_all_die_with_any_of_those_they_depend_on(tmp_path: Path, victim: str) -> None:
    process = start(tmp_path, "stay")
    first, server = said(tmp_path, 2)[0].split(",")[:2]
    os.kill({"asks": process.pid, "first": int(first), "server": int(server)}[victim], signal.SIGKILL)
    process.wait(60)
    assert wait_until_alone(process.pid, 20)


@pytest.mark.parametrize(
    ("setting", "host", "release", "preloaded"),
    [
        ("off", CPU, machine.TESTED_RELEASE, "libiomp5.so"),
        ("auto", GPU, machine.TESTED_RELEASE, "libiomp5.so"),
        ("auto", CPU, "0.1", "libiomp5.so"),
        ("auto", CPU, machine.TESTED_RELEASE, "libgomp.so"),
    ],
)
def test_vllm_starts_its_processes_itself_where_they_are_not_to_be_forked(
    setting: str, host: HostFacts, release: str, preloaded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started() -> None:
        raise AssertionError("a fork server was started")

    monkeypatch.setenv("LD_PRELOAD", preloaded)
    monkeypatch.setattr(machine, "TESTED_RELEASE", release)
    monkeypatch.setattr(forkserver, "ensure_running", started)
    assert not fork_server.start(setting, host)


def test_it_is_started_on_a_cpu_with_the_release_and_the_openmp_that_it_is_tested_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc.so:/venv/lib/libiomp5.so")
    monkeypatch.setattr(forkserver, "set_forkserver_preload", begun.extend)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: begun.append("running"))
    assert fork_server.start("auto", CPU)
    assert begun == ["serve.engine.fork_server_imports", "running"]
