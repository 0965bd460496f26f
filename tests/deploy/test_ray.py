"""Real Ray Serve with fake replicas over one root; Ray lives in an environment of its own under .cache.

`make setup` does not install Ray: 490 MB that only this deployment needs. The first run of these tests does.
Two real engines under Ray take minutes to start and to come back on two cores: `make drills` runs those.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.ray import environment
from deploy.ray.__main__ import main
from deploy.ray.child import without_ray
from deploy.ray.options import RayOptions
from deploy.verify.load import StreamResult
from loadtests.live import command_line, descendants, free_port, is_alive
from registry.store import Registry
from tests.fakes.replicas import Load, chat, paced, question, read_stream, status, wait_until
from tests.fakes.served import make_root, publish
from tests.isolation import outside

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_AT_ONCE = 8
FAKE = f"{sys.executable} -m tests.fakes.replica"


@pytest.fixture(scope="session")
def ray_python() -> Path:
    with outside():  # where it is not made yet, pip fetches it
        return environment.ray_python()


@dataclass
class Running:
    """A running application."""

    url: str
    process: subprocess.Popen[bytes]
    registry: Registry

    def processes(self, words: str) -> list[int]:
        """Return the processes below whose command line begins with what `words` say, by their age."""
        below = sorted(descendants(self.process.pid))
        return [
            pid for pid in below if words in command_line(pid) and "parent_death" not in command_line(pid)
        ]

    def replicas(self) -> list[int]:
        """Return the processes of the fake replicas."""
        return self.processes("-m tests.fakes.replica")

    def urls(self) -> list[str]:
        """Return the addresses of the replicas that live."""
        beats = [beat.url for beat, live in self.registry.replicas() if live]
        return [url for url in beats if status(url, "/livez") == 200]

    def metric(self, name: str, words: str = "") -> float:
        """Return the sum, over all replicas, of the samples of `name` whose labels hold `words`."""
        lines = [line for url in self.urls() for line in httpx.get(url + "/metrics").text.splitlines()]
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{") and words in line)


@pytest.fixture(scope="module")
def running(ray_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two replicas under Ray; they are ready."""
    folder = tmp_path_factory.mktemp("ray")
    registry = make_root(folder)
    publish(registry, folder, "support", seed=1)
    port = free_port()
    command = [str(ray_python), "-m", "deploy.ray", "--root", str(registry.root), "--port", str(port)]
    limits = ["--cpus-per-replica", "0.1", "--max-ongoing", str(MOST_AT_ONCE)]
    home = folder / "home"
    home.mkdir()
    said = folder / "said.txt"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--command", FAKE, *limits, "--drain-seconds", "5"],
            env={**os.environ, "HOME": str(home)},
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    running = Running(f"http://127.0.0.1:{port}", process, registry)
    try:
        # It answers some moments before it says so; a stop in between is one of a start, and cuts.
        wait_until(lambda: "ready on" in said.read_text(), "it says that it is ready", seconds=300)
        wait_until(lambda: status(running.url, "/readyz") == 200, "a replica is ready", seconds=300)
        wait_until(lambda: len(running.urls()) == 2, "both replicas live", seconds=60)
        yield running
    finally:
        process.terminate()
        process.wait(60)


def test_a_request_is_answered_as_by_the_replica_itself(running: Running) -> None:
    answer = chat(running.url)
    assert answer.status_code == 200
    assert answer.headers["x-wardrobe-adapter"] == "support@1"
    assert answer.headers["x-wardrobe-arm"] == "stable"
    assert len(answer.headers.get_list("x-request-id", split_commas=True)) == 1
    assert chat(running.url, model="nobody").json()["error"]["code"] == "model_not_found"
    for path in ("/docs", "//v1/models", "/%76%31/models", "/invocations"):
        assert status(running.url, path) == 404, path


def test_a_stream_comes_through_piece_by_piece(running: Running) -> None:
    stream = read_stream(running.url, **paced(5, 0.1))
    assert stream.whole
    assert stream.pieces >= 5


