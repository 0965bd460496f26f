"""Graders run and validated over OpenAI's own client: a child judges, the server's own models reply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.store import Registry
from serve.tuning_settings import TuningSettings
from tests.fakes.openai_client import connect
from tests.fakes.served import Served, serve
from tests.published_tuning import check_tuning

CHECK: dict[str, Any] = {
    "type": "string_check", "name": "same", "operation": "eq",
    "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
}  # fmt: skip
LABEL: dict[str, Any] = {
    "type": "label_model", "name": "polite", "model": "gpt-4o", "labels": ["Hello", "nothing"],
    "passing_labels": ["Hello"], "input": [{"role": "user", "content": "{{sample.output_text}}"}],
}  # fmt: skip


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    with serve(registry, tmp_path, tuning=TuningSettings(models={"gpt-4o": "support@1"})) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with connect(served) as client:
        yield client


def test_graders_judge_as_an_evaluation_does(served: Served, client: openai.OpenAI) -> None:
    graders = client.fine_tuning.alpha.graders
    found = graders.run(grader=CHECK, model_sample="yes", item={"answer": "yes"})  # type: ignore[arg-type]
    check_tuning("grader run", found.to_dict())
    assert (found.reward, found.metadata.name, found.metadata.type) == (1.0, "same", "string_check")
    multi: Any = {
        "type": "multi", "name": "all", "calculate_output": "same + 2 * polite",
        "graders": {"same": CHECK, "polite": LABEL},
    }  # fmt: skip
    joined = graders.run(grader=multi, model_sample="yes", item={"answer": "no"})
    check_tuning("grader run", joined.to_dict())
    assert joined.sub_rewards.keys() == {"same", "polite"}
    assert served.inner.seen[-1].body["model"] == "support@1"
    assert joined.metadata.sampled_model_name == "gpt-4o"
    missing = graders.run(grader=CHECK, model_sample="yes")  # type: ignore[arg-type]
    assert (missing.reward, missing.metadata.errors.invalid_variable_error) == (0.0, True)


def test_a_grader_is_validated_by_returning_it(client: openai.OpenAI) -> None:
    graders = client.fine_tuning.alpha.graders
    found = graders.validate(grader=CHECK)  # type: ignore[arg-type]
    check_tuning("grader", found.to_dict())
    assert found.to_dict() == {"grader": CHECK}
    wrong: list[dict[str, Any]] = [
        {**CHECK, "operation": "is"},
        {**CHECK, "input": "{{nothing.a}}"},
        {"type": "python", "name": "code", "source": "def grade("},
        {"type": "multi", "name": "m", "graders": {"a": CHECK}, "calculate_output": "b"},
    ]
    for grader in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            graders.validate(grader=grader)  # type: ignore[arg-type]
        assert refused.value.type == "invalid_request_error"


def test_a_server_may_refuse_to_run_the_code_of_clients(registry: Registry, tmp_path: Path) -> None:
    code: Any = {"type": "python", "name": "code", "source": "def grade(sample, item):\n    return 1.0"}
    method: Any = {"type": "reinforcement", "reinforcement": {"grader": code}}
    with serve(registry, tmp_path, tuning=TuningSettings(python_graders=False)) as server:
        client = connect(server)
        graders = client.fine_tuning.alpha.graders
        for ask in (
            lambda: graders.validate(grader=code),
            lambda: graders.run(grader=code, model_sample="a"),
            lambda: client.fine_tuning.jobs.create(model="tiny", training_file="file-1", method=method),
            lambda: client.fine_tuning.jobs.create(
                model="tiny",
                training_file="file-1",
                extra_body={"x_wardrobe": {"method": {"type": "grpo", "reward": {"graders": [code]}}}},
            ),
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                ask()
            assert refused.value.code == "python_graders_disabled"


def test_a_model_is_asked_as_whoever_asks(registry: Registry, tmp_path: Path) -> None:
    keys = KeyStore(registry.root)
    tune = keys.create([Scope.TUNE], who="tester")[1]
    both = keys.create([Scope.TUNE, Scope.INFER], who="tester")[1]
    label: Any = {**LABEL, "model": "support@1"}
    with serve(registry, tmp_path) as server:
        refused = connect(server, tune).fine_tuning.alpha.graders.run(grader=label, model_sample="a")
        errors = refused.to_dict()["metadata"]["errors"]  # type: ignore[index]
        assert errors["model_grader_server_error"]
        assert "infer" in errors["model_grader_server_error_details"]
        asked = connect(server, both).fine_tuning.alpha.graders.run(grader=label, model_sample="a")
        assert not asked.to_dict()["metadata"]["errors"]["model_grader_server_error"]  # type: ignore[index]
