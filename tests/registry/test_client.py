"""The HTTP client: what it sends, what it makes of errors, and whom it trusts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import errors
from registry.api import documents as doc
from registry.api import operations
from registry.api.client import HttpClient
from registry.api.operation import Client
from registry.changes.publish import PublishRequest
from registry.errors import WardrobeError
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.control import admin_server

Handler = Callable[[httpx.Request], httpx.Response]


@contextmanager
def client(handler: Handler, *, key: str | None = None, url: str = "http://host:1") -> Iterator[HttpClient]:
    with HttpClient(url, key=key, transport=httpx.MockTransport(handler)) as found:
        yield found


def refused(status: int, code: str, message: str = "it: is so; do this", **more: Any) -> httpx.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code, **more}
    return httpx.Response(status, json={"error": error})


def test_a_server_is_asked_as_a_root_is() -> None:
    with client(lambda _: httpx.Response(200)) as found:
        anyone: Client = found
    assert anyone is not None


def test_the_key_goes_into_the_header_and_the_path_under_admin() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"adapters": [], "a field of tomorrow": 1})

    with client(handler, key="wardrobe_a_b", url="https://host:1/") as found:
        assert operations.list_adapters(found).adapters == []
    assert str(seen[0].url) == "https://host:1/admin/v1/adapters"
    assert seen[0].headers["authorization"] == "Bearer wardrobe_a_b"


def test_a_redirect_is_not_followed_so_the_key_stays_here() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"location": "http://evil.example/"})

    with client(handler, key="secret") as found, pytest.raises(WardrobeError, match="answered 307"):
        operations.list_adapters(found)
    assert seen == ["host"]


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_code"),
    [
        (404, "not_found", errors.NotFound, 1),
        (409, "conflict", errors.Conflict, 1),
        (409, "quarantined", errors.Quarantined, 1),
        (400, "invalid_name", errors.InvalidName, 2),
        (400, "invalid_request", errors.UsageError, 2),
        (413, "limit_exceeded", errors.LimitExceeded, 1),
        (422, "invalid_adapter", errors.InvalidAdapter, 1),
        (503, "not_servable", errors.NotServable, 1),
        (403, "invalid_api_key", errors.Denied, 1),
        (503, "engine_dead", errors.WardrobeError, 1),
        (418, "of_tomorrow", errors.WardrobeError, 1),
    ],
)
def test_the_servers_error_is_raised_here_with_its_own_words(
    status: int, code: str, kind: type[WardrobeError], exit_code: int
) -> None:
    with client(lambda _: refused(status, code)) as found, pytest.raises(WardrobeError) as caught:
        operations.promote(found, "support", doc.MoveRequest(version=1))
    error = caught.value
    assert type(error) is kind
    assert (str(error), error.code, error.exit_code) == ("it: is so; do this", code, exit_code)


def test_a_missing_key_names_the_option() -> None:
    refusal = pytest.raises(errors.Denied, match="--key or WARDROBE_KEY")
    with client(lambda _: refused(401, "invalid_api_key")) as found, refusal:
        operations.list_adapters(found)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"adapters": "none"}),
        httpx.Response(200, json=[]),
        httpx.Response(502, text="Bad gateway"),
        httpx.Response(500, json={"error": "text"}),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(200, content=b"\xff\xfe"),
    ],
    ids=str,
)
def test_a_server_that_is_no_wardrobe_is_named(answer: httpx.Response) -> None:
    with client(lambda _: answer) as found, pytest.raises(WardrobeError, match="correct --url") as caught:
        operations.list_adapters(found)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("failure", "fact"),
    [
        (httpx.ConnectError("refused"), "cannot be reached"),
        (httpx.ReadTimeout("slow"), "did not answer in time"),
        (httpx.RemoteProtocolError("cut off"), "cannot be reached"),
    ],
)
def test_a_server_that_does_not_answer_is_an_error_with_a_remedy(failure: Exception, fact: str) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise failure

    with client(handler) as found, pytest.raises(WardrobeError, match=fact):
        operations.show_status(found)


@pytest.mark.parametrize(
    "url", ["", "host", "host:8000", "ftp://host", "http://", "file:///etc", "http:///x", "http://[::1"]
)
def test_a_url_that_is_none_is_wrong_usage(url: str) -> None:
    with pytest.raises(errors.UsageError, match="http://host:port"):
        HttpClient(url)


@pytest.mark.parametrize("key", ["a\nb", "a\r\nx-evil: 1", "é", "\0"])
def test_a_key_that_could_bend_the_header_is_refused(key: str) -> None:
    with pytest.raises(errors.UsageError, match="--key"):
        HttpClient("http://host", key=key)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a?b", "A", "a\0", "x" * 64])
def test_a_name_that_could_bend_the_path_is_not_sent(name: str) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise AssertionError("was sent")

    with client(handler) as found:
        calls: list[Callable[[], object]] = [
            lambda: operations.show_adapter(found, name),
            lambda: operations.promote(found, name, doc.MoveRequest(version=1)),
            lambda: operations.delete_version(found, name, 1),
            lambda: operations.set_alias(found, "support", name, doc.MoveRequest(version=1)),
            lambda: operations.register(found, PublishRequest(name, Path("x")), lambda _: None),
        ]
        for call in calls:
            with pytest.raises(errors.InvalidName):
                call()


def version_document(files: dict[str, bytes], **changes: str) -> dict[str, Any]:
    listed = [
        {"path": name, "size": len(data), "sha256": sha256(data).hexdigest(), **changes}
        for name, data in files.items()
    ]
    return {
        "adapter": "support", "version": 1, "digest": "sha256:0", "created_at": 0.0, "note": "", "who": "",
        "rank": 8, "target_modules": [], "size_bytes": 1, "aliases": [], "quarantined": None,
        "files": listed, "attestations": [],
    }  # fmt: skip


def exporting(files: dict[str, bytes], document: dict[str, Any]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        if "/files/" in request.url.path:
            return httpx.Response(200, content=next(iter(files.values())))
        return httpx.Response(200, json=document)

    return handler


def test_an_export_that_arrives_changed_leaves_nothing(tmp_path: Path) -> None:
    document = version_document({"adapter_config.json": b"{}"})
    refusal = pytest.raises(errors.InvalidAdapter, match="arrived with sha256")
    with client(exporting({"x": b"changed"}, document)) as found, refusal:
        operations.export(found, "support", 1, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", ".."])
def test_a_server_cannot_choose_where_an_export_writes(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    document = version_document({name: b"{}"})
    with client(exporting({"x": b"{}"}, document)) as found, pytest.raises(WardrobeError, match="file name"):
        operations.export(found, "support", 1, inner / "out")
    assert list(tmp_path.iterdir()) == [inner]
    assert list(inner.iterdir()) == []


def test_an_upload_tells_of_its_bytes_as_they_are_sent(tmp_path: Path) -> None:
    Registry.init(tmp_path / "root", make_base(tmp_path / "tiny"))
    folder = make_adapter(tmp_path / "a")
    (folder / "optimizer.pt").write_bytes(b"x" * 1000)
    told: list[int] = []
    with admin_server(tmp_path / "root") as url, HttpClient(url) as found:
        published = operations.register(found, PublishRequest("support", folder), told.append)
    sent = [file for file in folder.iterdir() if file.name != "optimizer.pt"]
    assert sum(told) == sum(file.stat().st_size for file in sent)
    assert published.left_out == ["optimizer.pt"]


def test_drain_reaches_the_replica(tmp_path: Path) -> None:
    Registry.init(tmp_path / "root", make_base(tmp_path / "tiny"))
    with admin_server(tmp_path / "root") as url, HttpClient(url) as found:
        assert operations.drain(found).draining is True
        assert operations.drain(found, doc.DrainRequest(draining=False)).draining is False
        assert operations.show_audit(found).entries == []
        assert json.loads(operations.list_replicas(found).model_dump_json()) == {"replicas": []}
