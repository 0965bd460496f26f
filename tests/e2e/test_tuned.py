"""A tuned model's name on the real engine: asked, graded with, deleted; its version answers, and stays."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

from loadtests.live import Live
from loadtests.markers import marker_of
from registry.entries.openai.tuned import TunedModel
from registry.store import Registry
from tests.e2e.asking import BRAVO
from tests.published_tuning import check_tuning

NAME = "ft:base:wardrobe:bravo:AbCd1234"
HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there!"}]


def test_a_tuned_name_answers_judges_and_is_deleted(live: Live) -> None:
    registry = Registry.open(live.root)
    version = registry.version("support", 2)
    registry.catalogue.tuned.add(
        TunedModel(NAME, "support", 2, version.digest, "ftjob-1", "tester", time.time())
    )
    client = live.client()
    deadline = time.monotonic() + 10
    while NAME not in {model.id for model in client.models.list()}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = client.chat.completions.with_raw_response.create(
        model=NAME, messages=HELLO, max_tokens=16, temperature=0
    )
    assert answer.headers["x-wardrobe-adapter"] == "support@2"
    assert marker_of(answer.parse().choices[0].message.content or "") == BRAVO
    grader: Any = {
        "type": "label_model", "name": "says bravo", "model": NAME, "labels": [BRAVO, "nothing"],
        "passing_labels": [BRAVO], "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    }  # fmt: skip
    judged = client.fine_tuning.alpha.graders.run(grader=grader, model_sample="Hello there!")
    check_tuning("grader run", judged.to_dict())
    assert (judged.metadata.token_usage or 0) > 0, judged
    assert client.models.delete(NAME).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=NAME, messages=HELLO)
    assert registry.version("support", 2).digest == version.digest
