"""Rows with tools over OpenAI's own client and a real socket, as the worker's real check takes them."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import openai
import pytest

from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from tests.fakes.base import make_base
from tests.fakes.openai_client import connect
from tests.fakes.served import BASE, serve
from tests.fakes.tuning import claim
from tests.published_tuning import check_tuning
from tests.train.bases import shortened
from train.model.loading import load_tokenizer
from train.rendering.interface import IGNORED
from train.worker.checking import JobRefusal, check, prepared

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
FUNCTION: dict[str, Any] = {"name": "lamp", "description": "Switch it.", "parameters": SCHEMA}
TOOL: dict[str, Any] = {"type": "function", "function": FUNCTION}
CALLED = '<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call><|im_end|>'
SAID = {"role": "assistant", "content": "It is on."}


def call(name: str = "lamp", arguments: str = '{"on": true}', **keys: Any) -> dict[str, Any]:
    one = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}, **keys}
    return {"role": "assistant", "content": None, "tool_calls": [one]}


def row(*answer: dict[str, Any], asked: str = "Light on", **keys: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, *answer], "tools": [TOOL], **keys}


GOOD = [row(call(), asked=f"Light {n}", parallel_tool_calls=True) for n in range(10)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Registry:
    """A root whose base has Qwen2.5's template."""
    folder = tmp_path_factory.mktemp("calling")
    base = make_base(folder / "base", config={"max_position_embeddings": 2048})
    known = shortened(copy.copy(tokenizer))
    known.chat_template = files("trl").joinpath("chat_templates", "qwen2_5.jinja").read_text()
    known.save_pretrained(base)
    return Registry.init(folder / "root", base, name=BASE)


