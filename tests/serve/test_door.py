"""From where a server may be called: hosts, web pages, and what a browser is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.types import Message

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.errors import Denied
from registry.store import Registry
from serve.door.hosts import Hosts
from serve.door.pages import Pages
from serve.door.sending import for_pages
from serve.errors import ForeignHost
from serve.launcher.holding import Outage, response
from serve.preflight import require_keys_for_pages
from serve.router.app import Router
from serve.settings import ServeSettings
from tests.fakes.engine import FakeEngine
from tests.fakes.inner import InnerApp
from tests.fakes.raw import RawClient
from tests.fakes.served import Served, serve

PAGE = "https://app.example"


@pytest.fixture
def open_door(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """A server on loopback that asks for no key."""
    with serve(registry, tmp_path) as server:
        yield server


def raw(served: Served) -> RawClient:
    return RawClient(served.client.base_url.port or 0)


def admits(hosts: Hosts, host: str | None, http_version: str = "1.1") -> bool:
    try:
        hosts.check(None if host is None else host.encode("latin-1"), http_version)
    except ForeignHost:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8000", "localhost.", "localhost.:80", "127.0.0.1", "127.0.0.1:8000"),
        *("127.9.9.9", "[::1]", "[::1]:8000", "[::ffff:127.0.0.1]:1", "box.example", "Box.Example.:99"),
    ],
)
def test_on_loopback_its_own_names_are_known(host: str) -> None:
    assert admits(Hosts("127.0.0.1", ["box.example"]), host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "evil-localhost",
            "",
            "a.box.example",
        ),
        *(
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::2]",
            "[::ffff:10.0.0.1]",
            "::1",
            "[::1",
            "\xe9",
        ),
        *("a@localhost", "localhost/", "localhost:x", "localhost, evil.example", "localhost evil", "127.1"),
        *("localhost:123456", "2130706433", "localhost..", "*", "x" * 60_000),
    ],
)
def test_on_loopback_no_other_name_is(host: str) -> None:
    assert not admits(Hosts("127.0.0.1", ["box.example"]), host)


def test_a_request_without_a_host_is_known_only_where_there_was_none_yet() -> None:
    hosts = Hosts("127.0.0.1", [])
    assert admits(hosts, None, "1.0")
    assert not admits(hosts, None, "1.1")


def test_beyond_loopback_an_address_is_known_too_and_a_star_knows_all() -> None:
    wide = Hosts("0.0.0.0", [])
    assert [admits(wide, host) for host in ("10.0.0.1:8000", "[fe80::1]", "localhost")] == [True] * 3
    assert not admits(wide, "evil.example")
    assert admits(Hosts("127.0.0.1", ["*"]), "evil.example")
    named = Hosts("box.example", [])
    assert admits(named, "box.example:1")
    assert (named.restricted, Hosts("box.example", ["a.example"]).restricted) == (False, True)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/admin/v1/status", b""),
        ("PUT", "/admin/v1/adapters/support/aliases/pwned", b'{"version":1}'),
        ("POST", "/admin/v1/adapters/support/rollback", b""),
        ("POST", "/v1/chat/completions", b'{"messages":[]}'),
        ("POST", "/v1/feedback", b'{"adapter":"support","score":0}'),
        ("GET", "/v1/models", b""),
        ("GET", "/metrics", b""),
        ("OPTIONS", "/v1/models", b""),
        ("GET", "/no/such/path", b""),
    ],
)
def test_a_rebound_name_is_refused_everywhere_and_changes_nothing(
    open_door: Served, method: str, path: str, body: bytes
) -> None:
    rebound = [
        "host: evil.example:9101",
        "origin: http://evil.example:9101",
        "content-type: application/json",
    ]
    with raw(open_door) as client:
        answer = client.ask(method, path, rebound, body)
    assert (answer.status, answer.error()["code"]) == (421, "foreign_host")
    assert "allowed_hosts" in answer.error()["message"]
    with raw(open_door) as client:
        assert client.ask(method, f"http://evil.example{path}").status == 421
    assert open_door.inner.seen == []
    assert set(open_door.registry.aliases("support")) == {"stable"}
    assert open_door.metric("wardrobe_rejections_total", reason="foreign_host") == 2


def test_probes_are_answered_under_any_name(open_door: Served) -> None:
    with raw(open_door) as client:
        for path in ("/livez", "/readyz", "/health"):
            assert client.ask("GET", path, ["host: 10.1.2.3:8000"]).status == 200


def test_with_keys_a_name_is_checked_only_where_some_are_allowed(registry: Registry, tmp_path: Path) -> None:
    _, token = KeyStore(registry.root).create([Scope.INFER], who="tester")
    bearer = f"authorization: Bearer {token}"
    with serve(registry, tmp_path) as served, raw(served) as client:
        assert client.ask("GET", "/v1/models", ["host: api.example", bearer]).status == 200
    with serve(registry, tmp_path, allowed_hosts=("api.example",)) as served, raw(served) as client:
        assert client.ask("GET", "/v1/models", ["host: api.example:443", bearer]).status == 200
        assert client.ask("GET", "/v1/models", [bearer]).status == 200
        assert client.ask("GET", "/v1/models", ["host: other.example", bearer]).status == 421


@pytest.fixture
def pages(registry: Registry, tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """A server with keys that lets one page call it, and a key of every scope."""
    _, token = KeyStore(registry.root).create(list(Scope), who="tester")
    with serve(registry, tmp_path, cors_origins=(PAGE,)) as server:
        yield server, token


def ask(served: Served, method: str, path: str, *, token: str = "", **options: Any) -> httpx.Response:
    own = {"authorization": f"Bearer {token}"} if token else {}
    headers = {"origin": PAGE, **own, **options.pop("headers", {})}
    return served.client.request(method, path, headers=headers, **options)


def test_a_browsers_fetch_goes_through_from_its_preflight_to_its_stream(pages: tuple[Served, str]) -> None:
    served, token = pages
    wanted = "authorization,content-type,x-stainless-lang"
    asked = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
    preflight = ask(served, "OPTIONS", "/v1/chat/completions", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == wanted
    assert int(preflight.headers["access-control-max-age"]) > 0
    body = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    answer = ask(served, "POST", "/v1/chat/completions", token=token, json=body)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.headers["access-control-allow-origin"] == PAGE
    shown = answer.headers["access-control-expose-headers"]
    for name in ("x-wardrobe-adapter", "x-wardrobe-arm", "x-wardrobe-digest", "x-request-id", "retry-after"):
        assert name in shown
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/livez", 200),
        ("GET", "/metrics", 200),
        ("GET", "/admin/v1/status", 200),
        ("GET", "/no/such", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/chat/completions", 400),
        ("PUT", "/admin/v1/adapters/nobody/aliases/x", 422),
    ],
)
def test_a_page_may_read_every_answer_also_an_error(
    pages: tuple[Served, str], method: str, path: str, status: int
) -> None:
    served, token = pages
    answer = ask(served, method, path, token=token)
    assert answer.status_code in {status, 400}
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["vary"] == "Origin"
    without = ask(served, method, path)
    assert without.headers["access-control-allow-origin"] == PAGE


def test_a_page_that_is_not_listed_hears_nothing(pages: tuple[Served, str]) -> None:
    served, token = pages
    other = {"origin": "https://evil.example"}
    asked = {**other, "access-control-request-method": "POST"}
    preflight = ask(served, "OPTIONS", "/v1/chat/completions", headers=asked)
    answer = ask(served, "GET", "/v1/models", token=token, headers=other)
    for heard in (preflight, answer):
        assert not [name for name in heard.headers if name.startswith("access-control")]
        assert heard.headers["vary"] == "Origin"


def test_a_listed_page_may_drive_the_admin_api_with_a_key_and_another_may_not(
    pages: tuple[Served, str],
) -> None:
    served, token = pages
    path = "/admin/v1/adapters/support/aliases/mine"
    assert ask(served, "PUT", path, token=token, json={"version": 1}).status_code == 200
    assert ask(served, "PUT", path, json={"version": 1}).status_code == 401
    foreign = ask(
        served, "PUT", path, token=token, json={"version": 1}, headers={"origin": "https://evil.example"}
    )
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "foreign_origin")


def test_without_the_setting_nothing_is_said_to_a_page(open_door: Served) -> None:
    for method, path in (("OPTIONS", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/metrics")):
        headers = {"origin": PAGE, "access-control-request-method": "POST"}
        answer = open_door.client.request(method, path, headers=headers)
        assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


def test_pages_without_keys_are_no_start(registry: Registry, tmp_path: Path) -> None:
    settings = ServeSettings(root=registry.root, cors_origins=(PAGE,))
    with pytest.raises(Denied, match="no key exists that they would have to send"):
        require_keys_for_pages(settings)
    router = Router(InnerApp(), settings=settings, engine_factory=lambda _: FakeEngine())
    assert "no key exists" in asyncio.run(_failure(router))


async def _failure(router: Router) -> str:
    """Return why a router's lifespan does not start."""
    told: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.shutdown" if told else "lifespan.startup"}

    async def send(message: Message) -> None:
        told.append(message)

    await router({"type": "lifespan"}, receive, send)
    assert told[0]["type"] == "lifespan.startup.failed"
    return str(told[0]["message"])


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/x", "ftp://a", "https://", "https://a b"]
)
def test_an_origin_is_what_a_browser_sends(origin: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin"):
        ServeSettings(cors_origins=(origin,))
    with pytest.raises(ValidationError, match="is not a host name"):
        ServeSettings(allowed_hosts=(f"{origin}?",))


def test_any_origin_is_a_star_and_depends_on_nothing() -> None:
    pages = Pages(["*"])
    assert dict(pages.answer(b"https://x.example"))[b"access-control-allow-origin"] == b"*"
    assert b"vary" not in dict(pages.answer(None))


def test_what_a_layer_below_said_of_pages_is_not_said_twice() -> None:
    sent: list[Message] = []

    async def take(message: Message) -> None:
        sent.append(message)

    below = [(b"Vary", b"Origin"), (b"vary", b"Accept"), (b"access-control-allow-origin", b"*")]

    async def answer() -> None:
        send = for_pages(Pages([PAGE]), [(b"origin", PAGE.encode())], take)
        await send({"type": "http.response.start", "status": 200, "headers": below})

    asyncio.run(answer())
    names = [name.lower() for name, _ in sent[0]["headers"]]
    assert (b"vary", b"Origin") in sent[0]["headers"]
    assert (names.count(b"vary"), names.count(b"access-control-allow-origin")) == (2, 1)


def test_what_a_page_wants_to_send_is_repeated_only_if_it_is_a_list_of_names() -> None:
    def allowed(wanted: bytes) -> bytes | None:
        headers = {
            b"origin": PAGE.encode(),
            b"access-control-request-method": b"POST",
            b"access-control-request-headers": wanted,
        }
        return dict(Pages([PAGE]).preflight(headers, ["POST"]) or ()).get(b"access-control-allow-headers")

    assert allowed(b"authorization, x-stainless-os") == b"authorization, x-stainless-os"
    for wrong in (b"", b"a b", b"a\r\nset-cookie: x", b"a,,b", b"a," * 2_000 + b"a", b"\xe9"):
        assert allowed(wrong) is None


def test_a_page_is_told_that_the_engine_starts() -> None:
    situation, pages = Outage("starting", "the engine is starting", 5), Pages([PAGE])
    head = f"POST /v1/models HTTP/1.1\r\nOrigin: {PAGE}\r\n".encode()
    assert f"access-control-allow-origin: {PAGE}".encode() in response(head, situation, pages)
    asked = head.replace(b"POST /v1/models", b"OPTIONS /v1/chat/completions")
    asked += b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n"
    answer = response(asked, situation, pages)
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"access-control-allow-headers: authorization\r\n" in answer
    assert b"access-control" not in response(head, situation)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/admin/v1/status", "GET, OPTIONS"),
        ("/admin/v1/drain", "GET, POST, OPTIONS"),
        ("/admin/v1/adapters/support/versions", "GET, POST, OPTIONS"),
        ("/admin/v1/adapters/support/versions/1", "DELETE, GET, OPTIONS"),
        ("/admin/v1/rollouts/support/abort", "POST, OPTIONS"),
        ("/v1/chat/completions", "POST, OPTIONS"),
    ],
)
def test_options_names_the_methods_that_a_path_has(open_door: Served, path: str, methods: str) -> None:
    answer = open_door.client.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, methods)


@pytest.mark.parametrize("path", ["/admin/v1/nothing", "/admin/v1", "/admin/v2/status", "/admin/v1/status/x"])
def test_options_of_an_unknown_admin_path_is_a_404(open_door: Served, path: str) -> None:
    answer = open_door.client.options(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
