"""What breaks while an account is taken over: told, never taken for the whole, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry.errors import DiskFull
from tests.fakes.openai_account import KEY, FakeAccount
from tests.train.test_migrating_killed import start, wait_for
from train.evaluation.models.served import RetryLimits
from train.migrating.account import OpenAIAccount
from train.migrating.documents import MigratedJobReport
from train.migrating.folder import MigrationFolder
from train.migrating.interface import BrokenOff
from train.migrating.recording import recorded
from train.migrating.run import Migration, MigrationOptions


def prepared(url: str, out: Path, told: list[str] | None = None) -> MigratedJobReport:
    """Prepare the account's only job."""
    said: list[str] = [] if told is None else told
    client = OpenAIAccount(KEY, url, RetryLimits(tries=3, sleep=lambda _seconds: None), said.append)
    try:
        (job,) = Migration(MigrationFolder(out), client, client, MigrationOptions()).prepare().jobs
    finally:
        client.close()
    return job


def test_a_content_that_breaks_off_is_fetched_again(account: FakeAccount, url: str, tmp_path: Path) -> None:
    account.cuts = 2
    assert prepared(url, tmp_path).state == "prepared"
    assert (tmp_path / "files" / "file-train1.jsonl").read_bytes() == account.files["file-train1"]
    assert account.asked["files/file-train1/content"] == 3


def test_a_content_that_always_breaks_off_leaves_nothing(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    account.cuts = 100
    job = prepared(url, tmp_path)
    assert (job.state, account.asked["files/file-train1/content"]) == ("failed", 3)
    assert "broke off" in job.sentence
    assert list((tmp_path / "files").iterdir()) == []
    account.cuts = 0
    assert prepared(url, tmp_path).state == "prepared"


class Endless(BaseHTTPRequestHandler):
    """An account whose contents end where the connection does, and early; only the file tells its size."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}\n" if self.path.endswith("/content") else b'{"bytes": 6}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_content_without_a_length_is_held_against_the_file_that_tells_it() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = OpenAIAccount(KEY, f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(BrokenOff, match="3 of 6 bytes"):
            list(client.content("file-1"))
        client.close()
        server.shutdown()


def test_a_recording_that_fails_fails_the_job_and_keeps_what_was_answered(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    """What is not recorded now can never be compared, so exit 0 would be a lie."""
    account.failures = {"chat": [200] * 4 + [500] * 100}
    job = prepared(url, tmp_path)
    assert (job.state, len(recorded(MigrationFolder(tmp_path).job(job.id)))) == ("failed", 4)
    assert "recording stopped: 127.0.0.1: answers 500 after 3 tries" in job.sentence
    account.failures = {}
    again = prepared(url, tmp_path)
    assert (again.state, again.recorded, account.asked["chat/completions"]) == ("prepared", 8, 4 + 12 + 4)


def test_a_wait_is_told(account: FakeAccount, url: str, tmp_path: Path) -> None:
    account.failures = {"fine": [429]}
    told: list[str] = []
    prepared(url, tmp_path, told)
    assert told == ["127.0.0.1 answers 429: try 2 of 3 in 3 s"]


def test_a_full_disk_is_told_of_the_folder_that_is_full(tmp_path: Path) -> None:
    folder = MigrationFolder(tmp_path)
    inside = DiskFull(str(tmp_path / "files" / ".x.partial"), "no", "gc")
    assert str(folder.explained(inside)).startswith(f"{tmp_path}: there is no room left")
    elsewhere = DiskFull("/elsewhere/file", "no", "gc")
    assert folder.explained(elsewhere) is elsewhere


def test_ctrl_c_waits_for_no_answer_and_keeps_those_that_came(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    held = threading.Event()
    account.answer = lambda _body: "x" if len(account.bodies) <= 4 or held.wait(60) else ""
    process = start(url, tmp_path)
    wait_for(lambda: len(account.bodies) >= 5)  # four came, the fifth is on its way
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    held.set()
    assert process.returncode == 130
    assert "the same command goes on" in said
    (path,) = tmp_path.glob("*/answers.jsonl")
    kept = [json.loads(line)["id"] for line in path.read_bytes().splitlines()]
    assert len(set(kept)) == len(kept) == 4
