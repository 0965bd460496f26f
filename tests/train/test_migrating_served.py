"""From our own fine-tuning API, in OpenAI's place, to versions that answer under the old names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner

from registry.errors import WardrobeError
from registry.store import Registry
from serve.tuning_settings import TuningSettings
from tests.fakes.adapters import make_adapter
from tests.fakes.protocols import TEXT
from tests.fakes.served import Served, make_root, serve
from tests.fakes.tuner import Tuner
from train.evaluation.formats.forms import SuiteMessage
from train.evaluation.formats.suites import Suite
from train.evaluation.grading.grades import Model, ModelAnswer, Tools
from train.migrating.account import OpenAIAccount
from train.migrating.cli import migrate
from train.migrating.documents import MigratedJobReport, MigrationReport
from train.migrating.folder import MigratedJob, MigrationFolder
from train.migrating.judging import judge
from train.migrating.run import Migration, MigrationOptions

BASE = "gpt-4o-mini-2024-07-18"
ROWS = 200


class Killed(BaseException):
    """The process died here."""


@dataclass
class Says:
    """A model that says one thing."""

    text: str
    name: str = "new"

    def answer(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> ModelAnswer:
        return ModelAnswer(self.text, prompt_tokens=1, completion_tokens=1)

    def log_probability(
        self, messages: Sequence[SuiteMessage], expected: str, suite: Suite
    ) -> tuple[float, int]:
        raise AssertionError("nobody asks")


@dataclass
class Trainer:
    """Trains nothing: registers an adapter by a seed, judges a model that says `said`; may die between."""

    registry: Registry
    folder: Path
    said: dict[str, str] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    trained: list[str] = field(default_factory=list)

    def __call__(self, job: MigratedJob, old: str) -> None:
        if job.id in self.failing:
            raise WardrobeError("training", "diverged")
        self._die("train")
        version = job.record("version")
        if version is None:
            self.trained.append(job.id)
            source = self.folder / f"adapter-{job.id}"
            if not source.exists():
                make_adapter(source, seed=len(self.trained))
            found = self.registry.publish("shop", source, who="me", no_stable=True).version
            version = {"adapter": found.adapter, "version": found.number, "digest": found.digest}
            self._die("published")
            job.keep("version", version)
        self._die("judge")
        model: Model = Says(self.said.get(old, TEXT))
        job.keep("verdict", judge(job, old, model, str(version["digest"]), 0.1, lambda _name: model))
        self._die("judged")

    def _die(self, place: str) -> None:
        if self.deaths and self.deaths[0] == place:
            self.deaths.pop(0)
            raise Killed


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Served]:
    """A server in OpenAI's place, with a job that was trained there."""
    folder = tmp_path / "account"
    folder.mkdir()
    with serve(make_root(folder), folder, tuning=TuningSettings(models={BASE: "base"})) as served:
        add_job(served, "one")
        yield served


@pytest.fixture
def home(tmp_path: Path) -> Registry:
    """The root that is migrated to."""
    folder = tmp_path / "home"
    folder.mkdir()
    return make_root(folder)


@pytest.fixture
def trainer(home: Registry, tmp_path: Path) -> Trainer:
    return Trainer(home, tmp_path)


