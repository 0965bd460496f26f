"""Files over OpenAI's own client and a real socket: read as published, and what is refused leaves nothing."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.store import Registry
from serve.tuning_settings import TuningSettings
from tests.fakes.openai_client import connect
from tests.fakes.served import Served, make_root, serve, wait_until
from tests.published import check

ROWS = b'{"messages": []}\n{"messages": []}\n'
CAP = 200_000


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """A server that takes small files only."""
    with serve(registry, tmp_path, tuning=TuningSettings(max_file_bytes=CAP)) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with connect(served) as client:
        yield client


def left(registry: Registry) -> list[str]:
    return [
        path.name for name in ("files", "staging", "uploads") for path in (registry.root / name).glob("*")
    ]


def upload(client: openai.OpenAI, content: bytes = ROWS, **options: Any) -> Any:
    return client.files.create(**{"file": ("rows.jsonl", content), "purpose": "fine-tune", **options})


def refusal(answer: httpx.Response) -> tuple[int, Any, Any, str]:
    check("error", answer.json())
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return answer.status_code, error["code"], error["param"], error["message"]


def post(served: Served, **form: Any) -> tuple[int, Any, Any, str]:
    return refusal(served.client.post("/v1/files", **form))


def test_a_file_is_uploaded_found_listed_read_and_deleted(client: openai.OpenAI) -> None:
    file = upload(client, expires_after={"anchor": "created_at", "seconds": 3600})
    check("file", file.to_dict())
    assert (file.filename, file.bytes, file.purpose, file.status) == (
        "rows.jsonl", len(ROWS), "fine-tune", "processed",
    )  # fmt: skip
    assert file.expires_at == file.created_at + 3600
    assert file._request_id
    assert client.files.wait_for_processing(file.id) == client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == ROWS
    page = client.files.list(purpose="fine-tune")
    check("files", page.to_dict())
    assert page.data == [file]
    deleted = client.files.delete(file.id)
    check("deleted file", deleted.to_dict())
    with pytest.raises(openai.NotFoundError) as found:
        client.files.retrieve(file.id)
    assert (found.value.code, found.value.param) == (None, "id")
    assert found.value.body == {
        "message": f"No such File object: {file.id}", "type": "invalid_request_error", "param": "id",
        "code": None,
    }  # fmt: skip
    empty = client.files.list()
    check("files", empty.to_dict())
    assert empty.data == []


def test_pages_come_to_an_end_also_when_what_was_listed_is_deleted(client: openai.OpenAI) -> None:
    every = [upload(client).id for _ in range(5)]
    assert sorted(one.id for one in client.files.list(limit=2)) == sorted(every)
    oldest_first = [one.id for one in client.files.list(limit=2, order="asc")]
    assert oldest_first == [one.id for one in client.files.list()][::-1]
    for file in client.files.list(limit=2):
        client.files.delete(file.id)
    assert client.files.list().data == []


@pytest.mark.parametrize(
    ("content", "line", "start"),
    [
        (b"prompt,completion\n", 1, "prompt,completion"),
        (ROWS + b"[1]\n", 3, "[1]"),
        (ROWS + b"\n\n{\n", 5, "{"),
        (b'"a"', 1, '"a"'),
        (b"\xff\xfe{}", 1, "\ufffd\ufffd{}"),
        (b'{"a": 1} {"b": 2}\n', 1, '{"a": 1} {"b": 2}'),
        (b"PK\x03\x04", 1, "PK"),
    ],
)
@pytest.mark.parametrize("purpose", ["fine-tune", "batch"])
def test_the_first_line_that_is_no_object_is_named(
    client: openai.OpenAI, registry: Registry, content: bytes, line: int, start: str, purpose: str
) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        upload(client, content, purpose=purpose)
    assert found.value.body["message"].startswith(  # type: ignore[index]
        "Expected file to have JSONL format, where every line is a JSON dictionary. "
        f'Line {line} is not a dictionary (HINT: line starts with: "{start}'
    )
    assert left(registry) == []


def test_a_line_that_is_not_utf8_is_named(client: openai.OpenAI, registry: Registry) -> None:
    with pytest.raises(openai.BadRequestError, match="Line 3 is not UTF-8"):
        upload(client, ROWS + b'{"a": "\xff"}\n')
    assert left(registry) == []


@pytest.mark.parametrize("purpose", ["fine-tune", "batch"])
def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm(
    client: openai.OpenAI, purpose: str
) -> None:
    content = b"\xef\xbb\xbf" + ROWS.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    made = upload(client, content, purpose=purpose)
    assert client.files.content(made.id).read() == content


def test_a_body_that_is_no_text_is_refused_as_a_body(served: Served, registry: Registry) -> None:
    """Not UTF-8, or half of a surrogate pair: neither an unknown path nor a failure; nothing is left."""
    fields = '"purpose": "fine-tune", "bytes": 1, "mime_type": "text/jsonl"'
    for name in (b"\xff", rb"\ud800", rb"\\\udc00", rb"\udc00\ud800"):
        body = b'{"filename": "' + name + b'", ' + fields.encode() + b"}"
        answer = served.client.post("/v1/uploads", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), name
        assert "body" in answer.json()["error"]["message"]
    assert left(registry) == []
    for name in (rb"\ud83d\ude00", rb"\\ud800"):
        body = b'{"filename": "' + name + b'", ' + fields.encode() + b"}"
        assert served.client.post(
            "/v1/uploads", content=body, headers={"content-type": "application/json"}
        ).is_success


def test_what_is_wrong_with_a_form_is_said_in_openais_words(served: Served, registry: Registry) -> None:
    file = {"file": ("rows.jsonl", ROWS)}
    good = {"purpose": "fine-tune"}
    assert post(served, files=file) == (
        400, "missing_required_parameter", "purpose", "Missing required parameter: 'purpose'.",
    )  # fmt: skip
    assert post(served, files={"purpose": (None, "batch")})[1:3] == ("missing_required_parameter", "file")
    status, _, param, message = post(served, files=file, data={"purpose": "fine-tune-results"})
    assert (status, param) == (400, "purpose")
    assert message.startswith("'fine-tune-results' is not one of ['fine-tune', 'batch', 'assistants', ")
    assert post(served, files=file, data=good | {"colour": "blue"})[1:] == (
        "unknown_parameter", "colour", "Unknown parameter: 'colour'.",
    )  # fmt: skip
    assert post(served, files={"file": ("rows.jsonl", b"\n \n")}, data=good)[2:] == ("file", "File is empty.")
    assert post(served, files={"file": ("rows.jsonl", b"")}, data=good)[2:] == ("file", "File is empty.")
    assert post(served, json={"purpose": "batch"})[:3] == (400, None, "content-type")
    for seconds, code in (("3599", "invalid_value"), ("2592001", "invalid_value"), ("soon", "invalid_type")):
        expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
        assert post(served, files=file, data=good | expiry)[:3] == (400, code, "expires_after[seconds]")
    expiry = {"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"}
    assert post(served, files=file, data=good | expiry)[:3] == (400, "invalid_value", "expires_after[anchor]")
    assert (
        post(served, files=file, data=good | {"expires_after[seconds]": "3600"})[2] == "expires_after[anchor]"
    )
    assert left(registry) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
    ],
)
def test_a_wrong_query_is_refused_with_its_parameter(served: Served, query: str, param: str) -> None:
    assert refusal(served.client.get(f"/v1/files?{query}"))[:3][::2] == (400, param)


def test_a_name_is_a_name_and_no_path(client: openai.OpenAI, registry: Registry) -> None:
    assert upload(client, file=("../../etc/passwd", ROWS)).filename == "passwd"
    assert upload(client, file=("größe \\ 1.jsonl", ROWS)).filename == " 1.jsonl"
    assert len(upload(client, file=("n" * 1_000, ROWS)).filename) == 255
    assert sorted(path.name for path in (registry.root / "files").rglob("*") if path.is_file()) == [
        "content", "content", "content", "meta.json", "meta.json", "meta.json",
    ]  # fmt: skip


def test_a_file_over_the_limit_is_refused_by_what_was_declared_and_by_what_came(
    served: Served, client: openai.OpenAI, registry: Registry
) -> None:
    with pytest.raises(openai.APIStatusError) as found:
        upload(client, b"{}\n" * CAP)
    assert (found.value.status_code, found.value.param) == (413, "file")
    assert "tuning.max_file_bytes" in found.value.message
    with pytest.raises(openai.APIStatusError) as found:
        upload(client, b"{}\n" * (CAP // 3 + 1))  # the form is within its cap, the file is not
    assert (found.value.status_code, found.value.param) == (413, "file")
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    answer = declare(served, 600 * 1024**2)
    assert b" 413 " in answer.split(b"\r\n", 1)[0]
    assert b"connection: close" in answer.lower()
    assert refusal(served.client.post("/v1/files", content=b"--x--\r\n", headers=boundary))[0] == 400
    assert left(registry) == []


def declare(served: Served, size: int, body: bytes = b"") -> bytes:
    """Announce a form of `size` bytes, send `body` of it, and return what is answered to that."""
    where = urlsplit(served.server.url)
    with socket.create_connection((where.hostname, where.port), timeout=5) as line:
        line.sendall(
            b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
            + b"content-length: %d\r\n\r\n" % size
            + body
        )
        return line.recv(65_536) if not body else b""


def test_a_client_that_leaves_during_an_upload_leaves_nothing_behind(
    served: Served, registry: Registry
) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\n'
    declare(served, 100_000, part)
    time.sleep(0.05)
    wait_until(lambda: left(registry) == [], "the folder is gone")
    assert served.client.get("/readyz").status_code == 200


def test_a_full_disk_refuses_an_upload_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder) as mounted:
        if not mounted:
            pytest.skip("mounting needs the rights of root")
        registry = make_root(folder)
        with serve(registry, tmp_path) as served, connect(served) as client:
            (folder / "filler").write_bytes(b"x" * 1024)
            fill(folder / "filler")
            with pytest.raises(openai.InternalServerError) as found:
                upload(client, b"{}\n" * 200_000)
            assert (found.value.status_code, found.value.code) == (507, "disk_full")
            assert found.value.response.headers["x-should-retry"] == "false"
            assert left(registry) == []
            (folder / "filler").unlink()
            assert upload(client, b"{}\n" * 200_000).bytes == 600_000


def test_a_key_sees_its_own_files_and_an_administrator_all(served: Served, registry: Registry) -> None:
    keys = KeyStore(registry.root)
    mine, other = (keys.create({Scope.TUNE}, who="tester")[1] for _ in range(2))
    infer, admin = (keys.create({scope}, who="tester")[1] for scope in (Scope.INFER, Scope.ADMIN))
    served.runtime.keys.refresh()
    with connect(served, mine) as me, connect(served, other) as them, connect(served, admin) as root:
        file = upload(me)
        assert me.files.list().data == root.files.list().data == [file]
        assert them.files.list().data == []
        for call in (them.files.retrieve, them.files.delete, them.files.content):
            with pytest.raises(openai.NotFoundError, match=f"No such File object: {file.id}"):
                call(file.id)
        assert root.files.retrieve(file.id) == file
    for token, status in ((infer, 403), ("wardrobe_nobody_x", 401)):
        with connect(served, token) as refused, pytest.raises(openai.APIStatusError) as found:
            refused.files.list()
        assert found.value.status_code == status
        check("error", {"error": found.value.body})


def test_methods_and_paths_that_are_not_there_are_refused_as_everywhere(served: Served) -> None:
    for method, path, status in (
        ("PUT", "/v1/files", 405),
        ("DELETE", "/v1/files", 405),
        ("GET", "/v1/files/", 404),
        ("GET", "/v1/files/file-1/x", 404),
        ("POST", "/v1/batches/x/y/z", 404),
    ):
        answer = served.client.request(method, served.server.url + path)
        assert (path, answer.status_code) == (path, status)
        check("error", answer.json())
    allowed = served.client.options("/v1/files").headers["allow"]
    assert allowed == "GET, POST, OPTIONS"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder`; gives whether that was possible."""
    line = ("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    mounted = subprocess.run(line, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(("umount", "-l", str(folder)), check=True)


def fill(path: Path) -> None:
    """Take all room but some 100 KB, which what is small needs."""
    with path.open("ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65_536)
        file.truncate(file.tell() - 100_000)
