"""What each method trains is a version that the real server answers with, named by its digest.

All trainings share one process (one import of torch); how well they learn is tested in tests/train.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from loadtests.live import Live
from tests.train.small_runs import SERVABLE, question, write_small_run
from train.process.environment import environment

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]

PROGRAM = """
import sys
from pathlib import Path
from registry.store import Registry
from tests.train.tiny import Watcher
from train.config import load_config
from train.runs.run import prepare, train_and_publish
from train.runs.session import RunOptions

registry = Registry.open(Path(sys.argv[1]))
for path in sys.argv[2:]:
    prepared = prepare(load_config(Path(path)), registry)
    finished = train_and_publish(prepared, registry, RunOptions("test", Watcher()))
    assert finished.published is not None
    print(finished.published.version.name, finished.published.version.digest, flush=True)
"""

# Without a warm-up the first step learns. At this rate every method moves the answers by far more than the
# noise of the base, whatever the machine: a version that differs less is refused. Six tokens of English hold
# three e's about as often as not, so the answers to one prompt differ in reward: there is something to learn.
TRAINING: dict[str, Any] = {"steps": 2, "warmup": 0, "learning_rate": 5e-3}
PAIRED: dict[str, Any] = {"training": TRAINING}
ONLINE: dict[str, Any] = {
    "training": {**TRAINING, "batch_size": 8},
    "method": {"reward": {"graders": [{"type": "regex", "pattern": "e.*e.*e"}]}},
}
CHANGES = {"rloo": ONLINE, "grpo": ONLINE}


@pytest.fixture(scope="module")
def digests(live: Live, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A version of every servable method in the session's root; what each one's digest is."""
    folder = tmp_path_factory.mktemp("methods")
    configs = [write_small_run(folder, method, **CHANGES.get(method, PAIRED)) for method in SERVABLE]
    command = [sys.executable, "-c", PROGRAM, str(live.root), *map(str, configs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.parametrize("method", SERVABLE)
def test_a_version_of_every_method_answers_by_number_under_its_digest(
    live: Live, digests: dict[str, str], method: str
) -> None:
    name = f"small-{method}@1"
    answer = chat(live, name)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-wardrobe-digest"] == digests[name]
    assert answer.headers["x-wardrobe-adapter"] == name
    document: Any = json.loads(answer.text)
    assert document["choices"][0]["message"]["content"]


def chat(live: Live, model: str) -> httpx.Response:
    """Ask until the version is proved and loaded, for a minute at most."""
    body = {"model": model, "messages": [{"role": "user", "content": question(1)}], "max_tokens": 8}
    deadline = time.monotonic() + 60
    while True:
        answer = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=120)
        if answer.status_code not in {404, 503} or time.monotonic() > deadline:
            return answer
        time.sleep(1)