def add_job(served: Served, word: str, count: int = ROWS) -> str:
    """Let the account train a job, and return the name of its model."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{word} {number} {number * 7919 % 1000}"},
                {"role": "assistant", "content": TEXT},
            ]
        }
        for number in range(count)
    ]
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    with openai.OpenAI(base_url=f"{served.server.url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("rows.jsonl", content), purpose="fine-tune").id
        job = client.fine_tuning.jobs.create(model=BASE, training_file=file, suffix="shop")
        Tuner(served.registry, served.folder).run(job.id, seed=len(word))
        served.runtime.watcher.refresh()
        return str(client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model)


def migrated(account: Served, out: Path, trainer: Trainer, **options: Any) -> MigrationReport:
    """Run one command: prepare, then train."""
    client = OpenAIAccount("none", account.server.url)
    try:
        found = Migration(MigrationFolder(out), client, client, MigrationOptions(**options))
        found.prepare()
        return found.train(trainer, trainer.registry, "me")
    finally:
        client.close()


def only(report: MigrationReport) -> MigratedJobReport:
    (found,) = report.jobs
    return found


def test_three_jobs_answer_under_their_old_names(
    account: Served, home: Registry, trainer: Trainer, tmp_path: Path
) -> None:
    """The application's one changed line is `base_url`."""
    add_job(account, "two")
    add_job(account, "three")
    report = migrated(account, tmp_path / "out", trainer)
    assert [(job.state, job.verdict) for job in report.jobs] == [("served", "pass")] * 3, report
    names = [str(job.fine_tuned_model) for job in report.jobs]
    assert len(set(names)) == 3
    with (
        serve(home, tmp_path / "home") as server,
        openai.OpenAI(base_url=f"{server.server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        for number, name in enumerate(names, start=1):
            said = client.chat.completions.with_raw_response.create(
                model=name, messages=[{"role": "user", "content": "hello"}]
            )
            assert said.headers["x-wardrobe-adapter"] == f"shop@{number}"
        assert set(names) <= {model.id for model in client.models.list()}
    told = home.attestations("shop", 1, "migration")[0].body
    assert (told["verdict"], told["model"]) == ("pass", names[0])
    assert "stable" not in home.aliases("shop")


def test_a_version_that_is_worse_is_registered_and_not_served(
    account: Served, home: Registry, trainer: Trainer, tmp_path: Path
) -> None:
    """The sentence has both figures, and says what may help."""
    name = str(only(migrated(account, tmp_path / "out", Trainer(home, tmp_path), prompts=0)).fine_tuned_model)
    trainer.said = {name: "something else"}
    job = only(migrated(account, tmp_path / "out", trainer))
    assert (job.state, job.verdict, job.version) == ("trained", "fail", "shop@1")
    assert "0.000 against 1.000" in job.sentence
    assert "larger base" in job.sentence
    assert not home.catalogue.tuned.survey()[0]
    anyway = only(migrated(account, tmp_path / "out", trainer, serve_anyway=True))
    assert (anyway.state, anyway.verdict) == ("served", "fail")
    assert home.catalogue.tuned.find(name).target == "shop@1"


def test_too_few_answers_tell_nothing(account: Served, trainer: Trainer, tmp_path: Path) -> None:
    """Cannot tell is no pass; with more recorded answers the same version is judged again."""
    out = tmp_path / "out"
    job = only(migrated(account, out, trainer, prompts=8))
    assert (job.state, job.verdict) == ("trained", "cannot_tell")
    assert "more questions would tell" in job.sentence
    again = only(migrated(account, out, trainer, prompts=100))
    assert (again.state, again.verdict, again.version) == ("served", "pass", "shop@1")
    assert len(trainer.trained) == 1


def test_without_recorded_answers_nothing_can_be_compared(
    account: Served, trainer: Trainer, tmp_path: Path
) -> None:
    """It says so, and serves nothing."""
    job = only(migrated(account, tmp_path / "out", trainer, budget=0))
    assert (job.state, job.verdict) == ("trained", "cannot_tell")
    assert "no answer" in job.sentence


@pytest.mark.parametrize("place", ["train", "published", "judge", "judged"])
def test_killed_at_any_step_the_same_command_goes_on(
    account: Served, home: Registry, trainer: Trainer, tmp_path: Path, place: str
) -> None:
    """Nothing is trained, registered or attested twice."""
    trainer.deaths = [place]
    with pytest.raises(Killed):
        migrated(account, tmp_path / "out", trainer)
    job = only(migrated(account, tmp_path / "out", trainer))
    assert (job.state, job.version) == ("served", "shop@1")
    assert len(home.versions("shop")) == 1
    assert len(home.attestations("shop", 1, "migration")) == 1
    done = only(migrated(account, tmp_path / "out", trainer))
    assert (done.state, done.version, done.sentence, done.figures) == (
        "served", "shop@1", job.sentence, job.figures
    )  # fmt: skip


def test_a_training_that_fails_stops_no_other(account: Served, trainer: Trainer, tmp_path: Path) -> None:
    """Its sentence is the trainer's."""
    add_job(account, "two")
    first = MigrationOptions()
    client = OpenAIAccount("none", account.server.url)
    try:
        jobs = Migration(MigrationFolder(tmp_path / "out"), client, client, first).prepare().jobs
    finally:
        client.close()
    trainer.failing = {jobs[0].id}
    report = migrated(account, tmp_path / "out", trainer)
    assert [job.state for job in report.jobs] == ["failed", "served"]
    assert "diverged" in report.jobs[0].sentence


def test_the_command_prepares_and_says_what_is_next(
    account: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --train nothing is trained; without a key what is there is gone on with."""
    out = str(tmp_path / "out")
    arguments = ["openai", "--base-url", account.server.url, "--out", out]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refused = CliRunner().invoke(migrate, arguments)
    assert "OPENAI_API_KEY: is not set" in str(refused.exception)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    listed = CliRunner().invoke(migrate, [*arguments, "--list"])
    assert listed.exit_code == 0, listed.output
    assert not (tmp_path / "out").exists()
    found = CliRunner().invoke(migrate, [*arguments, "--json"])
    report = MigrationReport.model_validate_json(found.stdout)
    assert (found.exit_code, only(report).state, only(report).recorded) == (0, "prepared", 40)
    assert report.next.endswith("--train`")
    monkeypatch.delenv("OPENAI_API_KEY")
    again = CliRunner().invoke(migrate, arguments)
    assert again.exit_code == 0, again.output
    assert "40 of 40" in again.stdout