def test_a_body_that_is_too_long_is_refused_at_the_door(running: Running) -> None:
    answer = httpx.post(running.url + "/v1/chat/completions", content=b"x" * (33 * 1024**2), timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_client_that_leaves_is_gone_for_the_replica_too(running: Running) -> None:
    def cancelled() -> float:
        return running.metric("wardrobe_inference_requests_total", 'outcome="cancelled"')

    before = cancelled()
    body = question(**paced(600, 0.1))
    with httpx.stream("POST", running.url + "/v1/chat/completions", json=body, timeout=30) as answer:
        next(answer.iter_raw())
    wait_until(lambda: cancelled() == before + 1, "the replica books it as cancelled")


def test_what_is_registered_later_is_served_by_every_replica(running: Running, tmp_path: Path) -> None:
    before = running.replicas()
    publish(running.registry, tmp_path, "late", seed=2)
    for url in (*running.urls(), running.url):
        wait_until(lambda url=url: chat(url, model="late").status_code == 200, f"{url} serves it")  # type: ignore[misc]
    assert running.replicas() == before, "no replica was restarted for it"


def test_when_a_replica_dies_only_what_it_was_answering_fails_and_another_takes_its_place(
    running: Running,
) -> None:
    with Load(running.url) as load:
        load.wait(8)
        known = set(load.by_replica())
        os.kill(running.replicas()[0], signal.SIGKILL)
        wait_until(lambda: set(load.by_replica()) - known, "another replica answers", seconds=90)
    assert len(load.failed()) <= load.clients, load.failed()
    assert all("engine_lost" in stream.text for stream in load.failed()), load.failed()


def test_when_an_actor_dies_its_replica_goes_with_it(running: Running) -> None:
    wait_until(lambda: len(running.replicas()) == 2, "both replicas run", seconds=60)
    replicas = running.replicas()
    with Load(running.url) as load:
        load.wait(8)
        known = set(load.by_replica())
        os.kill(running.processes("ServeReplica:wardrobe:RayReplica")[0], signal.SIGKILL)
        wait_until(lambda: not all(map(is_alive, replicas)), "its process has ended", seconds=60)
        wait_until(lambda: set(load.by_replica()) - known, "another replica answers", seconds=90)
    assert len(load.failed()) <= load.clients, load.failed()
    assert all("engine_lost" in stream.text for stream in load.failed()), load.failed()
    wait_until(lambda: len(running.replicas()) == 2, "two replicas are left", seconds=60)


def test_a_rolling_restart_replaces_every_replica_and_fails_no_stream(running: Running) -> None:
    wait_until(lambda: len(running.replicas()) == 2, "both replicas run", seconds=60)
    before = set(running.replicas())
    with Load(running.url) as load:
        load.wait(4)
        running.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: not any(map(is_alive, before)), "both have ended", seconds=90)
        wait_until(lambda: len(running.urls()) == 2, "their successors live", seconds=60)
        load.wait(8)
    assert load.failed() == []


def test_an_adapters_requests_go_to_the_replica_that_holds_it(running: Running, tmp_path: Path) -> None:
    """Of more adapters than a replica has places; the first ones were loaded while they still fitted."""
    wait_until(lambda: len(running.urls()) == 2, "both replicas live", seconds=60)
    names = [f"held-{number}" for number in range(6)]
    for seed, name in enumerate(names, 10):
        publish(running.registry, tmp_path, name, seed=seed)
    for name in names[-2:]:
        for url in running.urls():
            wait_until(lambda url=url, name=name: _lists(url, name), f"{url} knows {name}")  # type: ignore[misc]
        assert chat(running.url, model=name).status_code == 200
        time.sleep(1.0)  # Ray's routers are told of it within some 0.1 s
        answered = {chat(running.url, model=name).headers["x-replica"] for _ in range(12)}
        assert len(answered) == 1
    with Load(
        running.url, clients=MOST_AT_ONCE + 4, body=question(model=names[-1], **paced(10, 0.1))
    ) as load:
        wait_until(lambda: len(load.by_replica()) == 2, "more than one holds are answered by the other too")
    base = {chat(running.url, model=None).headers["x-replica"] for _ in range(40)}
    assert len(base) == 2, "the base's requests go to any"


