"""The checks that a user runs on a deployment, run here on fake replicas; the scripts, read by a linter."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.verify.__main__ import main
from deploy.verify.fleet import Fleet
from deploy.verify.load import StreamResult
from loadtests.live import free_port
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.replicas import Replica, chat, paced, read_stream, replicas, wait_until
from tests.fakes.served import make_root, publish

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SCRIPTS = sorted(DEPLOY.rglob("*.sh"))
WARDROBE = (str(Path(sys.executable).with_name("wardrobe")),)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return make_root(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def two(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Two replicas that nobody kills: they take seconds to start."""
    publish(registry, tmp_path_factory.mktemp("support"), "support", seed=1)
    with replicas(registry.root, 2) as running:
        yield running


@pytest.fixture
def fleet(two: list[Replica], tmp_path: Path) -> Fleet:
    folder = make_adapter(tmp_path / "adapter", seed=3)
    return Fleet([one.url for one in two], "", "verify", folder, patience_seconds=20, wardrobe=WARDROBE)


def test_replicas_over_one_root_keep_every_promise(fleet: Fleet, registry: Registry) -> None:
    found = list(fleet.check())
    assert [finding.kept for finding in found] == [True] * 4, found
    assert len(registry.versions("verify")) == 2
    assert registry.aliases("verify")["stable"] == 1


def test_a_replica_with_a_root_of_its_own_is_found_out(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with replicas(make_root(tmp_path / "other").root, 1) as [stranger]:
        urls = [fleet.urls[0], stranger.url]
        found = list(replace(fleet, urls=urls, adapter="torn", patience_seconds=3).check())
    assert [(finding.kept, finding.seen) for finding in found][1:] == [(False, "never")]


def test_a_replica_that_is_away_is_named_also_as_json(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    urls = [word for url in (fleet.urls[0], away) for word in ("--replica", url)]
    assert main(["fleet", *urls, "--adapter", str(fleet.folder), "--json"]) == 1
    [finding] = json.loads(capsys.readouterr().out)
    assert finding == {"promise": "every replica is ready", "kept": False, "seen": f"not ready: {away}"}


def test_a_command_that_is_not_there_is_named_and_not_a_crash(fleet: Fleet) -> None:
    [_, finding] = replace(fleet, wardrobe=("no-such-command",)).check()
    assert not finding.kept
    assert "no-such-command" in finding.seen


def test_a_load_over_healthy_replicas_fails_nobody(
    two: list[Replica], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wait_until(lambda: chat(two[0].url).status_code == 200, "it is served")
    stop = tmp_path / "stop"
    threading.Timer(1.0, stop.touch).start()
    assert main(["load", "--url", two[0].url, "--model", "support", "--stop-file", str(stop)]) == 0
    assert "0 failed" in capsys.readouterr().out


def test_a_load_whose_replica_dies_says_how_many_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", seed=1)
    with replicas(registry.root, 1) as [one]:
        wait_until(lambda: chat(one.url).status_code == 200, "it is served")
        threading.Timer(0.7, one.kill).start()
        assert main(["load", "--url", one.url, "--model", "support", "--seconds", "1.5"]) == 1
    assert "ConnectError" in capsys.readouterr().out


def test_a_load_for_an_unknown_adapter_repeats_what_the_server_says(
    two: list[Replica], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", "--url", two[0].url, "--model", "nobody", "--seconds", "0.1"]) == 1
    assert "'status 404'" in (told := capsys.readouterr().out)
    assert "model_not_found" in told


def test_a_stream_says_when_it_began_which_session_it_was_and_by_which_id_it_was_answered(
    two: list[Replica],
) -> None:
    wait_until(lambda: chat(two[0].url).status_code == 200, "it is served")
    before = time.time()
    stream = read_stream(two[0].url, "s1", **paced(2, 0.01))
    assert before <= stream.began <= time.time()
    assert (stream.session, stream.arm) == ("s1", "stable")
    assert ".support@1.s." in stream.id


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (StreamResult(status=200, text="data: {}\n\ndata: [DONE]\n\n"), ""),
        (StreamResult(status=200, text="data: {}\n\n"), "no closing event"),
        (StreamResult(status=200, text='data: {"error": {}}\n\ndata: [DONE]\n\n'), "an error event"),
        (StreamResult(status=503), "status 503"),
        (StreamResult(error="ReadError"), "ReadError"),
    ],
)
def test_a_stream_is_whole_or_has_a_fault(stream: StreamResult, fault: str) -> None:
    assert (stream.whole, stream.fault) == (fault == "", fault)


def test_there_are_scripts_to_read() -> None:
    assert {path.name for path in SCRIPTS} >= {"cluster.sh", "docker.sh", "setup.sh", "start.sh"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_the_linter_finds_nothing_in_a_script(script: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert script.stat().st_mode & 0o111, "is not executable"
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("name", ["cluster.sh", "docker.sh"])
def test_a_script_says_how_it_is_used(name: str) -> None:
    done = subprocess.run([DEPLOY / "verify" / name], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["fleet", "--replica", "10.0.0.1:8000", "--adapter", "."], "does not begin with http://"),
        (["fleet", "--replica", "http://10.0.0.1:8000", "--adapter", "nowhere"], "is no PEFT folder"),
        (["load", "--url", "localhost:8000", "--model", "support"], "does not begin with http://"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_asked(
    arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert fact in capsys.readouterr().err
