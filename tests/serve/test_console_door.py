"""The console's door: who is let in, with what cookie, and what a change must bring."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import Group, Scope
from registry.store import Registry
from serve.console import files
from serve.console.app import SECURITY
from serve.console.sessions import LIFETIME_SECONDS, BrowserSessions
from tests.fakes.clock import Clock
from tests.fakes.served import Served, serve, wait_until

PAGE = {"accept": "text/html,application/xhtml+xml"}


def key(registry: Registry, *scopes: Scope) -> str:
    return KeyStore(registry.root).create(scopes, who="tester")[1]


def token(page: str) -> str:
    """Return the token that the forms of a page bring."""
    found = re.search(r'name="change" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


@pytest.fixture
def keyed(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """A server where keys are in use."""
    key(registry, Scope.ADMIN)
    with serve(registry, tmp_path) as server:
        yield server


def log_in(served: Served, text: str) -> httpx.Response:
    return served.client.post("/console/login", data={"key": text})


def test_a_browser_is_led_to_the_console_and_a_program_is_told_what_it_was_told(served: Served) -> None:
    led = served.client.get("/", headers=PAGE)
    assert (led.status_code, led.headers["location"]) == (307, "/console")
    assert served.client.get("/").json()["error"]["code"] == "unknown_url"
    assert served.client.post("/", headers=PAGE).status_code == 404


def test_without_keys_it_is_open_under_the_servers_own_names_alone(served: Served) -> None:
    page = served.client.get("/console")
    assert page.status_code == 200
    assert "no keys" in page.text
    foreign = served.client.get("/console", headers={"host": "evil.example"})
    assert foreign.status_code == 421
    assert served.client.get("/console/login").headers["location"] == "/console"


def test_every_answer_has_the_strict_headers(keyed: Served) -> None:
    paths = ["/console", "/console/login", "/console/none", "/console/assets/console.css", "/console/live"]
    for path in paths:
        answer = keyed.client.get(path)
        assert {name: answer.headers[name] for name in SECURITY} == SECURITY, path
    policy = SECURITY["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "trick", ["/console/", "/console//live", "/console/../admin", "/console/%6cive", "/consolex"]
)
def test_a_path_spelled_in_another_way_is_denied(served: Served, trick: str) -> None:
    request = served.client.build_request("GET", served.server.url + trick)
    request.extensions["target"] = trick.encode()
    answer = served.client.send(request)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"


def test_the_login_leads_to_where_one_wanted_to_go(keyed: Served) -> None:
    wanted = keyed.client.get("/console/live?x=1")
    assert wanted.status_code == 303
    assert wanted.headers["location"] == "/console/login?next=%2Fconsole%2Flive%3Fx%3D1"
    page = keyed.client.get(wanted.headers["location"])
    assert 'name="next" value="/console/live?x=1"' in page.text
    form = {"key": key(keyed.registry, Scope.READ), "next": "/console/live?x=1"}
    keyed.runtime.keys.refresh()
    assert keyed.client.post("/console/login", data=form).headers["location"] == "/console/live?x=1"
    for elsewhere in ("https://evil.example", "//evil.example/console", "/consolex", "/admin/v1/gc", ""):
        led = keyed.client.post("/console/login", data={**form, "next": elsewhere})
        assert led.headers["location"] == "/console"


def test_the_cookie_is_for_this_browser_and_this_site_alone(keyed: Served) -> None:
    text = key(keyed.registry, Scope.READ)
    keyed.runtime.keys.refresh()
    cookie = log_in(keyed, text).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert text.split("_")[2] not in cookie
    behind_tls = keyed.client.post(
        "/console/login", data={"key": text}, headers={"x-forwarded-proto": "https"}
    )
    assert "Secure" in behind_tls.headers["set-cookie"].split("; ")


def test_a_wrong_key_and_one_that_may_not_look_get_no_session(keyed: Served) -> None:
    wrong = log_in(keyed, "wardrobe_aaaaaaaaaaaa_<script>")
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert "is unknown, expired or revoked" in wrong.text
    text = key(keyed.registry, Scope.INFER, Scope.TUNE)
    keyed.runtime.keys.refresh()
    poor = log_in(keyed, text)
    assert (poor.status_code, "set-cookie" in poor.headers) == (403, False)
    assert "has no scope <code>read</code>" in poor.text


def test_a_revoked_key_is_out_within_a_second_and_so_is_one_whose_group_lost_the_scope(keyed: Served) -> None:
    text = key(keyed.registry, Scope.READ)
    keyed.runtime.keys.refresh()
    log_in(keyed, text)
    assert keyed.client.get("/console").status_code == 200
    KeyStore(keyed.registry.root).revoke(text)
    wait_until(lambda: keyed.client.get("/console").status_code == 303, "the session is over", seconds=3)
    assert keyed.client.get("/console/live", headers={"hx-request": "true"}).status_code == 401


def test_a_role_is_what_key_and_group_grant_now(keyed: Served) -> None:
    groups = GroupStore(keyed.registry.root)
    groups.create(Group("legal"), who="tester")
    _, text = KeyStore(keyed.registry.root).create([Scope.ADMIN], who="tester", group="legal")
    keyed.runtime.keys.refresh()
    log_in(keyed, text)
    page = keyed.client.get("/console").text
    assert "looks only" not in page
    for scopes, status, said in (
        (frozenset({Scope.READ}), 200, "looks only"),
        (frozenset({Scope.INFER}), 403, "has no scope <code>read</code>"),
    ):
        groups.change("legal", partial(_granted, scopes), who="tester")
        keyed.runtime.keys.refresh()
        answer = keyed.client.get("/console")
        assert (answer.status_code, said in answer.text) == (status, True)


def _granted(scopes: frozenset[Scope], group: Group) -> Group:
    return replace(group, scopes=scopes)


def test_a_change_needs_the_sessions_own_token_and_no_foreign_page(keyed: Served) -> None:
    text = key(keyed.registry, Scope.ADMIN)
    keyed.runtime.keys.refresh()
    log_in(keyed, text)
    other = token(keyed.client.get("/console").text)
    log_in(keyed, text)
    mine = token(keyed.client.get("/console").text)
    for sent in ({}, {"change": ""}, {"change": other}, {"change": mine[:-1]}, {"change": "é"}):
        refused = keyed.client.post("/console/logout", data=sent)
        assert (refused.status_code, "is not one of this session" in refused.text) == (403, True)
    for origin in ("https://evil.example", "null"):
        headers = {"origin": origin}
        assert keyed.client.post("/console/logout", data={"change": mine}, headers=headers).status_code == 403
        assert keyed.client.post("/console/login", data={"key": text}, headers=headers).status_code == 403
    assert keyed.client.get("/console").status_code == 200
    headers = {"origin": keyed.server.url}
    assert keyed.client.post("/console/logout", data={"change": mine}, headers=headers).status_code == 303


def test_a_logout_ends_the_session_for_a_copied_cookie_too(keyed: Served) -> None:
    text = key(keyed.registry, Scope.READ)
    keyed.runtime.keys.refresh()
    log_in(keyed, text)
    copied = dict(keyed.client.cookies)
    keyed.client.post("/console/logout", data={"change": token(keyed.client.get("/console").text)})
    assert keyed.client.get("/console").status_code == 303
    with httpx.Client(base_url=keyed.server.url, cookies=copied) as thief:
        assert thief.get("/console").status_code == 303


def test_a_session_outlives_a_restart_of_the_server(registry: Registry, tmp_path: Path) -> None:
    text = key(registry, Scope.READ)
    with serve(registry, tmp_path) as first:
        log_in(first, text)
        cookies = dict(first.client.cookies)
        since = first.client.get("/console/pulse").headers["x-wardrobe-since"]
    with (
        serve(registry, tmp_path) as second,
        httpx.Client(base_url=second.server.url, cookies=cookies) as client,
    ):
        beat = client.get("/console/pulse")
        assert beat.status_code == 204
        assert beat.headers["x-wardrobe-since"] != since


def test_the_first_key_ends_what_was_open(served: Served) -> None:
    assert served.client.get("/console").status_code == 200
    key(served.registry, Scope.ADMIN)
    served.runtime.keys.refresh()
    assert served.client.get("/console").status_code == 303


def test_a_cookie_that_is_not_ours_changed_or_old_is_none() -> None:
    clock = Clock(1_000_000.0)
    sessions = BrowserSessions(lambda: b"s" * 32, clock)
    made = sessions.open("abc123")
    assert sessions.read(made.cookie) == made
    who, expires, nonce, mac = made.cookie.split(".")
    for forged in (
        f"anonymous.{expires}.{nonce}.{mac}",
        f"{who}.{int(expires) + 1}.{nonce}.{mac}",
        f"{who}.{expires}.{'0' * 32}.{mac}",
        f"{who}.{expires}.{nonce}.{sessions.token(made)}",
        made.cookie + ".",
        "",
    ):
        assert sessions.read(forged) is None
    assert BrowserSessions(lambda: b"t" * 32, clock).read(made.cookie) is None
    assert not sessions.brings(sessions.open("abc123"), sessions.token(made))
    clock.now += LIFETIME_SECONDS
    assert sessions.read(made.cookie) is None


def test_the_files_are_small_vendored_as_they_are_and_kept_by_browsers(served: Served) -> None:
    folder = Path(files.__file__).with_name("assets")
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.min.*")}
    assert found == files.VENDORED
    assert sum(len(one.body) for one in files.assets().values()) <= files.MAX_BYTES
    page = served.client.get("/console").text
    named = re.findall(r'"(/console/assets/[^"]+)"', page)
    assert len(named) == 4
    for address in named:
        answer = served.client.get(address)
        assert "immutable" in answer.headers["cache-control"]
        tag = {"if-none-match": answer.headers["etag"]}
        assert served.client.get(address, headers=tag).status_code == 304
        assert served.client.get(address.partition("?")[0]).headers["cache-control"] == "no-cache"
    assert served.client.get("/console/assets/README.md").status_code == 404


def test_a_page_has_no_inline_script_and_names_no_other_site(served: Served) -> None:
    for path in ("/console", "/console/none"):
        page = served.client.get(path).text
        assert re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|javascript:", page) is None
        assert set(re.findall(r'(?:src|href|action)="(?!/console|#|data:)([^"]+)"', page)) == set()


def test_an_unknown_page_and_method_are_told_as_pages(served: Served) -> None:
    missing = served.client.get("/console/none")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "is no page of the console" in missing.text
    assert served.client.post("/console/live", data={}).status_code == 405
    assert served.client.put("/console").status_code == 405
    large = served.client.post("/console/logout", content=b"x=" + b"1" * 2_000_000)
    assert large.status_code == 413
    many = served.client.post("/console/logout", data={f"f{n}": "1" for n in range(200)})
    assert (many.status_code, "has more than 100 fields" in many.text) == (400, True)
