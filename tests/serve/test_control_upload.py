"""Uploads over a real socket: streamed, capped, cleaned up, and never written anywhere but staging."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from registry.store import Registry
from serve.settings import RequestLimits
from tests.fakes.adapters import make_adapter
from tests.fakes.base import SMOLLM2, make_base
from tests.fakes.control import admin_server
from tests.fakes.store import with_reserve

PATH = "/admin/v1/adapters/support/versions"
CAP = 200_000
BOUNDARY = "wardrobe-boundary"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Registry.init(with_reserve(tmp_path / "root"), make_base(tmp_path / "tiny"))
    return tmp_path / "root"


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    with admin_server(root, RequestLimits(max_upload_bytes=CAP)) as url:
        yield url


@pytest.fixture
def untouched(root: Path) -> Iterator[None]:
    """What the refused uploads of a test must leave: no version, nothing staged, nothing outside."""
    before = tree(root.parent)
    yield
    assert eventually(lambda: tree(root.parent) == before), tree(root.parent) ^ before


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def part(name: str, content: bytes, file_name: bytes | None = None) -> bytes:
    disposition = f'form-data; name="{name}"'.encode()
    if file_name is not None:
        disposition += b'; filename="' + file_name + b'"'
    head = b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: " + disposition
    return head + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY.encode() + b"--\r\n"


def adapter_parts(folder: Path) -> list[bytes]:
    return [part("files", file.read_bytes(), file.name.encode()) for file in sorted(folder.iterdir())]


def post(url: str, body: bytes, content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> Any:
    return httpx.post(url + PATH, content=body, headers={"content-type": content_type})


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return answer.status_code, error["code"], error["message"]


def test_an_upload_becomes_a_version_and_leaves_no_scratch(url: str, root: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    fields = [part("note", "größer".encode()), part("alias", b"night"), part("no_stable", b"false")]
    answer = post(url, form(*fields, *adapter_parts(folder)))
    assert answer.status_code == 201
    assert (answer.json()["version"], answer.json()["created"]) == (1, True)
    again = post(url, form(*adapter_parts(folder)))
    assert (again.status_code, again.json()["version"], again.json()["created"]) == (200, 1, False)
    duplicate = post(url, form(part("allow_duplicate", b"true"), *adapter_parts(folder)))
    assert (duplicate.status_code, duplicate.json()["version"]) == (201, 2)
    registry = Registry.open(root)
    version = registry.version("support", 1)
    assert (version.note, version.who) == ("größer", "anonymous")
    assert registry.aliases("support") == {"night": 1, "stable": 1}
    weights = "adapter_model.safetensors"
    assert (version.path / weights).read_bytes() == (folder / weights).read_bytes()
    assert list((root / "staging").iterdir()) == []


def test_the_same_upload_several_times_at_once_makes_one_version(
    url: str, root: Path, tmp_path: Path
) -> None:
    body = form(*adapter_parts(make_adapter(tmp_path / "a")))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: post(url, body), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert {answer.json()["version"] for answer in answers} == {1}
    assert [version.number for version in Registry.open(root).versions("support")] == [1]
    assert list((root / "staging").iterdir()) == []


def test_an_upload_in_the_smallest_pieces_is_the_same(url: str, tmp_path: Path) -> None:
    body = form(*adapter_parts(make_adapter(tmp_path / "a")))
    whole = post(url, body).json()
    pieces = (body[i : i + 7] for i in range(0, len(body), 7))
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = httpx.post(url + PATH, content=pieces, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["digest"]) == (200, whole["digest"])


def test_a_20_mb_upload_is_written_as_it_arrives(root: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    Registry.init(big, make_base(tmp_path / "smol", SMOLLM2))
    folder = make_adapter(
        tmp_path / "a", shape=SMOLLM2, rank=32, size_bytes=20_000_000, modules=("q_proj", "o_proj")
    )
    body = form(*adapter_parts(folder))
    with admin_server(big) as url:
        answer = httpx.post(
            url + PATH,
            content=(body[i : i + 65_536] for i in range(0, len(body), 65_536)),
            headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
            timeout=60,
        )
    assert answer.status_code == 201
    assert list((big / "staging").iterdir()) == []


HOSTILE_NAMES = [
    b"../adapter_model.safetensors",
    b"../../../../etc/cron.d/x",
    b"/etc/passwd",
    b"..\\\\..\\\\x.safetensors",
    b"C:\\\\x.safetensors",
    b"sub/adapter_config.json",
    b"adapter_model.safetensors/",
    b".",
    b"..",
    b"",
    b"adapter_config.json\x00.png",
    b"\x00",
    b"a" * 3000,
    b"\xff\xfe.json",
    "ａdapter_config.json".encode(),
    b".adapter_config.json",
    b"manifest.json",
    b"run.py",
    b"CON",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: repr(name[:30]))
@pytest.mark.usefixtures("untouched")
def test_a_hostile_file_name_is_refused(
    url: str, tmp_path_factory: pytest.TempPathFactory, name: bytes
) -> None:
    parts = adapter_parts(make_adapter(tmp_path_factory.mktemp("source") / "a"))
    status, code, message = refusal(post(url, form(part("files", b"x", name), *parts)))
    assert (status, code) == (422, "invalid_adapter")
    assert len(message) < 600
    assert "\x00" not in message


@pytest.mark.parametrize("name", [b"adapter_model.bin", b"pytorch_model.pt", b"x.pkl"])
@pytest.mark.usefixtures("untouched")
def test_a_pickle_is_refused_by_its_name(url: str, name: bytes) -> None:
    status, code, message = refusal(post(url, form(part("files", b"\x80\x04", name))))
    assert (status, code) == (422, "invalid_adapter")
    assert "pickled" in message


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain",
        "application/octet-stream",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 5000,
        "multipart/mixed; boundary=wardrobe-boundary",
        "multipart/form-data; boundary=another",
        "",
    ],
)
@pytest.mark.usefixtures("untouched")
def test_a_wrong_content_type_is_refused(
    url: str, tmp_path_factory: pytest.TempPathFactory, content_type: str
) -> None:
    parts = adapter_parts(make_adapter(tmp_path_factory.mktemp("source") / "a"))
    status, code, _ = refusal(post(url, form(*parts), content_type))
    assert (status, code) == (400, "invalid_body")


@pytest.mark.parametrize(
    ("parts", "status", "fact"),
    [
        ([], 422, "was not sent"),
        ([part("note", b"alone")], 422, "was not sent"),
        ([part("files", b"{}", b"adapter_config.json")], 422, "adapter_model.safetensors was not sent"),
        ([part("files", b"{}", b"adapter_config.json")] * 2, 400, "twice"),
        ([part("golden", b"", b"g"), part("golden", b"", b"g")], 400, "twice"),
        ([part("note", b"a"), part("note", b"b")], 400, "twice"),
        ([part("note", b"\xff\xfe")], 400, "UTF-8"),
        ([part("note", b"x" * 70_000)], 413, "longer than"),
        ([part("path", b"/etc/passwd")], 400, "is not a field"),
        ([part("files[]", b"{}", b"adapter_config.json")], 400, "is not a field"),
        ([part("\x00", b"")], 400, ""),
        ([b"--" + BOUNDARY.encode() + b"\r\nX: y\r\n\r\nz\r\n"], 400, "not form-data"),
        ([b"--" + BOUNDARY.encode() + b"\r\n" + b"X: y\r\n" * 500 + b"\r\nz\r\n"], 400, "form"),
        ([b"--" + BOUNDARY.encode() + b"\r\nX: " + b"y" * 100_000 + b"\r\n\r\nz\r\n"], 400, "form"),
        ([b"garbage"], 400, "form"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.usefixtures("untouched")
def test_a_malformed_form_is_refused(url: str, parts: list[bytes], status: int, fact: str) -> None:
    found, _, message = refusal(post(url, form(*parts)))
    assert found == status
    assert fact in message


@pytest.mark.usefixtures("untouched")
def test_a_form_that_is_cut_off_is_refused(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    body = form(*adapter_parts(make_adapter(tmp_path_factory.mktemp("source") / "a")))
    for end in (0, 1, 30, len(body) // 2, len(body) - 30, len(body) - 4):
        assert refusal(post(url, body[:end]))[:2] == (400, "invalid_body")


@pytest.mark.parametrize("field", ["no_stable", "allow_duplicate"])
@pytest.mark.usefixtures("untouched")
def test_a_flag_that_is_none_is_refused(
    url: str, tmp_path_factory: pytest.TempPathFactory, field: str
) -> None:
    parts = adapter_parts(make_adapter(tmp_path_factory.mktemp("source") / "a"))
    assert refusal(post(url, form(part(field, b"perhaps"), *parts)))[0] == 400


@pytest.mark.usefixtures("untouched")
def test_what_the_registry_refuses_leaves_nothing(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = tmp_path_factory.mktemp("source")
    for changes in ({"rank": 64}, {"poison": float("nan")}, {"config": {"use_dora": True}}):
        folder = make_adapter(source / str(len(list(source.iterdir()))), **changes)
        status, code, message = refusal(post(url, form(*adapter_parts(folder))))
        assert (status, code) == (422, "invalid_adapter")
        assert "staging" not in message
    parts = adapter_parts(make_adapter(source / "right"))
    assert refusal(post(url, form(part("alias", b"canary"), *parts)))[0] == 400
    assert refusal(post(url, form(part("golden", b"no json", b"g.jsonl"), *parts)))[0] in {400, 422}


@pytest.mark.usefixtures("untouched")
def test_more_than_the_cap_is_refused_by_what_was_announced(url: str) -> None:
    body = form(part("files", b"x" * CAP, b"adapter_model.safetensors"))
    status, code, message = refusal(post(url, body))
    assert (status, code) == (413, "limit_exceeded")
    assert str(CAP) in message


@pytest.mark.usefixtures("untouched")
def test_more_than_the_cap_is_refused_while_it_arrives_when_nothing_was_announced(url: str) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield part("files", b"", b"adapter_model.safetensors").removesuffix(b"\r\n")
        while sent < 500_000_000:
            sent += 65_536
            yield b"x" * 65_536

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = httpx.post(url + PATH, content=endless(), headers=headers, timeout=30)
    assert refusal(answer)[:2] == (413, "limit_exceeded")
    assert sent < 50_000_000


@pytest.mark.parametrize("announced", ["10", "-5", "1e9", "99999999999999999999", "abc"])
@pytest.mark.usefixtures("untouched")
def test_a_content_length_that_lies_gets_nothing_published(url: str, announced: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.putrequest("POST", PATH)
    connection.putheader("content-type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("content-length", announced)
    connection.endheaders(form(part("files", b"{}", b"adapter_config.json")))
    assert connection.getresponse().status in {400, 413}
    connection.close()


@pytest.mark.usefixtures("untouched")
def test_a_client_that_leaves_in_the_middle_leaves_nothing(url: str, root: Path) -> None:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary={BOUNDARY}\r\n"
    start = part("files", b"x" * 50_000, b"adapter_model.safetensors")
    for leave in ("close", "reset"):
        with socket.create_connection((host, port)) as client:
            client.sendall(head.encode() + b"content-length: 150000\r\n\r\n" + start)
            assert eventually(lambda: any((root / "staging").iterdir()))
            if leave == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert eventually(lambda: not any((root / "staging").iterdir()))
    assert httpx.get(f"{url}/admin/v1/adapters").json() == {"adapters": []}


def test_uploads_at_once_each_get_a_number(url: str, root: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bodies = [form(*adapter_parts(make_adapter(tmp_path / f"a{n}", seed=n))) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: post(url, body).json(), bodies))
    assert sorted(answer["version"] for answer in answers) == list(range(1, 9))
    assert len({answer["digest"] for answer in answers}) == 8
    assert list((root / "staging").iterdir()) == []


def test_golden_prompts_come_with_an_upload(url: str, root: Path, tmp_path: Path) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode() + b"\n"
    parts = adapter_parts(make_adapter(tmp_path / "a"))
    assert post(url, form(part("golden", line, b"../../x"), *parts)).status_code == 201
    assert Registry.open(root).golden("support") == line
