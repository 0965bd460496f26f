"""Taking over an account's fine-tunes: fetched and asked once, prepared as configs, each fault a sentence."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Conflict, Denied, NotFound, UsageError
from registry.storage import files
from tests.fakes.openai_account import KEY, ROWS, FakeAccount, chat_row
from train.config import load_config
from train.evaluation.models.served import RetryLimits
from train.migrating.account import OpenAIAccount
from train.migrating.documents import MigratedJobReport, MigrationReport
from train.migrating.exported import ExportedFolder
from train.migrating.folder import MigrationFolder
from train.migrating.interface import AccountAway
from train.migrating.recording import recorded
from train.migrating.run import Migration, MigrationOptions

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


CLIENTS: list[OpenAIAccount] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close every connection that a test opened."""
    yield
    while CLIENTS:
        CLIENTS.pop().close()


class Waits(list[float]):
    """The seconds that somebody would have slept."""

    def patience(self, tries: int = 4) -> RetryLimits:
        return RetryLimits(tries=tries, sleep=self.append)


def migration(url: str, out: Path, waits: Waits | None = None, key: str = KEY, **options: Any) -> Migration:
    client = OpenAIAccount(key, url, (waits if waits is not None else Waits()).patience())
    CLIENTS.append(client)
    return Migration(MigrationFolder(out), client, client, MigrationOptions(**options))


def prepare(url: str, out: Path, **options: Any) -> MigrationReport:
    return migration(url, out, **options).prepare()


def only(report: MigrationReport) -> MigratedJobReport:
    (found,) = report.jobs
    return found


