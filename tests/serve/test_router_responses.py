"""Stored responses on a real uvicorn, asked by the official client: go on, retrieve, list, forget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.store import Registry
from serve.settings import ResponseSettings
from tests.fakes.served import Served, serve

FORGED = "resp_0123456789abcdef.support@1.s.0123456789abcdef.0123456789abcdef0123"


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with speaking(served) as found:
        yield found


def speaking(served: Served, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.client.base_url}/v1", api_key=key, max_retries=0)


def asked(served: Served) -> Any:
    """Return the body that arrived behind the router last."""
    return served.inner.seen[-1].body


def test_a_request_goes_on_from_the_response_that_it_names(served: Served, client: openai.OpenAI) -> None:
    first = client.responses.create(model="support", input="One", instructions="Be brief")
    second = client.responses.create(model="support", input="Two", previous_response_id=first.id)
    assert second.output_text == "seen 3"
    given = asked(served)
    assert [(one["role"], one["content"]) for one in given["input"][::2]] == [
        ("user", "One"),
        ("user", "Two"),
    ]
    assert given["input"][1]["content"][0]["text"] == "seen text"
    # vLLM keeps nothing, and the instructions of one turn are not the next one's.
    assert (given["store"], "previous_response_id" in given, "instructions" in given) == (False, False, False)
    third = client.responses.create(
        model="support", input=[{"role": "user", "content": "Three"}], previous_response_id=second.id
    )
    assert third.output_text == "seen 5"
    again = client.responses.create(model="support", input="Other", previous_response_id=first.id)
    assert again.output_text == "seen 3"


def test_a_streamed_response_is_kept_too(served: Served, client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="support", input="One", stream=True))
    assert events[-1].type == "response.completed"
    second = client.responses.create(
        model="support", input="Two", previous_response_id=events[-1].response.id
    )
    assert second.output_text == "seen 3"


def test_a_response_is_retrieved_whole_or_as_a_stream_and_can_be_forgotten(client: openai.OpenAI) -> None:
    first = client.responses.create(model="support", input="One")
    second = client.responses.create(model="support", input="Two", previous_response_id=first.id)
    found = client.responses.retrieve(second.id)
    assert (found.id, found.output_text, found.previous_response_id) == (second.id, "seen 3", first.id)
    kinds = [event.type for event in client.responses.retrieve(second.id, stream=True)]
    assert kinds == ["response.created", "response.output_item.done", "response.completed"]
    rest = client.responses.retrieve(second.id, stream=True, starting_after=0)
    assert [event.sequence_number for event in rest] == [1, 2]
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.retrieve(second.id)
    assert gone.value.code == "response_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(second.id)


def test_the_items_that_the_model_was_asked_are_listed_in_pages(client: openai.OpenAI) -> None:
    first = client.responses.create(model="support", input="One")
    second = client.responses.create(model="support", input="Two", previous_response_id=first.id)
    every = client.responses.input_items.list(second.id, order="asc")
    texts = [part.text for one in every.data for part in one.content]  # type: ignore[union-attr]
    assert texts == ["One", "seen text", "Two"]
    page = client.responses.input_items.list(second.id, limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    assert len(list(page)) == 3  # the client asks for the next page by itself
    for wrong in ({"limit": 0}, {"after": "nothing"}):
        with pytest.raises(openai.BadRequestError):
            client.responses.input_items.list(second.id, **wrong)


@pytest.mark.parametrize("number", ["²", "٣", "-1", "1.0", "1" * 10, "x"])
def test_what_is_no_number_in_a_query_is_refused(served: Served, client: openai.OpenAI, number: str) -> None:
    path = f"/v1/responses/{client.responses.create(model='support', input='One').id}"
    for asked in (
        served.client.get(path, params={"stream": "true", "starting_after": number}),
        served.client.get(f"{path}/input_items", params={"limit": number}),
    ):
        assert (asked.status_code, asked.json()["error"]["code"]) == (400, "invalid_body")


def test_a_turn_that_was_given_may_be_sent_by_reference(served: Served, client: openai.OpenAI) -> None:
    first = client.responses.create(model="support", input="One")
    items: Any = [
        {"role": "user", "content": "One"},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "Two"},
    ]
    client.responses.create(model="support", input=items)
    assert asked(served)["input"][1]["content"][0]["text"] == "seen text"
    items[1]["id"] = "msg_other"
    with pytest.raises(openai.BadRequestError, match="is not kept here"):
        client.responses.create(model="support", input=items)


def test_store_false_keeps_nothing_and_may_go_on_from_what_is_kept(client: openai.OpenAI) -> None:
    first = client.responses.create(model="support", input="One", store=True)
    second = client.responses.create(model="support", input="Two", previous_response_id=first.id, store=False)
    assert second.output_text == "seen 3"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_an_unknown_response_is_refused_before_any_version_is_asked(
    served: Served, client: openai.OpenAI
) -> None:
    for name in (FORGED, "resp_x"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="support", input="Two", previous_response_id=name)
        assert caught.value.code == "previous_response_not_found"
        assert caught.value.param == "previous_response_id"
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(name)
    assert served.inner.seen == []
    assert served.outcomes() == {}


def test_a_failed_answer_is_not_kept(served: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model="support", input="One", extra_body={"play": "500"})
    assert served.router._inference is not None
    assert served.router._inference.stored.count == 0


def test_a_complete_response_cannot_be_cancelled(client: openai.OpenAI) -> None:
    first = client.responses.create(model="support", input="One")
    with pytest.raises(openai.BadRequestError, match="is complete"):
        client.responses.cancel(first.id)


def test_a_key_sees_its_own_responses_only(registry: Registry, tmp_path: Path) -> None:
    keys = KeyStore(registry.root)
    mine, other = (keys.create({Scope.INFER}, who="tester")[1] for _ in range(2))
    with serve(registry, tmp_path) as served, speaking(served, mine) as me, speaking(served, other) as you:
        first = me.responses.create(model="support", input="One")
        assert me.responses.retrieve(first.id).id == first.id
        with pytest.raises(openai.NotFoundError):
            you.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            you.responses.delete(first.id)
        with pytest.raises(openai.BadRequestError, match="is not kept here"):
            you.responses.create(model="support", input="Two", previous_response_id=first.id)
        assert httpx.get(f"{served.client.base_url}/v1/responses/{first.id}").status_code == 401


def test_where_nothing_is_kept_only_who_asks_for_it_is_refused(registry: Registry, tmp_path: Path) -> None:
    none = ResponseSettings(max_bytes=0)
    with serve(registry, tmp_path, responses=none) as served, speaking(served) as client:
        assert client.responses.create(model="support", input="One").output_text == "seen text"
        assert client.responses.create(model="support", input="One", store=False).id
        wrong: list[dict[str, Any]] = [{"store": True}, {"previous_response_id": FORGED}]
        for more in wrong:
            with pytest.raises(openai.BadRequestError, match=r"responses\.max_bytes") as caught:
                client.responses.create(model="support", input="One", **more)
            assert caught.value.param == next(iter(more))


def test_a_conversation_that_goes_on_by_id_stays_on_its_arm(served: Served, client: openai.OpenAI) -> None:
    served.publish("support", 2)
    served.open_rollout(canary=2, weight=5_000)
    first = client.responses.create(model="support", input="One")
    second = client.responses.create(model="support", input="Two", previous_response_id=first.id)
    third = client.responses.create(model="support", input="Three", previous_response_id=second.id)
    answered = [served.runtime.ids.verify(one.id) for one in (first, second, third)]
    assert len({(one.unit, one.version) for one in answered if one is not None}) == 1


@pytest.mark.parametrize("previous", [None, ""])
def test_an_empty_previous_response_is_none(served: Served, previous: str | None) -> None:
    body = {"model": "support", "input": "One", "previous_response_id": previous}
    assert served.client.post("/v1/responses", json=body).status_code == 200
    assert "previous_response_id" not in asked(served)
    assert json.loads(json.dumps(asked(served)))["input"] == "One"


@pytest.mark.parametrize(
    "closing",
    [
        "event: response.completed\ndata: {}\n\n",
        "event: response.completed\ndata: [1]\n\n",
        "event: response.completed\ndata: {\n\n",
        'event: response.completed\ndata: {"response": {"id": 3}}\n\n',
    ],
)
def test_a_closing_event_that_holds_no_response_costs_nobody_the_answer(served: Served, closing: str) -> None:
    body = {"model": "support", "input": "Hi", "stream": True, "play": "events", "events": [closing]}
    with served.client.stream("POST", "/v1/responses", json=body) as answer:
        assert answer.read().decode() == closing
    served.settled()
    assert served.outcomes() == {"ok": 1}
    assert served.router._inference is not None
    assert served.router._inference.stored.count == 0
