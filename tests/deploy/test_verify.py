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
from deploy.verify.load import Stream
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.replicas import Replica, chat, paced, read_stream, replicas, wait_until
from tests.fakes.served import make_root, publish

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SCRIPTS = sorted(DEPLOY.rglob("*.sh"))
WARDROBE = (str(Path(sys.executable).with_name("wardrobe")),)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_root(tmp_path)


@pytest.fixture
def two(registry: Registry) -> Iterator[list[Replica]]:
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


def test_a_replica_with_a_root_of_its_own_is_found_out(two: list[Replica], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with replicas(make_root(tmp_path / "other").root, 1) as [stranger]:
        folder = make_adapter(tmp_path / "adapter", seed=3)
        urls = [two[0].url, stranger.url]
        found = list(Fleet(urls, "", "verify", folder, patience_seconds=3, wardrobe=WARDROBE).check())
    assert [(finding.kept, finding.seen) for finding in found][1:] == [(False, "never")]


def test_a_replica_that_is_away_is_named(two: list[Replica], fleet: Fleet) -> None:
    two[1].kill()
    [finding] = fleet.check()
    assert not finding.kept
    assert two[1].url in finding.seen


def test_a_load_over_healthy_replicas_fails_nobody(
    two: list[Replica], registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(registry, tmp_path, "support", seed=1)
    wait_until(lambda: chat(two[0].url).status_code == 200, "it is served")
    stop = tmp_path / "stop"
    threading.Timer(1.0, stop.touch).start()
    assert main(["load", "--url", two[0].url, "--model", "support", "--stop-file", str(stop)]) == 0
    assert "0 failed" in capsys.readouterr().out


def test_a_load_whose_replica_dies_says_how_many_failed(
    two: list[Replica], registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(registry, tmp_path, "support", seed=1)
    wait_until(lambda: chat(two[0].url).status_code == 200, "it is served")
    threading.Timer(0.7, two[0].kill).start()
    assert main(["load", "--url", two[0].url, "--model", "support", "--seconds", "1.5"]) == 1
    assert "ConnectError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (Stream(status=200, text="data: {}\n\ndata: [DONE]\n\n"), ""),
        (Stream(status=200, text="data: {}\n\n"), "no closing event"),
        (Stream(status=200, text='data: {"error": {}}\n\ndata: [DONE]\n\n'), "an error event"),
        (Stream(status=503), "status 503"),
        (Stream(error="ReadError"), "ReadError"),
    ],
)
def test_a_stream_is_whole_or_has_a_fault(stream: Stream, fault: str) -> None:
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


def test_what_was_found_is_also_printed_as_json(
    two: list[Replica], fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    two[1].kill()
    urls = [word for one in two for word in ("--replica", one.url)]
    assert main(["fleet", *urls, "--adapter", str(fleet.folder), "--json"]) == 1
    [finding] = json.loads(capsys.readouterr().out)
    assert (finding["promise"], finding["kept"]) == ("every replica is ready", False)


def test_a_command_that_is_not_there_is_named_and_not_a_crash(fleet: Fleet) -> None:
    [_, finding] = replace(fleet, wardrobe=("no-such-command",)).check()
    assert not finding.kept
    assert "no-such-command" in finding.seen


def test_a_stream_says_when_it_began_which_session_it_was_and_by_which_id_it_was_answered(
    two: list[Replica], registry: Registry, tmp_path: Path
) -> None:
    publish(registry, tmp_path, "support", seed=1)
    wait_until(lambda: chat(two[0].url).status_code == 200, "it is served")
    before = time.time()
    stream = read_stream(two[0].url, "s1", **paced(2, 0.01))
    assert before <= stream.began <= time.time()
    assert (stream.session, stream.arm) == ("s1", "stable")
    assert ".support@1.s." in stream.id