def test_a_job_is_fetched_recorded_and_prepared(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """One run leaves rows, held-out rows, answers, figures and a config that `train run` takes."""
    job = only(prepare(url, tmp_path))
    assert (job.state, job.rows, job.held_out, job.questions, job.recorded) == ("prepared", 32, 8, 8, 8)
    config = load_config(Path(job.config or ""))
    assert (config.name, config.training.epochs, config.training.batch_size, config.seed) == ("shop", 2, 4, 7)
    assert config.training.learning_rate == pytest.approx(config.learning_rate)
    assert config.data.eval is not None
    assert (tmp_path / "files" / "file-result1.csv").read_bytes() == b"step,train_loss\n1,0.5\n"
    held = (tmp_path / job.id / "held-out.jsonl").read_text().splitlines()
    kept = (tmp_path / job.id / "train.jsonl").read_text().splitlines()
    assert len({*held, *kept}) == 40
    answers = recorded(MigrationFolder(tmp_path).job(job.id))
    assert sorted(one.text for one in answers.values()) == sorted(
        json.loads(row)["messages"][-1]["content"] for row in held
    )
    assert account.methods == {("GET", "fine_tuning"), ("GET", "files"), ("POST", "chat")}


def test_nothing_is_fetched_or_asked_twice(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """The same command again lists the jobs and asks nothing else."""
    first = prepare(url, tmp_path)
    before = dict(account.asked)
    assert prepare(url, tmp_path) == first
    after = dict(account.asked)
    assert after.pop("fine_tuning/jobs") == before.pop("fine_tuning/jobs") + 1
    assert after == before


def test_a_config_that_a_person_changed_stays(url: str, tmp_path: Path) -> None:
    """A config is written once."""
    config = Path(only(prepare(url, tmp_path)).config or "")
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 5"))
    prepare(url, tmp_path)
    assert load_config(config).training.epochs == 5


def test_a_recording_that_was_killed_goes_on(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """Answers that are kept are not asked for again, and a torn line is."""
    job = MigrationFolder(tmp_path).job(only(prepare(url, tmp_path)).id)
    lines = job.answers.read_bytes().splitlines(keepends=True)
    job.answers.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    asked = account.asked["chat/completions"]
    assert only(prepare(url, tmp_path)).recorded == 8
    assert account.asked["chat/completions"] == asked + 3


def test_the_budget_ends_the_recording_of_every_job_alike(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    """Once the tokens are spent nothing is asked, also not by the next call; a greater budget goes on."""
    account.add(2, [chat_row(f"other thing {number}", "YES") for number in range(300)])
    report = prepare(url, tmp_path, budget=200)
    assert 200 <= report.tokens < 200 + 4 * 10
    assert all(job.recorded for job in report.jobs)
    asked = account.asked["chat/completions"]
    assert "the budget of 200 tokens is spent" in " ".join(prepare(url, tmp_path, budget=200).jobs[1].notes)
    assert account.asked["chat/completions"] == asked
    assert [job.recorded for job in prepare(url, tmp_path, prompts=30).jobs] == [8, 30]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_works_later_is_tried_again_when_the_account_says(
    account: FakeAccount, url: str, tmp_path: Path, status: int
) -> None:
    """Rate limits and faults of the account are waited for: `retry-after` seconds."""
    account.failures = {"fine": [status], "files": [status, status], "chat": [status]}
    waits = Waits()
    assert only(migration(url, tmp_path, waits).prepare()).recorded == 8
    assert waits == [3.0] * 4


def test_a_job_that_cannot_be_fetched_stops_no_other(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """A fault that stays, a deleted file, rows that are none, an id that is a path: a sentence each."""
    account.add(2, ROWS, training_file="file-gone")
    account.add(3, ROWS)
    account.files["file-train3"] = b"{not json\n"
    account.add(4, ROWS, training_file="../../etc/passwd")
    account.add(5, [{"messages": "none"}])
    account.add(6, ROWS, method={"type": "telepathy"})
    found = {job.id[-1]: job for job in prepare(url, tmp_path).jobs}
    assert [found[number].state for number in "123456"] == ["prepared"] + ["failed"] * 5
    assert "file-gone is not there any more" in found["2"].sentence
    assert "row 1" in found["3"].sentence
    assert "is not the id" in found["4"].sentence
    assert "row 1" in found["5"].sentence
    assert "telepathy" in found["6"].sentence
    asked = account.asked["files/file-gone/content"]
    prepare(url, tmp_path)
    assert account.asked["files/file-gone/content"] == asked == 1


def test_a_full_disk_is_told_and_stops_no_other(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """What did not fit leaves nothing behind, and with room again the same command goes on."""
    second = account.add(2, ROWS)

    def fill(step: str) -> None:
        if step == "write .file-train2.jsonl.partial":
            raise OSError(errno.ENOSPC, "No space left on device")

    with files.watch_steps(fill):
        found = {job.id: job for job in prepare(url, tmp_path).jobs}
    assert found[second].state == "failed"
    assert "No space left" in found[second].sentence or "full" in found[second].sentence
    assert {job.state for job in found.values()} == {"failed", "prepared"}
    assert not list((tmp_path / "files").glob("*train2*"))
    assert {job.state for job in prepare(url, tmp_path).jobs} == {"prepared"}


def test_jobs_of_odd_kinds_are_failures_of_their_own(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """An export that somebody edited ends no migration."""
    account.add(2, ROWS, method={"type": "dpo", "dpo": 7}, result_files=7, created_at="x", seed="y")
    account.add(3, ROWS, fine_tuned_model=7, hyperparameters=7, method=7, validation_file=7)
    account.add(4, ROWS, hyperparameters={"n_epochs": "many"}, method=None)
    report = prepare(url, tmp_path)
    assert [job.state for job in report.jobs if job.id.endswith("1")] == ["prepared"]
    assert "epochs" in next(job.sentence for job in report.jobs if job.id.endswith("4"))


def test_jobs_that_made_no_model_are_left_out_with_their_reason(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    """Failed, cancelled and running jobs are told, and no failure."""
    none = {"fine_tuned_model": None}
    account.add(2, ROWS, status="failed", error={"message": "too few rows"}, **none)
    account.add(3, ROWS, status="cancelled", **none)
    account.add(4, ROWS, status="running", **none)
    found = {job.id[-1]: job for job in prepare(url, tmp_path).jobs}
    assert {found[number].state for number in "234"} == {"left_out"}
    assert "too few rows" in found["2"].sentence
    assert "running" in found["4"].sentence


def test_a_model_that_is_switched_off_is_told_and_the_config_is_there(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    """Without the old model's answers the rows are still worth taking over."""
    account.gone = {str(account.jobs[0]["fine_tuned_model"])}
    job = only(prepare(url, tmp_path))
    assert (job.state, job.recorded) == ("prepared", 0)
    assert "does not answer any more" in job.notes[0]


def test_a_prompt_that_is_refused_is_not_asked_again(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """A 400 is kept as what it is: one question without an answer."""
    account.refused = {"max_completion_tokens": "context too long"}
    assert only(prepare(url, tmp_path)).recorded == 0
    asked = account.asked["chat/completions"]
    prepare(url, tmp_path)
    assert account.asked["chat/completions"] == asked == 8


def test_a_model_that_takes_no_temperature_is_asked_without_one(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    """Models that reason refuse it."""
    account.refused = {"temperature": "Unsupported value: 'temperature'"}
    assert only(prepare(url, tmp_path)).recorded == 8


def test_a_text_model_is_asked_for_completions(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """Fine-tunes of babbage and davinci take the prompt as a text."""
    account.answer = lambda body: body["prompt"].upper()
    account.jobs[0] |= {"model": "babbage-002"}
    account.files["file-train1"] = b"".join(
        json.dumps({"prompt": f"word {number} is", "completion": f" WORD {number}"}).encode() + b"\n"
        for number in range(40)
    )
    assert only(prepare(url, tmp_path)).recorded == 8
    assert all("messages" not in body for body in account.bodies)


def test_a_validation_file_is_what_is_held_out(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """Then all training rows are trained on."""
    account.files["file-valid"] = account.files["file-train1"].splitlines(keepends=True)[0]
    account.jobs[0] |= {"validation_file": "file-valid"}
    job = only(prepare(url, tmp_path))
    assert (job.rows, job.held_out, job.recorded) == (40, 1, 1)


def test_rows_of_every_kind_are_prepared(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """Calls of tools, preferences, and prompts with a grader are asked and judged by what fits them."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    calling = [
        {
            "messages": [
                {"role": "user", "content": f"look at {number}"},
                {"role": "assistant", "tool_calls": [call]},
            ],
            "tools": [TOOL],
        }
        for number in range(40)
    ]
    account.add(2, calling)
    pairs = [
        {
            "input": {"messages": [{"role": "user", "content": f"question {number}"}]},
            "preferred_output": [
                {"role": "assistant", "content": "a long and polite answer, of very many words"}
            ],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        }
        for number in range(40)
    ]
    account.add(3, pairs, method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}})
    grader = {
        "type": "string_check", "name": "right", "operation": "eq",
        "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
    }  # fmt: skip
    asked = [
        {"messages": [{"role": "user", "content": f"sum {number}"}], "answer": str(number)}
        for number in range(40)
    ]
    account.add(4, asked, method={"type": "reinforcement", "reinforcement": {"grader": grader}})
    found = {job.id[-1]: job for job in prepare(url, tmp_path).jobs}
    assert {job.state for job in found.values()} == {"prepared"}, [job.sentence for job in found.values()]
    suites = {
        number: json.loads((tmp_path / job.id / "suite.yaml").read_text()) for number, job in found.items()
    }
    assert [suites[number]["graders"][0]["type"] for number in "1234"] == [
        "exact",
        "calls",
        "rouge_l",
        "openai",
    ]
    configs = {number: load_config(Path(job.config or "")) for number, job in found.items()}
    assert [configs[number].method.type for number in "1234"] == ["supervised", "supervised", "dpo", "grpo"]


def test_too_few_rows_are_prepared_without_held_out_ones(
    account: FakeAccount, url: str, tmp_path: Path
) -> None:
    """Ten equal rows leave nothing to compare, and that is told."""
    account.files["file-train1"] = account.files["file-train1"].splitlines(keepends=True)[0] * 10
    job = only(prepare(url, tmp_path))
    assert (job.state, job.held_out, job.questions) == ("prepared", None, 0)
    assert "no rows are held out" in job.notes[0]


def test_a_wrong_key_ends_the_migration_and_is_never_told(url: str, tmp_path: Path) -> None:
    """The account's own message holds the key; ours does not."""
    with pytest.raises(Denied) as refused:
        prepare(url, tmp_path, key="sk-wrong")
    assert "sk-" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_the_key_is_written_nowhere(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """Not in a file, and not in what is told of a refusal."""
    account.failures = {"files": [418, 418]}
    report = prepare(url, tmp_path)
    assert KEY not in report.model_dump_json()
    assert "(the key)" in report.model_dump_json()
    prepare(url, tmp_path)
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_without_a_network_nothing_is_begun(tmp_path: Path) -> None:
    """A sentence that names the host, after every try."""
    waits = Waits()
    with pytest.raises(AccountAway, match="cannot be reached"):
        migration("http://127.0.0.1:9", tmp_path, waits).prepare()
    assert len(waits) == 3


def test_a_list_changes_nothing(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """`--list` has every page of the jobs and keeps no file."""
    for number in range(2, 6):
        account.add(number, ROWS)
    report = migration(url, tmp_path / "out").survey()
    assert [job.state for job in report.jobs] == ["listed"] * 5
    assert not (tmp_path / "out").exists()
    assert account.methods == {("GET", "fine_tuning")}


def test_an_exported_folder_is_an_account_without_answers(url: str, tmp_path: Path) -> None:
    """What a migration keeps is such a folder; jobs may be lines as well."""
    first = tmp_path / "first"
    prepare(url, first)
    options = MigrationOptions()
    again = Migration(MigrationFolder(tmp_path / "again"), ExportedFolder(first), None, options).prepare()
    assert (only(again).state, only(again).recorded) == ("prepared", 0)
    jobs = json.loads((first / "jobs.json").read_text())["data"]
    (first / "jobs.json").unlink()
    (first / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    assert [job["id"] for job in ExportedFolder(first).jobs()] == [jobs[0]["id"]]
    shutil.rmtree(first)
    with pytest.raises(UsageError, match="cannot be read"):
        ExportedFolder(first).jobs()


def test_only_the_jobs_that_are_named_are_taken(account: FakeAccount, url: str, tmp_path: Path) -> None:
    """An id that is none of them is an error."""
    second = account.add(2, ROWS)
    assert only(prepare(url, tmp_path, only=(second,))).id == second
    with pytest.raises(NotFound, match="is none of the 2 jobs"):
        prepare(url, tmp_path, only=("ftjob-x",))


def test_one_process_works_in_a_folder(tmp_path: Path) -> None:
    """The second is told."""
    folder = MigrationFolder(tmp_path)
    with folder.locked(), pytest.raises(Conflict, match="another"), folder.locked():
        pass


@pytest.mark.parametrize("url", ["ftp://host", "https://user:secret@host/v1", "nonsense"])
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    """A password in it is not told."""
    with pytest.raises(UsageError) as refused:
        OpenAIAccount(KEY, url)
    assert "secret" not in str(refused.value)
