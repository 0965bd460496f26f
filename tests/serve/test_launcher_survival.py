"""What the machine lacks for a moment does not end the supervisor: real processes, real limits."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests.fakes.launched import Launcher, launched, wait


def limit(launcher: Launcher, kind: int, most: int | None) -> None:
    """Allow the supervisor `most` of a resource, None = as many as it may have."""
    _, hard = resource.prlimit(launcher.process.pid, kind)
    resource.prlimit(launcher.process.pid, kind, (hard if most is None else most, hard))


def kill_engine(launcher: Launcher) -> None:
    os.kill(launcher.groups()[-1], signal.SIGKILL)


def assert_no_traceback(launcher: Launcher) -> None:
    assert not [line for line in launcher.lines if "Traceback" in line or 'File "' in line], launcher.lines


def test_without_any_place_for_a_log_the_engine_runs_and_its_last_words_are_known(tmp_path: Path) -> None:
    (tmp_path / "no-folder").touch()
    with launched(tmp_path / "no-folder", "crash,serve") as launcher:
        launcher.wait_for("all is well")
        launcher.wait_for("the engine's log is kept in memory only")
        launcher.wait_for("the engine ended (exit code 3): RuntimeError: out of luck")
        launcher.wait_for("log in memory only")
        assert_no_traceback(launcher)


def test_a_log_goes_elsewhere_where_its_place_takes_none(tmp_path: Path) -> None:
    (tmp_path / "no-folder").touch()
    with launched(tmp_path / "no-folder", "crash,serve", OTHER_LOGS=str(tmp_path / "other")) as launcher:
        launcher.wait_for("all is well")
        assert "out of luck" in (tmp_path / "other" / "engine-000001.log").read_text()
        launcher.wait_for(f"the engine's log goes to {tmp_path}/other/engine-000001.log")


def test_a_folder_of_logs_that_is_removed_while_the_server_runs_comes_back(tmp_path: Path) -> None:
    with launched(tmp_path / "logs") as launcher:
        launcher.wait_for("all is well")
        shutil.rmtree(tmp_path / "logs")
        assert launcher.get("/shout").status_code == 200
        wait(lambda: any((tmp_path / "logs").glob("engine-*.log")), "a new log")
        kill_engine(launcher)
        launcher.wait_for("all is well", times=2)


def test_a_disk_that_takes_no_more_of_the_log_ends_neither_the_engine_nor_the_launcher(
    tmp_path: Path,
) -> None:
    with launched(tmp_path / "logs") as launcher:
        launcher.wait_for("all is well")
        limit(launcher, resource.RLIMIT_FSIZE, 1000)
        for _ in range(3):
            assert launcher.get("/shout").status_code == 200
        launcher.wait_for("the engine's log cannot be written to")
        kill_engine(launcher)
        launcher.wait_for("all is well", times=2)
        assert launcher.get("/").status_code == 200
        assert_no_traceback(launcher)


def test_a_standard_output_without_a_reader_is_no_reason_to_end(tmp_path: Path) -> None:
    """`wardrobe serve | head -1`."""
    with launched(tmp_path, closed_stdout=True) as launcher:
        launcher.wait_for("the standard output has no reader any more")
        launcher.wait_for("all is well")
        kill_engine(launcher)
        launcher.wait_for("all is well", times=2)
        assert launcher.get("/").status_code == 200
        launcher.process.terminate()
        assert launcher.process.wait(20) == 0
        assert_no_traceback(launcher)


def test_a_reader_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    with launched(tmp_path, unread_stdout=True) as launcher:
        wait(lambda: launcher.status("/readyz") == 200, "it is ready")
        first = launcher.get("/").text
        os.kill(int(first), signal.SIGKILL)
        wait(lambda: launcher.status("/readyz") == 200 and launcher.get("/").text != first, "the next one")


def test_without_descriptors_it_waits_and_goes_on_when_there_are_some(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        launcher.wait_for("all is well")
        limit(launcher, resource.RLIMIT_NOFILE, 4)
        kill_engine(launcher)
        launcher.wait_for("Too many open files; trying again")
        limit(launcher, resource.RLIMIT_NOFILE, None)
        launcher.wait_for("all is well", times=2)
        assert launcher.get("/").status_code == 200
        assert_no_traceback(launcher)


def test_without_memory_it_waits_and_goes_on_when_there_is_some(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        launcher.wait_for("all is well")
        limit(launcher, resource.RLIMIT_AS, 1)
        kill_engine(launcher)
        launcher.wait_for("log in memory only")  # no thread has memory to begin with
        limit(launcher, resource.RLIMIT_AS, None)
        launcher.wait_for("all is well", times=2)
        assert launcher.get("/").status_code == 200
        assert_no_traceback(launcher)


def test_a_program_that_is_missing_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """An environment that is being upgraded in place."""
    program = tmp_path / "python"
    with launched(tmp_path / "logs", PROGRAM=str(program)) as launcher:
        launcher.wait_for("No such file or directory")
        assert launcher.get("/livez").status_code == 200
        assert launcher.get("/readyz").status_code == 503
        program.symlink_to(sys.executable)
        launcher.wait_for("starting the engine")


@pytest.mark.parametrize("descriptors", ["1", "012"])
def test_closed_standard_descriptors_are_no_place_for_a_socket(tmp_path: Path, descriptors: str) -> None:
    """`wardrobe serve >&-`: what the engine prints must not reach a client."""
    with launched(tmp_path / "logs", closed=descriptors) as launcher:
        wait(lambda: launcher.status("/readyz") == 200, "it is ready")
        assert launcher.get("/shout").text == "said"
        assert launcher.get("/log").text == "said"
        os.kill(int(launcher.get("/").text), signal.SIGKILL)
        wait(lambda: launcher.status("/readyz") == 200, "it is ready again")


def test_streams_go_on_while_the_launcher_has_no_descriptors(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        launcher.wait_for("all is well")
        limit(launcher, resource.RLIMIT_NOFILE, 4)
        with httpx.stream("GET", launcher.url + "/stream?chunks=5&seconds=0.05", timeout=20) as stream:
            assert len(stream.read()) == 5
        limit(launcher, resource.RLIMIT_NOFILE, None)
