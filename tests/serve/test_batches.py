"""Batches over OpenAI's own client: each line is answered by the clients' door, once."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import Group, GroupLimits, Scope
from registry.store import Registry
from serve.engine.interface import Abilities
from serve.engine.steps.tags import LAST, PRIORITY
from serve.settings import BatchSettings
from serve.tuning_settings import TuningSettings
from tests.fakes.engine import FakeEngine
from tests.fakes.http_server import served as listening
from tests.fakes.openai_client import connect
from tests.fakes.served import BASE, Served, serve, wait_until
from tests.published import check

CHAT = "/v1/chat/completions"
FAST = BatchSettings(quiet_seconds=0.0, patience_seconds=0.05)


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    with serve(registry, tmp_path, batches=FAST) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with connect(served) as client:
        yield client


def line(name: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": "support", "messages": [{"role": "user", "content": name}]}
    return {"custom_id": name, "method": "POST", "url": url, "body": asked | body}


def submit(client: openai.OpenAI, *lines: Any, endpoint: Any = CHAT, **options: Any) -> Any:
    text = b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)
    file = client.files.create(file=("in.jsonl", text), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **options)


def answered(client: openai.OpenAI, batch: Any) -> int:
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None
    return counts.completed


def ended(client: openai.OpenAI, batch: Any) -> Any:
    """Wait for the end of a batch, and return it."""
    final = {"failed", "completed", "expired", "cancelled"}
    wait_until(lambda: client.batches.retrieve(batch.id).status in final, "the batch has ended")
    found = client.batches.retrieve(batch.id)
    check("batch", found.to_dict())
    return found


def rows(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(row) for row in client.files.content(file_id).read().splitlines()]


def test_a_batch_is_answered_line_by_line_and_counted(client: openai.OpenAI, served: Served) -> None:
    expiry: Any = {"anchor": "created_at", "seconds": 7200}
    batch = submit(
        client,
        *(line(f"q{number}") for number in range(20)),
        line("nobody", model="nobody"),
        line("broken", play="500"),
        line("streams", stream=True),
        metadata={"team": "a"},
        output_expires_after=expiry,
    )
    check("batch", batch.to_dict())
    assert (batch.status, batch.metadata, batch.endpoint) == ("validating", {"team": "a"}, CHAT)
    done = ended(client, batch)
    assert (done.status, done.model, done.errors) == ("completed", "support", None)
    assert done.request_counts.to_dict() == {"total": 23, "completed": 20, "failed": 3}
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    assert done.expires_at == done.created_at + 86_400
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens > 0
    good = rows(client, done.output_file_id)
    assert sorted(row["custom_id"] for row in good) == sorted(f"q{number}" for number in range(20))
    assert {row["response"]["status_code"] for row in good} == {200}
    assert all(row["response"]["body"]["object"] == "chat.completion" for row in good)
    assert all(row["response"]["request_id"] and row["error"] is None for row in good)
    assert len({row["id"] for row in good}) == 20
    bad = {row["custom_id"]: row["response"] for row in rows(client, done.error_file_id)}
    assert {name: row["status_code"] for name, row in bad.items()} == {
        "nobody": 404,
        "broken": 500,
        "streams": 400,
    }
    assert bad["nobody"]["body"]["error"]["code"] == "model_not_found"
    file = client.files.retrieve(done.output_file_id)
    assert (file.purpose, file.expires_at) == ("batch_output", file.created_at + 7200)
    assert {one.body["model"] for one in served.inner.seen} == {"support@1"}
    assert served.metric("wardrobe_batch_lines_total", outcome="ok") == 20
    assert served.metric("wardrobe_batch_lines_total", outcome="refused") == 3
    wait_until(lambda: served.metric("wardrobe_batches") == 0, "nothing is in hand")


def test_an_engine_that_schedules_by_priority_is_told_that_others_come_first(
    registry: Registry, tmp_path: Path
) -> None:
    engine = FakeEngine(base_name=BASE, abilities=Abilities(max_model_len=2048, prioritises=True))
    with serve(registry, tmp_path, batches=FAST, engine=engine) as served, connect(served) as client:
        assert ended(client, submit(client, line("1"))).status == "completed"
        told = served.inner.seen[-1]
        assert told.headers[PRIORITY.decode()] == str(LAST)


def test_completions_and_embeddings_are_asked_by_their_own_paths(
    client: openai.OpenAI, served: Served
) -> None:
    for url, body in (("/v1/completions", {"prompt": "a"}), ("/v1/embeddings", {"input": "a"})):
        asked = {"custom_id": "1", "method": "POST", "url": url, "body": {"model": "support", **body}}
        done = ended(client, submit(client, asked, endpoint=url))
        assert done.status == "completed"
        assert served.inner.seen[-1].path == url


@pytest.mark.parametrize(
    ("lines", "code", "at", "param"),
    [
        ([{"custom_id": "1"}], "missing_required_parameter", 1, "method"),
        ([line("1"), line("2") | {"url": "/v1/completions"}], "invalid_url", 2, "url"),
        ([line("1") | {"method": "GET"}], "invalid_method", 1, "method"),
        ([line("1"), line("1")], "duplicate_custom_id", 2, "custom_id"),
        ([line("1") | {"body": {"messages": []}}], "missing_required_parameter", 1, "model"),
        ([line("1") | {"body": "x"}], "invalid_request", 1, "body"),
        ([line("1") | {"custom_id": 1}], "invalid_json_line", 1, None),
    ],
)
def test_a_file_that_is_no_batch_fails_with_the_line_at_fault(
    client: openai.OpenAI, served: Served, lines: list[Any], code: str, at: int, param: str | None
) -> None:
    done = ended(client, submit(client, *lines))
    assert (done.status, done.output_file_id, done.error_file_id) == ("failed", None, None)
    assert [(one.code, one.line, one.param) for one in done.errors.data] == [(code, at, param)]
    assert done.failed_at is not None
    assert served.inner.seen == []


def test_what_cannot_be_a_batch_is_refused(client: openai.OpenAI, served: Served) -> None:
    rows_file = client.files.create(file=("t.jsonl", b'{"a": 1}\n'), purpose="fine-tune").id
    good = client.files.create(file=("b.jsonl", b'{"a": 1}\n'), purpose="batch").id
    body = {"input_file_id": good, "endpoint": CHAT, "completion_window": "24h"}
    for change, code, param in (
        ({"input_file_id": rows_file}, "invalid_file_purpose", "input_file_id"),
        ({"input_file_id": "file-1"}, "invalid_file_id", "input_file_id"),
        ({"input_file_id": 1}, "invalid_type", "input_file_id"),
        ({"endpoint": "/v1/responses"}, "invalid_value", "endpoint"),
        ({"completion_window": "1h"}, "invalid_value", "completion_window"),
        ({"colour": "blue"}, "unknown_parameter", "colour"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "object_above_max_properties", "metadata"),
    ):
        answer = served.client.post("/v1/batches", json=body | change)
        check("error", answer.json())
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    answer = served.client.post("/v1/batches", json={})
    assert answer.json()["error"]["message"] == "Missing required parameter: 'input_file_id'."
    answer = served.client.post("/v1/batches", content=b"{")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, None)
    with pytest.raises(openai.NotFoundError, match="No batch found with id: 'batch_1'") as found:
        client.batches.retrieve("batch_1")
    assert found.value.param == "batch_id"
    assert client.batches.list().data == []


def test_batches_are_listed_in_pages_newest_first(client: openai.OpenAI, served: Served) -> None:
    made = [submit(client, line("1")).id for _ in range(3)]
    page = client.batches.list(limit=2)
    check("batches", page.to_dict())
    assert [one.id for one in page.data] == made[:0:-1]
    assert [one.id for one in client.batches.list(limit=2)] == made[::-1]
    assert served.client.get("/v1/batches?limit=101").status_code == 400


def test_a_cancelled_batch_keeps_what_was_answered_and_asks_no_more(
    client: openai.OpenAI, served: Served
) -> None:
    hanging = [line(f"h{number}", play="hang") for number in range(20)]
    batch = submit(client, line("quick"), *hanging)
    wait_until(lambda: served.inner.running >= 2, "lines are in flight")
    wait_until(lambda: answered(client, batch) == 1, "one is answered")
    cancelling = client.batches.cancel(batch.id)
    check("batch", cancelling.to_dict())
    assert cancelling.status in {"cancelling", "cancelled"}
    done = ended(client, batch)
    assert (done.status, client.batches.cancel(batch.id).status) == ("cancelled", "cancelled")
    assert done.cancelling_at <= done.cancelled_at
    assert done.request_counts.to_dict() == {"total": 21, "completed": 1, "failed": 0}
    assert [row["custom_id"] for row in rows(client, done.output_file_id)] == ["quick"]
    unasked = rows(client, done.error_file_id)
    assert {row["custom_id"] for row in unasked} == {one["custom_id"] for one in hanging}
    assert {(row["response"], row["error"]["code"]) for row in unasked} == {(None, "batch_cancelled")}
    wait_until(lambda: served.inner.running == 0, "what was in flight is given up")
    whole = ended(client, submit(client, line("1")))
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'completed'"):
        client.batches.cancel(whole.id)


def test_lines_have_the_rights_of_the_key_that_made_the_batch(registry: Registry, tmp_path: Path) -> None:
    keys = KeyStore(registry.root)
    both, tune, other = (
        keys.create(scopes, who="tester")
        for scopes in ({Scope.TUNE, Scope.INFER}, {Scope.TUNE}, {Scope.TUNE})
    )
    with serve(registry, tmp_path, batches=FAST) as served, connect(served, both[1]) as client:
        batch = submit(client, line("1"), line("slow", play="hang"), line("2"))
        wait_until(lambda: answered(client, batch) == 2, "two are answered")
        with connect(served, other[1]) as stranger, pytest.raises(openai.NotFoundError):
            stranger.batches.cancel(batch.id)
        with connect(served, other[1]) as stranger:
            assert stranger.batches.list().data == []
        with connect(served, tune[1]) as lesser, pytest.raises(openai.PermissionDeniedError) as refused:
            submit(lesser, line("1"))
        assert refused.value.code == "insufficient_scope"
        client.batches.cancel(batch.id)
        ended(client, batch)
        lent = served.runtime.keys.lend(both[0].id)
        assert served.runtime.keys.check(lent) is not None
        keys.revoke(both[0].id)
        served.runtime.keys.refresh()
        assert served.runtime.keys.check(lent) is None
        assert served.runtime.keys.check(f"wardrobe_{tune[0].id}_{lent.rpartition('_')[2]}") is None


def test_a_server_without_batches_takes_them_and_leaves_them_to_others(
    registry: Registry, tmp_path: Path
) -> None:
    off = BatchSettings(enabled=False)
    with serve(registry, tmp_path, batches=off) as served, connect(served) as client:
        batch = submit(client, line("1"))
        with serve(registry, tmp_path, batches=FAST, replica="r2") as helper:
            assert ended(client, batch).status == "completed"
            assert len(helper.inner.seen) == 1
        assert served.inner.seen == []


def test_a_webhook_tells_of_a_batch_that_ended_as_openais_client_accepts_it(
    registry: Registry, tmp_path: Path
) -> None:
    seen: list[tuple[bytes, dict[str, str]]] = []
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()

    async def receiver(scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen.append(((await receive())["body"], headers))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with listening(receiver) as url:
        hooks = TuningSettings.model_validate({"webhooks": [{"url": f"{url}/hook", "secret": secret}]})
        with serve(registry, tmp_path, batches=FAST, tuning=hooks) as served, connect(served) as client:
            good, bad = submit(client, line("1")), submit(client, {"custom_id": "1"})
            wait_until(lambda: len(seen) == 2, "the receiver is told of both")
            events: list[Any] = [
                client.webhooks.unwrap(body, headers, secret=secret) for body, headers in seen
            ]
    told = {event.data.id: event.type for event in events}
    assert told == {good.id: "batch.completed", bad.id: "batch.failed"}


def test_lines_wait_for_the_limits_of_their_group(registry: Registry, tmp_path: Path) -> None:
    """They are answered when there is room again; another key's batch does not wait for them."""
    groups, keys = GroupStore(registry.root), KeyStore(registry.root)
    groups.create(Group("acme", limits=GroupLimits(requests_per_minute=3)), who="tester")
    scopes = [Scope.INFER, Scope.TUNE]
    limited, free = (keys.create(scopes, who="tester", group=name)[1] for name in ("acme", "default"))
    with (
        serve(registry, tmp_path, batches=FAST) as served,
        connect(served, limited) as client,
        connect(served, free) as other,
    ):
        batch = submit(client, *(line(f"l{place}") for place in range(5)))
        wait_until(lambda: answered(client, batch) == 3, "as many as the limit lets in")
        quick = ended(other, submit(other, line("q1"), line("q2")))
        assert (quick.status, quick.request_counts.completed) == ("completed", 2)
        assert client.batches.retrieve(batch.id).status == "in_progress"