def _lists(url: str, name: str) -> bool:
    return status(url, f"/v1/models/{name}") == 200


def test_a_stop_cuts_no_stream_and_leaves_no_process(running: Running) -> None:
    """The last of the tests that need the application: it ends it."""
    below = descendants(running.process.pid)
    streams: list[StreamResult] = []
    ask = threading.Thread(target=lambda: streams.append(read_stream(running.url, **paced(20, 0.1))))
    ask.start()
    wait_until(lambda: running.metric("wardrobe_inference_inflight") == 1, "the stream has begun")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0
    ask.join()
    assert streams[0].whole, streams
    wait_until(lambda: not any(map(is_alive, below)), "every process has ended")


def test_a_replica_that_cannot_start_ends_the_command_with_its_last_words(
    ray_python: Path, tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "layout.json").write_text("{}")
    command = [
        str(ray_python),
        "-m",
        "deploy.ray",
        "--root",
        str(tmp_path / "root"),
        "--port",
        str(free_port()),
    ]
    command += ["--command", "sh -c 'echo no such model; exit 3'", "--cpus-per-replica", "0.1"]
    command += ["--replicas", "1"]
    # Ray tries a replica three times; its first last words are as good.
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "exit code 3: no such model" in done.stdout + done.stderr
    assert "error: ray: " in done.stderr


def test_the_serve_config_names_an_application_that_is_there_with_options_that_it_takes() -> None:
    config = yaml.safe_load((REPOSITORY / "deploy" / "ray" / "serve.yaml").read_text())
    [one] = config["applications"]
    module, _, name = one["import_path"].partition(":")
    assert (REPOSITORY / Path(*module.split("."))).with_suffix(".py").read_text().count(f"def {name}(") == 1
    options = RayOptions(**one["args"])
    assert options.serve_command("r1")[-3:] == ["--", "--max-model-len", "8192"]


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValueError, match="replica_count"):
        RayOptions.model_validate({"root": "x", "replica_count": 3})


def test_a_replica_sees_nothing_of_ray() -> None:
    assert without_ray({"RAY_ADDRESS": "x", "PATH": "y"}) == {"PATH": "y"}


def test_the_command_refuses_a_folder_that_is_no_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path)]) == 1
    assert "is not a root" in capsys.readouterr().err


def test_the_command_refuses_to_listen_beyond_the_machine_without_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_root(tmp_path).root
    wardrobe = str(Path(sys.executable).with_name("wardrobe"))
    assert main(["--root", str(root), "--host", "0.0.0.0", "--command", wardrobe]) == 1
    assert "no key exists" in capsys.readouterr().err


def test_the_command_names_an_option_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(tmp_path), "--replicas", "0"])
    assert ended.value.code == 2
    assert "replicas" in capsys.readouterr().err


def leashed(*command: str) -> subprocess.Popen[Any]:
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.ray.parent_death", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


TOLD = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("up", flush=True)
signal.sigwait([signal.SIGTERM])
print("told")
sys.exit(7)
"""


@pytest.mark.parametrize("end", ["input", "signal"])
def test_a_leashed_command_is_told_when_its_owner_ends_or_says_so(end: str) -> None:
    with leashed(sys.executable, "-c", TOLD) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "up\n"
        process.stdin.close() if end == "input" else process.terminate()
        assert process.stdout.read() == "told\n"
        assert process.wait(20) == 7


def test_a_leash_has_the_exit_code_of_what_it_ran() -> None:
    with leashed(sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.wait(20) == 128 + signal.SIGKILL
