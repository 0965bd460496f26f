"""The same rows over OpenAI's fine-tuning API, by the official client, trained by the server's own worker.

What comes back is read as an application reads it: `message.tool_calls` of `job.fine_tuned_model`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from loadtests.live import Live
from train.dataset.records import ToolCall
from train.evaluation.formats.forms import SuiteItem
from train.evaluation.formats.specs import Calls, Spec
from train.evaluation.grading.calling import judge_arguments, judge_calls
from train.evaluation.grading.grades import Grade, ModelAnswer
from train.evaluation.statistics.figures import figure

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionMessage
    from openai.types.fine_tuning import FineTuningJob

STREAMED = 14
"""So many questions are asked a second time, as streams."""
_LIMIT_SECONDS = 1800.0
_ENDS = {"succeeded", "failed", "cancelled"}
_DONE = "The job has successfully completed"


def tune(live: Live, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[str, float]:
    """Upload `rows`, train them with `settings` of a training config; return the model and the seconds."""
    client = live.client()
    content = "".join(json.dumps(_as_openai(row)) + "\n" for row in rows).encode()
    file = client.files.create(file=("train.jsonl", content), purpose="fine-tune")
    began = time.monotonic()
    job = client.fine_tuning.jobs.create(
        model="base", training_file=file.id, suffix="home", seed=settings["seed"],
        extra_body={"x_wardrobe": {key: settings[key] for key in ("lora", "training")}},
    )  # fmt: skip
    job = _ended(client, job)
    assert job.status == "succeeded", job.error
    said = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert said[0] == _DONE, said
    assert job.fine_tuned_model
    return job.fine_tuned_model, time.monotonic() - began


def ask(
    live: Live, model: str, rows: Sequence[Mapping[str, Any]], suite: Mapping[str, Any]
) -> tuple[dict[str, Any], float]:
    """Ask the questions of `rows`; return an arm as `measure` has it, and the share that streams alike."""
    client = live.client()
    answers = [_answer(client, model, row, suite) for row in rows]
    streamed = [_streamed(client, model, row, suite) for row in rows[:STREAMED]]
    alike = [said.calls == other for said, other in zip(answers, streamed, strict=False)]
    specs: list[Spec] = TypeAdapter(list[Spec]).validate_python(suite["graders"])
    items = [SuiteItem.model_validate(row) for row in rows]
    judged = {
        spec.label: [_judge(spec, item, said) for item, said in zip(items, answers, strict=True)]
        for spec in specs
    }
    found = {spec.label: figure(spec, judged[spec.label]) for spec in specs}
    figures = {
        name: {"value": one.value, "low": one.low, "high": one.high, "items": one.items}
        for name, one in found.items()
    }
    verdicts = [{name: grades[at].score for name, grades in judged.items()} for at in range(len(rows))]
    return {"figures": figures, "verdicts": verdicts}, sum(alike) / len(alike)


def _as_openai(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with more of what OpenAI's may hold: a weight, and whether calls are parallel."""
    *asked, answer = row["messages"]
    return {**row, "messages": [*asked, {**answer, "weight": 1}], "parallel_tool_calls": True}


def _ended(client: openai.OpenAI, job: FineTuningJob) -> FineTuningJob:
    until = time.monotonic() + _LIMIT_SECONDS
    while job.status not in _ENDS:
        assert time.monotonic() < until, job
        time.sleep(1)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def _request(model: str, row: Mapping[str, Any], suite: Mapping[str, Any]) -> dict[str, Any]:
    sampling = {"temperature": 0, **suite["sampling"]}
    return {"model": model, "messages": row["messages"][:-1], "tools": row["tools"], **sampling}


def _answer(
    client: openai.OpenAI, model: str, row: Mapping[str, Any], suite: Mapping[str, Any]
) -> ModelAnswer:
    answer = client.chat.completions.create(**_request(model, row, suite))
    message: ChatCompletionMessage = answer.choices[0].message
    calls = [
        ToolCall(call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
        if call.type == "function"
    ]
    return ModelAnswer(message.content or "", answer.choices[0].finish_reason, calls=tuple(calls))


def _streamed(
    client: openai.OpenAI, model: str, row: Mapping[str, Any], suite: Mapping[str, Any]
) -> tuple[ToolCall, ...]:
    """Return the calls of an answer that comes in pieces."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for chunk in client.chat.completions.create(**_request(model, row, suite), stream=True):
        for piece in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
            function = piece.function
            names[piece.index] = names.get(piece.index, "") + (function.name or "")
            arguments[piece.index] = arguments.get(piece.index, "") + (function.arguments or "")
    return tuple(ToolCall(names[index], arguments[index]) for index in sorted(names))


def _judge(spec: Spec, item: SuiteItem, said: ModelAnswer) -> Grade:
    return judge_calls(spec, item, said) if isinstance(spec, Calls) else judge_arguments(item, said)