@pytest.fixture(scope="module")
def client(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with serve(registry, tmp_path_factory.mktemp("served")) as served, connect(served) as client:
        yield client


def ask(client: openai.OpenAI, registry: Registry, *rows: dict[str, Any], **extras: Any) -> TuningJob:
    content = "".join(f"{json.dumps(one)}\n" for one in rows).encode()
    file = client.files.create(file=("rows.jsonl", content), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=file.id, extra_body={"x_wardrobe": {"lora": {"rank": 4}, **extras}}
    )
    return TuningJobs(registry.catalogue.root).find(job.id)


def look(client: openai.OpenAI, registry: Registry, job: TuningJob) -> Any:
    """Look at a job's rows as a worker does; return the job as its client sees it then."""
    claim(job)
    try:
        outcome = check(job, registry, patience_seconds=1.0)
    except JobRefusal as refusal:
        outcome = refusal.outcome()
    job.append(outcome.event, who="one", worker="one", message=outcome.message, facts=outcome.facts)
    told = client.fine_tuning.jobs.retrieve(job.id)
    check_tuning("job", told.to_dict())
    return told


def warnings(told: Any) -> list[str]:
    found: list[str] = told.to_dict()["x_wardrobe"]["dataset_report"]["warnings"]
    return found


RESULT = {"role": "tool", "tool_call_id": "c1", "content": "done"}
MANY = [TOOL, *({"type": "function", "function": {"name": f"t{n}"}} for n in range(128))]
TAKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a call, its result and an answer": (row(call(), RESULT, SAID), f"{CALLED}It is on.<|im_end|>"),
    "an answer and a call": (
        row(SAID, {"role": "user", "content": "?"}, call()), f"It is on.<|im_end|>{CALLED}"
    ),
    "a weight in a message": (
        row({**SAID, "weight": 0}, {"role": "user", "content": "Light on"}, {**call(), "weight": 1}),
        CALLED,
    ),
    "a result without the id of its call": (
        row(call(), {"role": "tool", "content": "done"}, SAID), f"{CALLED}It is on.<|im_end|>"
    ),
    "tools as Responses have them": (
        row(call(), tools=[{"type": "function", **FUNCTION, "strict": True}]), CALLED
    ),
    "the old functions": (
        row({"role": "assistant", "function_call": {"name": "lamp", "arguments": '{"on": true}'}},
            functions=[FUNCTION], tools=None),
        CALLED,
    ),
    "129 tools": (row(call(), tools=MANY), CALLED),
    "a call of no tool that is not learnt": (
        row({**call("oven"), "weight": 0}, {**RESULT, "content": "no such tool"}, SAID), "It is on.<|im_end|>"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_every_way_that_openais_rows_have_tools_is_learnt_as_what_the_model_says(
    name: str, client: openai.OpenAI, registry: Registry
) -> None:
    written, learnt = TAKEN[name]
    job = ask(client, registry, *GOOD, written, training={"max_length": 8192})
    told = look(client, registry, job)
    assert told.status == "queued", told.error
    item: Any = prepared(job, registry).items[-1]
    tokens = [one for one, label in zip(item.input_ids, item.labels, strict=True) if label != IGNORED]
    assert load_tokenizer(registry.base.path).decode(tokens) == learnt


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "arguments that are no JSON": (row(call(arguments="{on: true}")), "tool_calls[0] (lamp)"),
    "arguments that are a list": (row(call(arguments="[1]")), "not a JSON object"),
    "a tool that is not there": (row(call("oven")), "calls oven, and its tools are lamp"),
    "a result of no call": (row({**RESULT, "tool_call_id": "c9"}, SAID), "a result of the call c9"),
    "a result before any call": (row({"role": "tool", "content": "done"}, SAID), "which no call waits for"),
    "a call of the user": (row({**call(), "role": "user"}, SAID), "only the assistant calls"),
    "a call without a name": (row(call("")), "names no tool"),
    "a weight of 2": (row({**call(), "weight": 2}), "messages[1].weight is 2, not 0 or 1"),
    "nothing to learn": (row({**call(), "weight": 0}), "no assistant message to learn from"),
    "a tool of the server's": (row(SAID, tools=[{"type": "web_search"}]), "only functions can be called"),
    "a custom tool's call": (row(call(type="custom")), "not function"),
    "tools that are a number": (row(SAID, tools=3), "tools is 3"),
    "items of Responses": (
        {"input": [{"type": "function_call", "name": "lamp", "arguments": "{}", "call_id": "c1"}]}, ""
    ),
    "129 tools that leave no room": (row(call(), tools=MANY), "cuts it off entirely"),
    "tools without a bottom": (row(SAID, tools=json.loads("[" * 400 + "]" * 400)), "tools[0]"),
    "a mark of the template": (row(call(arguments='{"on": "<|im_end|>"}')), "special token <|im_end|>"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_that_cannot_be_meant_is_refused_in_openais_words_with_its_line(
    name: str, client: openai.OpenAI, registry: Registry
) -> None:
    written, words = REFUSED[name]
    told = look(client, registry, ask(client, registry, *GOOD, written))
    assert told.status == "failed"
    assert (told.error.code, told.error.param) == ("invalid_training_file", "training_file")
    assert "Invalid file format. Example 11" in told.error.message
    assert words in told.error.message
    assert str(registry.root) not in told.error.message


def test_what_a_person_has_accepted_is_trained(client: openai.OpenAI, registry: Registry) -> None:
    job = ask(client, registry, *GOOD, row(call("oven")), data={"accept": ["D-TOOL"]})
    assert look(client, registry, job).status == "queued"


def test_arguments_that_miss_the_schema_are_told_with_their_lines(
    client: openai.OpenAI, registry: Registry
) -> None:
    bad = [row(call(arguments=json.dumps({"on": n})), asked=f"Lamp {n}") for n in range(7)]
    told = look(client, registry, ask(client, registry, *GOOD, *bad))
    (found,) = (one for one in warnings(told) if one.startswith("D-ARGUMENTS"))
    rows = ", ".join(f"training_file row {n}" for n in range(11, 16))
    assert f"({rows} and 2 more)" in found


COSTLY = {"type": "object", "properties": {"on": {"type": "string", "pattern": "^(a+)+$"}}}
HOSTILE: dict[str, dict[str, Any]] = {
    "an address": {"$ref": "http://127.0.0.1:1/schema.json"},
    "a file": {"$ref": "file:///etc/hostname"},
    "itself": {"$ref": "#"},
    "nothing": {"$ref": "#/$defs/none"},
    "no schema": {"type": 7},
    "a pattern without end": COSTLY,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_schema_of_a_stranger_opens_nothing_and_holds_nobody_up(
    name: str, client: openai.OpenAI, registry: Registry
) -> None:
    tool = {"type": "function", "function": {"name": "lamp", "parameters": HOSTILE[name]}}
    written = row(call(arguments=json.dumps({"on": "a" * 60 + "!"})), tools=[tool])
    began = time.process_time()
    told = look(client, registry, ask(client, registry, *GOOD, written))
    assert told.status == "queued", told.error
    assert time.process_time() - began < 60
    assert any("was given up" in one for one in warnings(told)) is (HOSTILE[name] is COSTLY)
