"""Fine-tuning jobs over OpenAI's own client and a real socket; a fake worker trains."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.store import Registry
from registry.tuning.machine import JobEvent
from serve.tuning_settings import TuningSettings
from tests.fakes.openai_client import connect
from tests.fakes.served import BASE, Served, serve, wait_until
from tests.fakes.tuner import STEPS, WORKER, Tuner
from tests.published import check
from tests.published_tuning import check_tuning

ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 10
STAND_IN = "gpt-4o-mini-2024-07-18"


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    with serve(registry, tmp_path, tuning=TuningSettings(models={STAND_IN: "base"})) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with connect(served) as client:
        yield client


@pytest.fixture
def tuner(served: Served, tmp_path: Path) -> Tuner:
    return Tuner(served.registry, tmp_path)


@pytest.fixture
def rows(client: openai.OpenAI) -> str:
    return upload(client)


def upload(client: openai.OpenAI, purpose: Any = "fine-tune", content: bytes = ROWS) -> str:
    return client.files.create(file=("rows.jsonl", content), purpose=purpose).id


def create(client: openai.OpenAI, rows: str, **fields: Any) -> Any:
    job = client.fine_tuning.jobs.create(**{"model": BASE, "training_file": rows, **fields})
    check_tuning("job", job.to_dict())
    return job


def ours(job: Any) -> dict[str, Any]:
    """Return what stands under our own key."""
    found: dict[str, Any] = job.to_dict()["x_wardrobe"]
    return found


def roll_out(served: Served, adapter: str, version: int) -> None:
    """Start a rollout of a version and promote it."""
    path = f"/admin/v1/rollouts/{adapter}"
    begun = served.client.post(path, json={"version": version, "policy": "fast", "force": True})
    assert begun.json()["status"]["canary"] == f"{adapter}@{version}"
    wait_until(lambda: served.client.get(path).json()["state"] == "ramping", "the canary is loaded")
    assert served.client.post(f"{path}/promote").json()["state"] == "promoted"
    wait_until(
        lambda: served.chat(adapter).headers["x-wardrobe-adapter"] == f"{adapter}@{version}", "it answers"
    )


def test_a_job_goes_from_its_creation_to_a_model_that_answers(
    served: Served, client: openai.OpenAI, tuner: Tuner, rows: str
) -> None:
    """The whole story: upload, create, events, chat with the new name, a second one rolled out, delete."""
    job = create(client, rows, suffix="My suffix", metadata={"team": "a"}, seed=3)
    assert (job.status, job.seed, job.fine_tuned_model, job.object) == (
        "validating_files",
        3,
        None,
        "fine_tuning.job",
    )
    tuner.run(job.id)
    done = client.fine_tuning.jobs.retrieve(job.id)
    check_tuning("job", done.to_dict())
    assert (done.status, done.trained_tokens, done.error) == ("succeeded", 30, None)
    assert done.finished_at is not None
    assert done.fine_tuned_model == f"ft:{BASE}:wardrobe:My-suffix:{job.id[-8:]}"
    assert client.files.content(done.result_files[0]).text.startswith("step,train_loss")
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert messages[0] == "The job has successfully completed"
    assert messages[-1] == f"Created fine-tuning job: {job.id}"
    assert f"Step {STEPS}/{STEPS}: training loss=0.33" in messages
    assert len(messages) == len(set(messages)) == 10
    served.runtime.watcher.refresh()
    answer = client.chat.completions.with_raw_response.create(
        model=done.fine_tuned_model, messages=[{"role": "user", "content": "hello"}]
    )
    assert answer.headers["x-wardrobe-adapter"] == "my-suffix@1"
    again = create(client, rows, model=done.fine_tuned_model, suffix="My suffix")
    assert ours(again)["start"] == "my-suffix@1"
    roll_out(served, "my-suffix", tuner.run(again.id, seed=8).number)
    answer = client.chat.completions.with_raw_response.create(
        model=done.fine_tuned_model, messages=[{"role": "user", "content": "hello"}]
    )
    assert answer.headers["x-wardrobe-adapter"] == "my-suffix@1"
    assert served.chat("my-suffix").headers["x-wardrobe-adapter"] == "my-suffix@3"
    assert client.models.delete(done.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(
            model=done.fine_tuned_model, messages=[{"role": "user", "content": "a"}]
        )


def test_checkpoints_are_listed_and_answer_by_their_names(
    served: Served, client: openai.OpenAI, tuner: Tuner, rows: str
) -> None:
    job = create(client, rows)
    check_tuning("checkpoints", client.fine_tuning.jobs.checkpoints.list(job.id).to_dict())
    tuner.run(job.id)
    served.runtime.watcher.refresh()
    page = client.fine_tuning.jobs.checkpoints.list(job.id)
    check_tuning("checkpoints", page.to_dict())
    (one,) = page.data
    assert (one.step_number, one.metrics.step, one.metrics.train_loss) == (STEPS - 1, STEPS - 1, 0.5)
    assert one.fine_tuned_model_checkpoint.endswith(f":ckpt-step-{STEPS - 1}")
    assert served.chat(one.fine_tuned_model_checkpoint).status_code == 200
    permissions = client.fine_tuning.checkpoints.permissions
    listed = permissions.list(one.fine_tuned_model_checkpoint)
    check_tuning("permissions", listed.to_dict())
    with pytest.raises(openai.BadRequestError, match="no projects"):
        permissions.create(one.fine_tuned_model_checkpoint, project_ids=["proj_1"])
    with pytest.raises(openai.BadRequestError, match="no projects"):
        permissions.delete("cp_1", fine_tuned_model_checkpoint=one.fine_tuned_model_checkpoint)
    with pytest.raises(openai.NotFoundError):
        permissions.list("ft:nothing:ckpt-step-1")


def test_events_are_the_newest_first_with_ids_that_stay(
    client: openai.OpenAI, tuner: Tuner, rows: str
) -> None:
    job = create(client, rows)
    tuner.validate(job.id)
    running = tuner.begin(job.id)
    tuner.train(running)
    page = client.fine_tuning.jobs.list_events(job.id, limit=3)
    check_tuning("events", page.to_dict())
    before = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert len(before) == 4 + STEPS
    assert [one.created_at for one in before] == sorted((one.created_at for one in before), reverse=True)
    metrics = [one for one in before if one.type == "metrics"]
    assert len(metrics) == STEPS
    assert metrics[0].data == {
        "step": STEPS, "total_steps": STEPS, "train_loss": 1 / STEPS, "train_mean_token_accuracy": 0.5,
    }  # fmt: skip
    # A training that goes on from an earlier step takes lines back: the list goes on behind what is gone.
    lines = (running.folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (running.folder / "metrics.jsonl").write_text("".join(lines[:1]))
    rest = client.fine_tuning.jobs.list_events(job.id, after=metrics[0].id, limit=100).data
    assert [one.id for one in rest] == [
        one.id for one in before if one.type != "metrics" or one == metrics[-1]
    ]
    tuner.succeed(running)
    after = list(client.fine_tuning.jobs.list_events(job.id))
    assert {one.id for one in before} - {one.id for one in metrics} <= {one.id for one in after}


def test_events_of_one_moment_are_each_told_once_in_any_pages(
    client: openai.OpenAI, tuner: Tuner, rows: str
) -> None:
    job = create(client, rows)
    tuner.validate(job.id)
    running = tuner.begin(job.id)
    lines = [{"at": 1_796_000_000.0, "step": step, "loss": 1.0} for step in range(1, 30)]
    (running.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    events = client.fine_tuning.jobs.list_events
    whole = [one.id for one in events(job.id, limit=100).data]
    assert len(whole) == len(set(whole)) == 33
    for limit in (1, 2, 7, 32, 33):
        assert [one.id for one in events(job.id, limit=limit)] == whole
    with pytest.raises(openai.BadRequestError):
        events(job.id, after="ftevent-?")


def test_jobs_are_listed_in_pages_and_by_their_metadata(client: openai.OpenAI, rows: str) -> None:
    jobs = client.fine_tuning.jobs
    check_tuning("jobs", jobs.list().to_dict())
    made = [create(client, rows, metadata={"team": team, "n": "1"}).id for team in ("a", "b", "a")]
    plain = create(client, rows).id
    assert [job.id for job in jobs.list(limit=1)] == [plain, *reversed(made)]
    assert {job.id for job in jobs.list(metadata={"team": "a", "n": "1"})} == {made[0], made[2]}
    assert [job.id for job in jobs.list(metadata={"team": "nobody"})] == []
    assert [job.id for job in jobs.list(extra_query={"metadata": "null"})] == [plain]
    check_tuning("jobs", jobs.list(limit=2).to_dict())
    assert [job.id for job in jobs.list(after=made[0])] == []
    for wrong in ({"limit": 0}, {"after": "?"}):
        with pytest.raises(openai.BadRequestError):
            jobs.list(**wrong)


def test_a_job_is_paused_resumed_and_cancelled(client: openai.OpenAI, tuner: Tuner, rows: str) -> None:
    jobs, job = client.fine_tuning.jobs, create(client, rows)
    tuner.validate(job.id)
    for move, status in ((jobs.pause, "paused"), (jobs.resume, "queued"), (jobs.cancel, "cancelled")):
        moved = move(job.id)
        check_tuning("job", moved.to_dict())
        assert moved.status == status
    assert jobs.retrieve(job.id).finished_at is not None
    for move in (jobs.pause, jobs.resume, jobs.cancel):
        with pytest.raises(openai.BadRequestError) as refused:  # a 409 would be sent three times
            move(job.id)
        assert refused.value.type == "invalid_request_error"


def test_a_move_needs_neither_a_body_nor_a_content_type(
    served: Served, client: openai.OpenAI, rows: str
) -> None:
    job = create(client, rows)
    url = f"{served.server.url}/v1/fine_tuning/jobs/{job.id}/cancel"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
        assert json.load(answer)["status"] == "cancelled"
        assert answer.headers["x-request-id"]


def test_a_foreign_web_page_moves_no_job(served: Served, client: openai.OpenAI, rows: str) -> None:
    path = f"/v1/fine_tuning/jobs/{create(client, rows).id}/cancel"
    assert served.client.post(path, headers={"origin": "https://evil.example"}).status_code == 403
    assert served.client.post(path, headers={"origin": served.server.url}).status_code == 200


def test_a_failed_job_says_why(client: openai.OpenAI, tuner: Tuner, rows: str) -> None:
    job = create(client, rows)
    tuner.fail(
        tuner.jobs.find(job.id), "invalid_n_examples", "Training file has 9 example(s)", "training_file"
    )
    failed = client.fine_tuning.jobs.retrieve(job.id)
    check_tuning("job", failed.to_dict())
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_n_examples", "training_file")
    newest = client.fine_tuning.jobs.list_events(job.id).data[0]
    assert (newest.level, newest.message) == ("error", "Training file has 9 example(s)")


def test_a_job_says_what_it_waits_for(client: openai.OpenAI, tuner: Tuner, rows: str) -> None:
    first, second = create(client, rows), create(client, rows)
    assert ours(first)["waits_for"].startswith("no worker lives")
    tuner.beat()
    retrieve = client.fine_tuning.jobs.retrieve
    assert ours(retrieve(first.id))["waits_for"] == "a worker"
    assert ours(retrieve(second.id))["waits_for"] == "a worker; 1 job came before it"
    tuner.validate(first.id)
    tuner.begin(first.id)
    told = ours(retrieve(first.id))
    assert (told["waits_for"], told["worker"], told["dataset_report"]) == (None, WORKER, {"rows": 10})


METHODS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {"n_epochs": "auto", "learning_rate_multiplier": "auto"}, {"type": "supervised"}),
    ({"hyperparameters": {"n_epochs": 2}}, {"n_epochs": 2}, {"type": "supervised"}),
    (
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5, "batch_size": 4}}}},
        {"batch_size": 4, "n_epochs": "auto"},
        {"type": "dpo"},
    ),
    ({"method": {"type": "dpo"}, "hyperparameters": {"n_epochs": 3}}, {"n_epochs": 3}, {"type": "dpo"}),
    (
        {
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": {
                        "type": "string_check", "name": "same", "operation": "eq",
                        "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
                    },
                    "hyperparameters": {"reasoning_effort": "low", "eval_samples": 2},
                },
            }
        },
        {"n_epochs": "auto"},
        {"type": "reinforcement"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "told", "method"), METHODS)
def test_every_method_is_kept_with_its_defaults(
    client: openai.OpenAI, rows: str, asked: dict[str, Any], told: dict[str, Any], method: dict[str, Any]
) -> None:
    job = create(client, rows, **asked).to_dict()
    assert job["hyperparameters"].items() >= told.items()
    assert job["method"]["type"] == method["type"]
    hyperparameters = job["method"][method["type"]]["hyperparameters"]
    assert hyperparameters["n_epochs"] == job["hyperparameters"]["n_epochs"]
    if method["type"] == "dpo":
        assert set(hyperparameters) == {"n_epochs", "batch_size", "learning_rate_multiplier", "beta"}


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"modle": "x"}, "modle", "unknown_parameter"),
    ({"model": "gpt-4"}, "model", "model_not_available"),
    ({"model": "ft:nobody"}, "model", "model_not_available"),
    ({"model": "support@9"}, "model", "model_not_available"),
    ({"model": 7}, "model", "invalid_type"),
    ({"training_file": None}, "training_file", "invalid_type"),
    ({"training_file": "file-nothing"}, "training_file", "invalid_file"),
    ({"validation_file": "../../etc/passwd"}, "validation_file", "invalid_file"),
    ({"suffix": ""}, "suffix", "empty_string"),
    ({"suffix": "x" * 65}, "suffix", "string_above_max_length"),
    ({"seed": -1}, "seed", "integer_below_min_value"),
    ({"seed": 2**31}, "seed", "integer_above_max_value"),
    ({"seed": True}, "seed", "invalid_type"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties"),
    ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ({"metadata": {"a": "x" * 513}}, "metadata.a", ""),
    ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "integer_above_max_value"),
    ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs", "invalid_type"),
    ({"hyperparameters": {"n_epoch": 1}}, "hyperparameters.n_epoch", "unknown_parameter"),
    ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier", ""),
    ({"method": {"type": "sft"}}, "method.type", "invalid_value"),
    ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised", "invalid_value"),
    (
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}},
        "method.dpo.hyperparameters.beta",
        "",
    ),
    ({"method": {"type": "reinforcement"}}, "method.reinforcement", "missing_required_parameter"),
    (
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
         "hyperparameters": {"n_epochs": 2}},
        "hyperparameters.n_epochs",
        "invalid_value",
    ),
    ({"integrations": [{"type": "wandb"}]}, "integrations[0].wandb", "missing_required_parameter"),
    ({"x_wardrobe": {"name": "No Name"}}, "x_wardrobe.name", "invalid_value"),
    ({"x_wardrobe": {"name": BASE.upper()}}, "x_wardrobe.name", "invalid_value"),
    ({"x_wardrobe": {"from": "support@9"}}, "x_wardrobe.from", "model_not_available"),
    ({"x_wardrobe": []}, "x_wardrobe", "invalid_type"),
    (
        {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "python", "name": "p"}}}},
        "method.reinforcement.grader.source",
        "missing_required_parameter",
    ),
    (
        {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "none"}}}},
        "method.reinforcement.grader.type",
        "invalid_value",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED)
def test_what_cannot_be_asked_is_refused_in_the_words_of_openai_and_leaves_no_job(
    served: Served, client: openai.OpenAI, rows: str, fields: dict[str, Any], param: str, code: str
) -> None:
    body = {"model": BASE, "training_file": rows, **fields}
    answer = served.client.post("/v1/fine_tuning/jobs", json=body)
    check("error", answer.json())
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["code"] == (code or error["code"]) is not None
    assert not (served.registry.root / "jobs").exists()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"model": "a"}', b'{"x_wardrobe": {"a": NaN}}'])
def test_a_body_that_is_no_request_is_refused(served: Served, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = served.client.post("/v1/fine_tuning/jobs", content=body, headers=headers)
    check("error", answer.json())
    assert answer.status_code == 400


def test_files_of_another_purpose_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, upload(client, "batch"))
    assert (refused.value.code, refused.value.param) == ("invalid_file_purpose", "training_file")


def test_names_and_starts_come_from_what_is_asked(client: openai.OpenAI, rows: str) -> None:
    def told(**fields: Any) -> tuple[str, str]:
        found = ours(create(client, rows, **fields))
        return found["adapter"], found["start"]

    assert told(model=STAND_IN, suffix="Hello, World") == ("hello-world", BASE)
    assert told(extra_body={"x_wardrobe": {"name": "support", "lora": {"rank": 4}}}) == ("support", BASE)
    assert told(model="support@1", suffix="n")[1] == told(model="support", suffix="n")[1] == "support@1"
    assert told(extra_body={"x_wardrobe": {"from": "support@1"}}, suffix="n") == ("n", "support@1")
    adapter, _ = told(suffix="ÄÖ")
    assert adapter.startswith("ft-")
    assert told(suffix=BASE)[0].startswith("ft-")


def test_a_create_that_is_sent_again_makes_one_job(served: Served, client: openai.OpenAI, rows: str) -> None:
    body = {"model": BASE, "training_file": rows, "suffix": "a"}

    def send(**headers: str) -> Any:
        return served.client.post("/v1/fine_tuning/jobs", json=body, headers=headers).json()

    first, on_purpose = send()["id"], send()["id"]
    assert first != on_purpose
    repeated = {"x-stainless-retry-count": "1"}
    assert send(**repeated)["id"] == on_purpose
    assert send(**{"idempotency-key": "k"})["id"] == send(**{"idempotency-key": "k"})["id"] != on_purpose
    body["suffix"] = "b"
    assert send(**repeated)["id"] not in {first, on_purpose}
    assert send(**{"idempotency-key": "k"})["error"]["code"] == "idempotency_key_reused"


def test_what_another_key_made_does_not_exist_unless_the_key_is_an_administrators(
    registry: Registry, tmp_path: Path
) -> None:
    keys = KeyStore(registry.root)
    anna, ben, admin, reader = (
        keys.create([scope], who="tester")[1] for scope in (Scope.TUNE, Scope.TUNE, Scope.ADMIN, Scope.INFER)
    )
    with serve(registry, tmp_path) as server:
        mine, other, all_seeing = (connect(server, token) for token in (anna, ben, admin))
        rows = upload(mine)
        job = create(mine, rows)
        with pytest.raises(openai.BadRequestError) as foreign:
            create(other, rows)
        assert foreign.value.code == "invalid_file"
        jobs = other.fine_tuning.jobs
        for ask in (jobs.retrieve, jobs.cancel, jobs.list_events, jobs.checkpoints.list):
            with pytest.raises(openai.NotFoundError) as unknown:
                ask(job.id)
            assert (unknown.value.code, unknown.value.param) == ("fine_tune_not_found", "fine_tune_id")
        assert list(jobs.list()) == []
        assert [one.id for one in all_seeing.fine_tuning.jobs.list()] == [job.id]
        with pytest.raises(openai.PermissionDeniedError):
            connect(server, reader).fine_tuning.jobs.list()


def test_an_unknown_id_of_any_form_is_a_404(served: Served) -> None:
    for name in ("ftjob-x", "20260101-000000-abcdef", "ftjob-" + "a" * 24, "a%2Fb"):
        answer = served.client.get(f"/v1/fine_tuning/jobs/{name}")
        check("error", answer.json())
        assert answer.status_code == 404


def test_a_log_that_another_server_wrote_is_seen_at_once(
    client: openai.OpenAI, tuner: Tuner, rows: str
) -> None:
    job = create(client, rows)
    tuner.jobs.find(job.id).append(JobEvent.CANCELLED, who="another")
    assert client.fine_tuning.jobs.retrieve(job.id).status == "cancelled"
