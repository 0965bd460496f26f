"""`wardrobe migrate openai` as the process that it is: killed while it records and while it trains."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import foreign
from registry.store import Registry
from tests.fakes.openai_account import KEY, FakeAccount, chat_row
from tests.train.tiny import make_tiny_base
from train.jobs.store import Jobs

COUNT = 60


@pytest.fixture
def account() -> FakeAccount:
    found = FakeAccount()
    rows = [chat_row(f"Colour {number}?", "emerald green") for number in range(COUNT)]
    found.add(1, rows, hyperparameters={"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1})
    found.answer = lambda _body: "emerald green"
    return found


def start(url: str, out: Path, *more: str) -> subprocess.Popen[str]:
    arguments = ["migrate", "openai", "--base-url", url, "--out", str(out), "--json", *more]
    return subprocess.Popen(
        foreign.python("-m", "wardrobe_llm", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=200)
    assert out, errors
    (job,) = json.loads(out)["jobs"]
    assert isinstance(job, dict)
    return job


def wait_for(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_while_it_records_it_asks_again_what_was_in_flight_alone(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    """After kill -9 the same command records the rest; each other question was asked once."""
    held = threading.Event()
    account.answer = lambda _body: "x" if len(account.bodies) <= 6 or held.wait(20) else ""
    process = start(url, tmp_path / "out")
    wait_for(lambda: len(account.bodies) >= 7)  # the seventh gets no answer
    process.kill()
    process.communicate()
    held.set()
    assert (done := finish(start(url, tmp_path / "out")))["recorded"] == done["questions"] == 12
    asked = [json.dumps(body["messages"]) for body in account.bodies]
    assert len(asked) - len(set(asked)) <= 4
    assert max(asked.count(one) for one in asked) == 2


@pytest.mark.training
@pytest.mark.timeout(300)
def test_killed_while_it_trains_it_goes_on_from_its_checkpoint(
    account: FakeAccount, url: str, tmp_path: Path, tokenizer: Any
) -> None:
    """A real training and a real gate: the tiny base is worse, says so, and is registered once."""
    registry = Registry.init(tmp_path / "root", make_tiny_base(tmp_path / "base", tokenizer), name="tiny")
    more = ("--train", "--root", str(registry.root), "--answer-tokens", "8")
    process = start(url, tmp_path / "out", *more)
    jobs = Jobs(registry.root)
    wait_for(lambda: any(job.steps_kept for job in jobs.all()) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    job = finish(start(url, tmp_path / "out", *more))
    (trained,) = jobs.all()
    assert trained.status().resumed, "it began anew"
    assert (job["state"], job["verdict"], job["version"]) == ("trained", "fail", "shop@1"), job
    assert "of ft:gpt-4o-mini" in job["sentence"]
    assert len(registry.versions("shop")) == 1
    assert registry.attestations("shop", 1, "migration")[0].body["verdict"] == "fail"
    assert (tmp_path / "out" / job["id"] / "gate" / "report.html").exists()
    # A kill between the publication and its record: the version is found, and nothing is trained again.
    (tmp_path / "out" / job["id"] / "version.json").unlink()
    assert finish(start(url, tmp_path / "out", *more))["version"] == "shop@1"
    assert jobs.all()[0].status().updated_at == trained.status().updated_at
    assert len(registry.versions("shop")) == 1
