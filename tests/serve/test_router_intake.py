"""What a body costs before it is worked on, over a real socket: time, memory, shape, text."""

from __future__ import annotations

import json
import select
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from registry.store import Registry
from serve.bounds.bodies import THREAD_BYTES
from serve.bounds.grammars import CONSTRAINTS
from serve.control.layer import MAX_JSON_BYTES
from serve.rollout.assignment import conversation_unit
from serve.settings import RequestLimits
from tests.fakes.engine import FakeEngine
from tests.fakes.raw import Answer, RawClient, request
from tests.fakes.served import BASE, Served, make_root, publish, serve, wait_until

CHAT = "/v1/chat/completions"
ALIAS = "/admin/v1/adapters/support/aliases/mine"
UPLOAD = "/admin/v1/adapters/support/versions"
JSON = "content-type: application/json"
FORM = "content-type: multipart/form-data; boundary=x"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for what leaves nothing behind."""
    folder = tmp_path_factory.mktemp("shared")
    root = make_root(folder)
    publish(root, folder, "support", 1)
    with serve(root, folder) as server:
        yield server
        assert server.inner.seen == []


def raw(served: Served) -> RawClient:
    return RawClient(served.client.base_url.port or 0)


def post(served: Served, body: bytes, path: str = CHAT, headers: tuple[str, ...] = (JSON,)) -> Answer:
    with raw(served) as client:
        return client.ask("PUT" if path == ALIAS else "POST", path, headers, body)


def chat(**fields: Any) -> bytes:
    return json.dumps(
        {"model": "support", "messages": [{"role": "user", "content": "hi"}], **fields}
    ).encode()


def test_clients_that_send_slowly_hold_no_place_among_those_in_flight(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry, tmp_path, limits=RequestLimits(max_concurrency=2)) as served, ExitStack() as stack:
        for _ in range(5):
            slow = stack.enter_context(raw(served))
            slow.send(request("POST", CHAT, [JSON, "content-length: 100"]) + b'{"model":')
        assert [served.chat().status_code for _ in range(3)] == [200] * 3


FIELDS = (
    "tools",
    "structured_outputs",
    "response_format",
    "text",
    "output_config",
    "n",
    "max_tokens",
    "user",
)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("padding", [0, THREAD_BYTES])
def test_a_number_that_nothing_can_hold_is_no_failure_of_the_servers(
    registry: Registry, tmp_path: Path, path: str, padding: int
) -> None:
    begin = b'{"model":"support","messages":[{"role":"user","content":"hi"}],"prompt":"hi","input":"hi","x":"'
    with serve(registry, tmp_path, limits=RequestLimits(max_tokens=9)) as served:
        for field in FIELDS:
            for value in (
                b"1e999",
                b"-1e999",
                b"[1e999]",
                b'{"json":{"$ref":"#/a/\xc2\xb2","a":[]},"b":1e999}',
            ):
                body = begin + b"x" * padding + b'","' + field.encode() + b'":' + value + b"}"
                answer = post(served, body, path)
                assert answer.status in ({400} if field in CONSTRAINTS else {200, 400}), (field, value)


@pytest.mark.parametrize(
    ("path", "header"),
    [(CHAT, JSON), ("/v1/messages", JSON), ("/v1/feedback", JSON), (ALIAS, JSON), (UPLOAD, FORM)],
)
@pytest.mark.parametrize("begin", [b"", b'{"a'])
def test_a_body_that_does_not_come_is_told_so_and_the_connection_ends(
    registry: Registry, tmp_path: Path, path: str, header: str, begin: bytes
) -> None:
    limits = RequestLimits(body_seconds=0.05)
    with serve(registry, tmp_path, limits=limits) as served, raw(served) as client:
        method = "PUT" if path == ALIAS else "POST"
        client.send(request(method, path, [header, "content-length: 100"]) + begin)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert answer.error()["code"] == "request_timeout"
        assert "limits.body_seconds" in answer.error()["message"]
        assert client.is_closed()
        staging = registry.root / "staging"
        assert not staging.is_dir() or list(staging.iterdir()) == []


def test_the_time_of_a_whole_request_begins_with_its_first_byte(registry: Registry, tmp_path: Path) -> None:
    limits = RequestLimits(total_seconds=0.05)
    with serve(registry, tmp_path, limits=limits) as served, raw(served) as client:
        client.send(request("POST", CHAT, [JSON, "content-length: 100"]) + b'{"model":')
        answer = client.answer()
        assert (answer.status, "limits.total_seconds" in answer.error()["message"]) == (408, True)
        served.engine.load_seconds = 0.3  # a version that is slow to load is no way round it
        served.publish("fresh", 7, no_stable=True)
        assert served.chat("fresh@1").status_code == 504


def test_bodies_that_arrive_together_fill_their_share_of_the_memory_and_no_more(
    registry: Registry, tmp_path: Path
) -> None:
    limits = RequestLimits(body_memory_bytes=1_000_000)
    with serve(registry, tmp_path, limits=limits) as served, ExitStack() as stack:
        clients = [stack.enter_context(raw(served)) for _ in range(4)]
        for client in clients:
            client.send(request("POST", CHAT, [JSON, "content-length: 9000000"]) + b" " * 400_000)
        wait_until(lambda: served.metric("wardrobe_rejections_total", reason="body_memory"), "one is refused")
        sockets = {client.socket: client for client in clients}
        answer = sockets[select.select(list(sockets), [], [], 5)[0][0]].answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "limits.body_memory_bytes" in answer.error()["message"]
        stack.close()
        arrivals = vars(served.router)["_arrivals"]
        wait_until(lambda: arrivals.held == 0, "all is given back")
        assert served.chat().status_code == 200


DEEP = b"[" * 1_000 + b"]" * 1_000
DEEPER = b"[" * 50_000


@pytest.mark.parametrize("value", [DEEP, DEEPER, b"[" * 65 + b"]" * 65, b'{"a":' * 70 + b"1" + b"}" * 70])
@pytest.mark.parametrize(
    "path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/v1/tokenize", "/v1/feedback", ALIAS]
)
def test_deep_nesting_is_a_400_wherever_a_body_is_taken(shared: Served, path: str, value: bytes) -> None:
    answer = post(shared, b'{"version":1,"score":1,"messages":' + value + b"}", path)
    assert answer.status == 400
    assert answer.error()["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"messages":"\xff"}', "is not UTF-8"),
        (b'{"messages":"\xed\xa0\x80"}', "is not UTF-8"),
        (b'{"messages":["\\ud800"]}', "is not a JSON object"),
        (b'{"seed":' + b"9" * 5_000 + b"}", "more than 64 digits"),
        (b'{"seed":NaN}', "is not a JSON object"),
        (b"[" * 5_000, "nests more than 64"),
        (b"\xef\xbb\xbf{}", "is not a JSON object"),
    ],
)
def test_what_a_parser_behind_would_trip_over_is_refused_in_our_words(
    shared: Served, body: bytes, words: str
) -> None:
    answer = post(shared, body)
    assert answer.status == 400
    assert words in answer.error()["message"]


@pytest.mark.parametrize("path", [CHAT, "/v1/feedback", ALIAS])
def test_a_compressed_body_is_a_415_with_the_reason(shared: Served, path: str) -> None:
    import gzip

    answer = post(shared, gzip.compress(chat()), path, (JSON, "content-encoding: gzip"))
    assert (answer.status, answer.error()["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize("path", [CHAT, "/v1/feedback", ALIAS])
def test_a_content_encoding_is_refused_also_with_a_small_plain_body(shared: Served, path: str) -> None:
    answer = post(shared, chat(), path, (JSON, "content-encoding: gzip"))
    assert (answer.status, answer.error()["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize("kind", ["multipart/x", "multipart/form-data; boundary=x", "application/json", ""])
def test_no_content_type_lets_a_large_body_into_the_admin_api(shared: Served, kind: str) -> None:
    answer = post(shared, b" " * (MAX_JSON_BYTES + 1), ALIAS, (f"content-type: {kind}",))
    assert (answer.status, answer.headers["connection"]) == (413, "close")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "a"}] * 2_049}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 4_097}]}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 513}, "tools"),
        ({"structured_outputs": {"choice": [f"c{n}" for n in range(9_000)]}}, "structured_outputs"),
        ({"unknown": list(range(100_001))}, None),
        ({f"k{n}": 1 for n in range(60_000)}, None),
    ],
)
def test_more_than_a_request_may_hold_is_refused_and_counted(
    served: Served, fields: dict[str, Any], param: str | None
) -> None:
    answer = post(served, chat(**fields))
    assert (answer.status, answer.error()["code"], answer.error()["param"]) == (
        400,
        "body_too_complex",
        param,
    )
    assert served.inner.seen == []
    assert served.metric("wardrobe_rejections_total", reason="body_too_complex") == 1


def test_a_prompt_that_cannot_fit_is_refused_before_anybody_renders_it(
    registry: Registry, tmp_path: Path
) -> None:
    engine = FakeEngine(base_name=BASE)
    engine.prompt_characters = 10_000
    with serve(registry, tmp_path, engine=engine) as served:
        answer = post(served, chat(messages=[{"role": "user", "content": "x" * 10_001}]))
        assert (answer.status, answer.error()["code"]) == (400, "context_length_exceeded")
        assert served.metric("wardrobe_rejections_total", reason="prompt_too_long") == 1
        assert served.chat(prompt="x" * 9_000).status_code == 200
        tokenized = json.dumps({"model": "support", "prompt": "x" * 20_000}).encode()
        assert post(served, tokenized, "/v1/tokenize").status == 200  # counting is what it is for


def test_a_large_picture_is_no_text_and_arrives_as_it_is(registry: Registry, tmp_path: Path) -> None:
    engine = FakeEngine(base_name=BASE)
    engine.prompt_characters = 10_000
    url = "data:image/png;base64," + "iVBORw0KGgo+" * 300_000
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    with serve(registry, tmp_path, engine=engine) as served:
        body = chat(messages=[{"role": "user", "content": parts}])
        assert len(body) > THREAD_BYTES
        assert post(served, body).status == 200
        assert served.inner.seen[0].body["messages"][0]["content"] == parts


def test_a_large_body_belongs_to_the_unit_that_a_small_one_would(served: Served) -> None:
    served.publish("support", 2)
    served.open_rollout(weight=0)
    first = {"role": "user", "content": "x" * THREAD_BYTES}
    later = [first, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}]
    answers = [post(served, chat(messages=messages)) for messages in ([first], later)]
    units = [served.runtime.ids.verify(json.loads(answer.body)["id"]) for answer in answers]
    expected = conversation_unit({"messages": Raw(json.dumps([first]).encode())})
    assert [unit.unit for unit in units if unit is not None] == [expected, expected]


def test_an_item_that_the_engine_would_refuse_is_refused_before(served: Served) -> None:
    items = [{"role": "user", "content": "hi"}] * 40
    good = json.dumps({"model": "support", "input": items}).encode()
    assert post(served, good, "/v1/responses").status == 200
    bad = json.dumps({"model": "support", "input": [*items, "text"]}).encode()
    answer = post(served, bad, "/v1/responses")
    assert (answer.status, answer.error()["param"]) == (400, "input")
    assert "item 40 is not an object" in answer.error()["message"]


def test_after_an_answer_that_broke_off_the_connection_ends_as_it_was_told(served: Served) -> None:
    with raw(served) as client:
        answer = client.ask("POST", CHAT, [JSON], chat(play="raise"))
        assert (answer.status, answer.headers["connection"]) == (500, "close")
        assert answer.error()["code"] == "engine_error"
        assert client.is_closed()
    with raw(served) as client:
        assert client.ask("POST", CHAT, [JSON], chat()).status == 200


@pytest.mark.parametrize("path", [CHAT, "/v1/feedback", "/admin/v1/adapters/support/promote"])
def test_nobody_is_asked_for_a_body_that_is_too_large(shared: Served, path: str) -> None:
    """A client that expects `100 Continue` has sent nothing yet."""
    lines = (JSON, "expect: 100-continue", "content-length: 99999999")
    with raw(shared) as client:
        client.send(request("POST", path, lines))
        assert client.answer().status == 413
