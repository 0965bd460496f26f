"""The official client against the real server: every way of asking works as it does on vLLM itself."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial

import anthropic
import httpx
import openai
import pytest

from loadtests.live import Live, wardrobe_json
from loadtests.markers import marker_of
from tests.e2e.asking import ALPHA, BRAVO, ask, metric

HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there!"}]
CITY: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
    "required": ["city", "population"],
}


def base_name(live: Live) -> str:
    return next(model.id for model in live.client().models.list() if model.to_dict()["parent"] is None)


def test_a_plain_answer_comes_from_the_stable_version(live: Live) -> None:
    answer = live.client().chat.completions.with_raw_response.create(
        model="support", messages=HELLO, max_tokens=16, temperature=0
    )
    body = answer.parse()
    assert marker_of(body.choices[0].message.content or "") == ALPHA
    assert body.model == "support@1"
    assert "support@1" in body.id
    assert answer.headers["x-wardrobe-adapter"] == "support@1"
    assert answer.headers["x-wardrobe-arm"] == "stable"
    assert answer.headers["x-wardrobe-digest"].startswith("sha256:")


def test_a_streamed_answer_comes_in_pieces_and_names_its_version(live: Live) -> None:
    answer = ask(live.client(), "coding")
    assert answer.marker == BRAVO
    assert answer.model == "coding@1"
    assert answer.finish_reason in {"stop", "length"}


def test_the_async_client_streams_several_adapters_at_once(live: Live) -> None:
    async def one(client: openai.AsyncOpenAI, model: str) -> str:
        stream = await client.chat.completions.create(
            model=model, messages=HELLO, max_tokens=12, temperature=0, stream=True
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    async def several() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client, name) for name in ["support", "coding"] * 4))

    markers = [marker_of(text) for text in asyncio.run(several())]
    assert markers == [ALPHA, BRAVO] * 4


def test_an_explicit_version_and_the_base_answer_as_named(live: Live) -> None:
    client = live.client()
    assert ask(client, "support@2").marker == BRAVO
    assert ask(client, "support@2").headers["x-wardrobe-arm"] == "direct"
    base = ask(client, base_name(live))
    assert base.marker == "none"
    assert base.headers["x-wardrobe-arm"] == "base"


def test_base_and_adapters_in_one_batch_do_not_mix(live: Live) -> None:
    async def several() -> list[str]:
        names = ["support", base_name(live), "coding"] * 4
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(
                *(
                    client.chat.completions.create(model=name, messages=HELLO, max_tokens=12, temperature=0)
                    for name in names
                )
            )
        return [marker_of(answer.choices[0].message.content or "") for answer in answers]

    assert asyncio.run(several()) == [ALPHA, "none", BRAVO] * 4


def test_completions_and_responses_work_unchanged(live: Live) -> None:
    client = live.client()
    completion = client.completions.create(
        model="support", prompt="Once upon a time", max_tokens=4, extra_body={"ignore_eos": True}
    )
    assert completion.model == "support@1"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 4
    response = client.responses.create(
        model="support", input="Hello there!", max_output_tokens=16, temperature=0
    )
    assert marker_of(response.output_text) == ALPHA
    assert "support@1" in response.id


def test_structured_output_is_valid_json_of_the_schema(live: Live) -> None:
    answer = live.client().chat.completions.create(
        model=base_name(live),
        messages=[{"role": "user", "content": "Paris has two million people. Answer in JSON."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": CITY, "strict": True},
        },
        max_tokens=64,
        temperature=0,
    )
    parsed = json.loads(answer.choices[0].message.content or "")
    assert set(parsed) == {"city", "population"}


def test_tools_are_refused_where_the_template_has_no_tool_format_and_the_setting_is_named(live: Live) -> None:
    tool: openai.types.chat.ChatCompletionToolParam = {
        "type": "function",
        "function": {"name": "record_city", "description": "Record a city", "parameters": CITY},
    }
    ask_for = partial(live.client().chat.completions.create, model="support", messages=HELLO, tools=[tool])
    named = {"type": "function", "function": {"name": "record_city"}}
    for choice in ("auto", "required", named):
        with pytest.raises(openai.BadRequestError, match="set `tool_call_parser`") as caught:
            ask_for(tool_choice=choice)
        assert caught.value.code == "tools_not_enabled"
    flat: openai.types.responses.FunctionToolParam = {
        "type": "function", "name": "record_city", "parameters": CITY, "strict": None,
    }  # fmt: skip
    with pytest.raises(openai.BadRequestError, match="set `tool_call_parser`"):
        live.client().responses.create(model="support", input="Hello there!", tools=[flat])
    assert ask_for(tool_choice="none", max_tokens=8).model == "support@1"


def test_a_response_goes_on_from_the_one_before_it(live: Live) -> None:
    client = live.client()
    first = client.responses.create(model="support", input="Hello there!", max_output_tokens=16)
    second = client.responses.create(
        model="support", input="And again?", previous_response_id=first.id, max_output_tokens=16
    )
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + 10
    assert client.responses.retrieve(second.id).output_text == second.output_text
    # As Vercel's SDK and Codex send a history: parts without type and id (vllm#33089).
    parts = [{"type": "output_text", "text": "Hi"}]
    history: list[dict[str, object]] = [*HELLO, {"role": "assistant", "content": parts}, *HELLO]  # type: ignore[list-item]
    answer = httpx.post(f"{live.url}/v1/responses", json={"model": "support", "input": history}, timeout=60)
    assert answer.status_code == 200


def test_the_engines_own_errors_have_our_types_and_codes(live: Live) -> None:
    client = live.client()
    long = [{"role": "user", "content": "word " * 3_000}]
    with pytest.raises(openai.BadRequestError) as overflow:
        client.chat.completions.create(model="support", messages=long)  # type: ignore[arg-type]
    assert (overflow.value.code, overflow.value.param) == ("context_length_exceeded", "messages")
    assert overflow.value.request_id
    with pytest.raises(openai.BadRequestError) as invalid:
        client.chat.completions.create(model="support", messages=HELLO, temperature=-1)
    assert (invalid.value.type, invalid.value.code) == ("invalid_request_error", "invalid_request")
    with pytest.raises(openai.NotFoundError) as task:
        client.embeddings.create(model="support", input="Hi")
    assert task.value.code == "task_not_supported"
    model = client.models.retrieve("support").to_dict()
    assert model["max_model_len"] == 1024
    url = live.url
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as other:
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long") as too_long:
            other.messages.create(model="support", max_tokens=8, messages=long)  # type: ignore[arg-type]
        assert too_long.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]


def test_an_unknown_model_is_a_404_that_lists_what_exists(live: Live) -> None:
    client = live.client()
    for name in ("suport", "support@9", "support@nope", "support@canary", "../etc", "support@"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=name, messages=HELLO)
        assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="coding"):
        client.chat.completions.create(model="suport", messages=HELLO)


def test_the_models_list_names_base_and_adapters_with_their_versions(live: Live) -> None:
    models = {model.id: model for model in live.client().models.list()}
    base = base_name(live)
    assert {base, "support", "coding"} <= set(models)
    assert models["support"].to_dict()["parent"] == base
    assert live.client().models.retrieve("support").id == "support"


def test_malformed_bodies_are_refused_in_openais_shape(live: Live) -> None:
    address = f"{live.url}/v1/chat/completions"
    for body in (b"{", b"[]", b'{"model": 3}', b"{}", b"\xff\xfe"):
        answer = httpx.post(address, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, body
        assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
    path = {"model": "support", "messages": HELLO, "lora_path": "/etc"}
    refused = httpx.post(address, json=path)
    assert refused.status_code == 400
    assert "lora_path" in refused.json()["error"]["message"]


def test_vllms_own_admin_routes_are_closed(live: Live) -> None:
    for path in (
        "/v1/load_lora_adapter",
        "/adapters",
        "/invocations",
        "/docs",
        "/openapi.json",
        "//v1/models",
    ):
        assert httpx.post(f"{live.url}{path}", json={}).status_code == 404, path
    assert httpx.get(f"{live.url}/version").status_code == 404


def test_a_client_that_leaves_ends_the_generation(live: Live) -> None:
    cancelled = {"adapter": "support", "outcome": "cancelled"}
    before = metric(live.url, "wardrobe_inference_requests_total", **cancelled)
    body = {"model": "support", "messages": HELLO, "max_tokens": 900, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{live.url}/v1/chat/completions", json=body, timeout=60) as response:
        next(response.iter_bytes())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if metric(live.url, "wardrobe_inference_requests_total", **cancelled) > before:
            break
        time.sleep(0.1)
    assert metric(live.url, "wardrobe_inference_requests_total", **cancelled) == before + 1
    time.sleep(0.5)
    assert metric(live.url, "vllm:num_requests_running") == 0


def test_the_first_load_stored_a_proof(live: Live) -> None:
    shown = wardrobe_json(live.root, "show", "support@1")
    proofs = [entry for entry in shown["attestations"] if entry["kind"] == "proof"]
    assert len(proofs) == 1
    assert proofs[0]["body"]["passed"] is True


def test_the_metrics_name_every_version_that_answered(live: Live) -> None:
    ask(live.client(), "support")
    done = {"adapter": "support", "version": "1", "arm": "stable"}
    assert metric(live.url, "wardrobe_inference_requests_total", outcome="ok", **done) >= 1
    assert metric(live.url, "wardrobe_inference_ttft_seconds_count", **done) >= 1
    assert metric(live.url, "wardrobe_inference_duration_seconds_count", **done) >= 1
    assert metric(live.url, "wardrobe_inference_tokens_total", type="output", **done) >= 1
    assert metric(live.url, "wardrobe_adapter_loads_total", outcome="ok") >= 2
    assert metric(live.url, "vllm:generation_tokens_total") > 0


def test_anthropics_messages_are_answered_by_the_named_version(live: Live) -> None:
    body = {"model": "support", "max_tokens": 16, "messages": HELLO, "temperature": 0}
    answer = httpx.post(f"{live.url}/v1/messages", json=body, timeout=60)
    assert answer.status_code == 200
    assert marker_of(answer.json()["content"][0]["text"]) == ALPHA
    assert answer.headers["x-wardrobe-adapter"] == "support@1"
    unknown = httpx.post(f"{live.url}/v1/messages", json={**body, "model": "nope"}, timeout=60)
    assert unknown.status_code == 404
    assert unknown.json()["type"] == "error"
