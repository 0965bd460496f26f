"""Uploads in parts over OpenAI's own client: any order, checked by size and MD5, ended once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from registry.entries.openai.uploads import LIFETIME_SECONDS, UploadStore
from registry.errors import Conflict
from registry.store import Registry
from tests.fakes.served import Served
from tests.published import check

ROWS = b'{"a": 1}\n' * 1_000


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def begin(client: openai.OpenAI, size: int = len(ROWS), **options: Any) -> Any:
    given: dict[str, Any] = {"filename": "rows.jsonl", "purpose": "batch", "mime_type": "application/jsonl"}
    return client.uploads.create(bytes=size, **(given | options))


def part(client: openai.OpenAI, upload: str, data: bytes) -> str:
    made = client.uploads.parts.create(upload, data=data)
    check("part", made.to_dict())
    assert made.upload_id == upload
    return made.id


def test_parts_in_any_order_become_one_file(client: openai.OpenAI, registry: Registry) -> None:
    upload = begin(client, expires_after={"anchor": "created_at", "seconds": 7200})
    check("upload", upload.to_dict())
    assert (upload.status, upload.expires_at) == ("pending", upload.created_at + LIFETIME_SECONDS)
    second, spare = part(client, upload.id, ROWS[5_000:]), part(client, upload.id, b"unused")
    first = part(client, upload.id, ROWS[:5_000])
    done = client.uploads.complete(upload.id, part_ids=[first, second], md5=hashlib.md5(ROWS).hexdigest())
    check("upload", done.to_dict())
    assert done.file is not None
    assert (done.status, done.file.filename, done.file.bytes) == ("completed", "rows.jsonl", len(ROWS))
    assert done.file.expires_at == done.file.created_at + 7200
    assert client.files.content(done.file.id).read() == ROWS
    again = client.uploads.complete(upload.id, part_ids=[first, second])
    assert again.file == done.file
    assert len(client.files.list().data) == 1
    assert spare not in [path.name for path in (registry.root / "uploads").rglob("*")]
    with pytest.raises(openai.BadRequestError, match="is completed"):
        client.uploads.cancel(upload.id)
    with pytest.raises(openai.BadRequestError, match="is completed"):
        part(client, upload.id, b"late")


def test_openais_own_helper_uploads_in_chunks(client: openai.OpenAI) -> None:
    done = client.uploads.upload_file_chunked(
        file=ROWS, filename="rows.jsonl", bytes=len(ROWS), mime_type="application/jsonl", purpose="batch",
        part_size=1_000, md5=hashlib.md5(ROWS).hexdigest(),
    )  # fmt: skip
    assert done.file is not None
    assert client.files.content(done.file.id).read() == ROWS


@pytest.mark.parametrize(
    ("content", "md5", "param", "words"),
    [
        (ROWS[:-1], None, "part_ids", "the parts have 8999 bytes, and 9000 were announced"),
        (ROWS, "0" * 32, "md5", "the MD5 of the parts is"),
        (b"x" * len(ROWS), None, None, "Expected file to have JSONL format"),
    ],
)
def test_parts_that_are_not_what_was_announced_make_no_file(
    client: openai.OpenAI, content: bytes, md5: str | None, param: str | None, words: str
) -> None:
    upload = begin(client)
    name = part(client, upload.id, content)
    options: dict[str, Any] = {} if md5 is None else {"md5": md5}
    with pytest.raises(openai.BadRequestError, match=words) as found:
        client.uploads.complete(upload.id, part_ids=[name], **options)
    assert found.value.param == param
    assert client.files.list().data == []
    client.uploads.cancel(upload.id)


def test_a_cancelled_upload_takes_nothing_more_and_keeps_no_bytes(
    client: openai.OpenAI, registry: Registry
) -> None:
    upload = begin(client)
    name = part(client, upload.id, ROWS)
    cancelled = client.uploads.cancel(upload.id)
    check("upload", cancelled.to_dict())
    assert cancelled.status == client.uploads.cancel(upload.id).status == "cancelled"
    for call in (
        lambda: part(client, upload.id, ROWS),
        lambda: client.uploads.complete(upload.id, part_ids=[name]),
    ):
        with pytest.raises(openai.BadRequestError, match="is cancelled"):
            call()
    assert not list((registry.root / "uploads").rglob("part_*"))
    assert not list((registry.root / "staging").iterdir())


def test_what_is_not_there_or_not_allowed_is_refused(client: openai.OpenAI, served: Served) -> None:
    upload = begin(client)
    for call in (
        lambda: client.uploads.cancel("upload_1"),
        lambda: part(client, "upload_1", b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=["part_1"]),
    ):
        with pytest.raises(openai.NotFoundError, match=r"No such (Upload object|part)"):
            call()
    for options, param in (
        ({"size": 0}, "bytes"),
        ({"size": 9 * 1024**3}, "bytes"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"extra_body": {"colour": 1}}, "colour"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
    ):
        with pytest.raises(openai.APIStatusError) as found:
            begin(client, **options)
        assert (found.value.status_code in {400, 413}, found.value.param) == (True, param)
    answer = served.client.post(f"/v1/uploads/{upload.id}/complete", json={"part_ids": []})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "part_ids")
    with pytest.raises(openai.BadRequestError, match="20000 bytes, and 9000 were announced"):
        part(client, upload.id, b"x" * 20_000)


def test_an_upload_that_takes_more_than_its_hour_is_expired_and_collected(registry: Registry) -> None:
    now = [1_000.0]
    store = UploadStore(registry.root, registry.catalogue.files, lambda: now[0])
    upload = store.begin("rows.jsonl", "batch", 3, "application/jsonl", owner="alice")
    now[0] += LIFETIME_SECONDS
    assert store.find(upload.id).status == "expired"
    with pytest.raises(Conflict, match="is expired"):
        store.cancel(upload.id)
    assert registry.tidy() == [f"uploads/{upload.id}"]
