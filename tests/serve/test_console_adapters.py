"""The pages of adapters: cut on the server, acts by their forms, refusals in the registry's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.names import STABLE
from registry.store import Registry
from registry.views.view import AdapterView, View
from serve.console.acts import ACTS
from tests.fakes.served import Served, publish, serve

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def registry(registry: Registry, tmp_path: Path) -> Registry:
    """`support` with two versions and the alias `night` -> 2."""
    publish(registry, tmp_path, "support", 2)
    registry.set_alias("support", "night", 2, who="tester")
    return registry


@pytest.fixture
def looking(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """A server whose client has a session that only looks."""
    text = KeyStore(registry.root).create([Scope.READ], who="tester")[1]
    with serve(registry, tmp_path) as server:
        assert server.client.post("/console/login", data={"key": text}).status_code == 303
        yield server


def act(served: Served, word: str, **fields: str) -> httpx.Response:
    """Open an act's form and send it, filled in."""
    path = f"/console/adapters/support/do/{word}"
    found = re.search(r'name="change" value="([0-9a-f]{64})"', served.client.get(path).text)
    assert found is not None
    return served.client.post(path, data={"change": found[1], **fields})


def rows(page: str) -> list[str]:
    return re.findall(r'<tr><td><a href="/console/adapters/([^"/]+)"', page)


def test_ten_thousand_adapters_are_searched_and_cut_without_a_look_at_the_disk(served: Served) -> None:
    names = [f"a{n:05}" for n in range(10_000)]
    made = {one: AdapterView(one, {}, {STABLE: 1}, {1: "gone"}, frozenset()) for one in names}
    served.runtime.watcher.stop()
    served.runtime.watcher.view = View(99, MappingProxyType(made))  # not one of them lies in the root
    first = served.client.get("/console/adapters").text
    assert rows(first) == names[:50]
    assert "10000 of 10000 adapters" in first
    assert rows(served.client.get("/console/adapters?page=200").text) == names[-50:]
    assert rows(served.client.get("/console/adapters?page=201").text) == []
    for wrong in ("0", "-1", "x", "9" * 50):
        assert rows(served.client.get(f"/console/adapters?page={wrong}").text) == names[:50]
    found = served.client.get("/console/adapters?q=A0012&page=1").text
    assert rows(found) == [f"a0012{n}" for n in range(10)]
    assert rows(served.client.get("/console/adapters", params={"q": HOSTILE}).text) == []
    many = MappingProxyType(dict.fromkeys(range(1, 2001), "gone"))
    one = AdapterView("deep", {}, {}, many, frozenset())
    served.runtime.watcher.view = View(100, MappingProxyType({"deep": one}))
    page = served.client.get("/console/adapters/deep?page=2").text
    assert re.findall(r'deep/(\d+)">@', page) == [str(n) for n in range(1950, 1900, -1)]


def test_every_act_does_what_its_command_does(served: Served) -> None:
    done = act(served, "promote", version="2")
    assert (done.status_code, done.headers["location"]) == (303, "/console/adapters/support?done=promote")
    assert served.registry.aliases("support")[STABLE] == 2
    assert "Promoted." in served.client.get(done.headers["location"]).text
    assert served.runtime.watcher.view.adapters["support"].aliases[STABLE] == 2
    assert act(served, "rollback").status_code == 303
    assert served.registry.aliases("support")[STABLE] == 1
    assert act(served, "alias", alias="day", version="1").status_code == 303
    assert served.registry.aliases("support")["day"] == 1
    assert act(served, "unalias", alias="night").status_code == 303
    assert act(served, "delete", version="2").status_code == 303
    assert [one.number for one in served.registry.versions("support")] == [1]
    words = {one.who for one in served.registry.history("support")[2:]}
    assert words == {"anonymous"}
    assert len(ACTS) == 5


@pytest.mark.parametrize(
    ("word", "fields", "status", "said"),
    [
        ("promote", {"version": "9"}, 404, "there is no support@9"),
        ("promote", {"version": "one"}, 400, "is no number of a version"),
        ("promote", {}, 400, "is no number of a version"),
        ("promote", {"version": "2", "force": "x" * 1_001}, 400, "force"),
        ("alias", {"alias": "canary", "version": "2"}, 400, "canary"),
        ("alias", {"alias": HOSTILE, "version": "2"}, 400, "&lt;script&gt;"),
        ("unalias", {"alias": "none"}, 404, "none"),
        ("rollback", {}, 409, "support"),
        ("delete", {"version": "1"}, 409, "stable"),
    ],
)
def test_a_refusal_is_the_registrys_own_and_the_form_keeps_what_was_written(
    served: Served, word: str, fields: dict[str, str], status: int, said: str
) -> None:
    answer = act(served, word, **fields)
    assert answer.status_code == status
    banner = re.search(r'role="alert" id="why">(.*?)</p>', answer.text, re.DOTALL)
    assert banner is not None
    assert said in banner[1]
    assert "<script>alert" not in answer.text
    if "version" in fields:
        assert f'value="{fields["version"]}"' in answer.text
    assert served.registry.aliases("support") == {STABLE: 1, "night": 2}


def test_who_only_looks_sees_no_button_and_is_refused_all_of_them(looking: Served) -> None:
    for path in ("/console/adapters/support", "/console/adapters/support/2"):
        page = looking.client.get(path)
        assert page.status_code == 200
        assert "/do/" not in page.text
    found = re.search(r'name="change" value="([0-9a-f]{64})"', looking.client.get("/console").text)
    assert found is not None
    for one in ACTS:
        path = f"/console/adapters/support/do/{one.word}"
        sent = {"change": found[1], "version": "2", "alias": "night"}
        for refused in (looking.client.get(path), looking.client.post(path, data=sent)):
            assert refused.status_code == 403
            assert "has no scope <code>admin</code>" in refused.text
    assert looking.registry.aliases("support") == {STABLE: 1, "night": 2}


def test_an_act_without_the_sessions_token_is_refused(served: Served) -> None:
    for one in ACTS:
        path = f"/console/adapters/support/do/{one.word}"
        assert served.client.post(path, data={"version": "2", "alias": "night"}).status_code == 403
    assert served.registry.aliases("support") == {STABLE: 1, "night": 2}


def test_a_form_shows_the_command_that_does_the_same(served: Served) -> None:
    for word, query, command in (
        ("promote", "version=2", "wardrobe promote support@2"),
        (
            "promote",
            "version=2&force=it%27s",
            "wardrobe promote support@2 --force --why &#39;it&#39;&#34;&#39;&#34;&#39;s&#39;",
        ),
        ("alias", "alias=day&version=1", "wardrobe alias set support day 1"),
        ("unalias", "alias=night", "wardrobe alias remove support night"),
        ("rollback", "", "wardrobe rollback support"),
        ("delete", "version=2", "wardrobe delete support@2"),
    ):
        page = served.client.get(f"/console/adapters/support/do/{word}?{query}").text
        assert f'<code tabindex="0">{command}</code>' in page


def test_a_version_tells_what_was_found_out_about_it(served: Served) -> None:
    digest = served.registry.version("support", 2).digest
    body = {"format": "wardrobe.gate/1", "goal_sha256": "a" * 64, "digest": digest}
    attest = served.registry.attest
    attest("support", 2, "gate", {**body, "verdict": "fail", "sentence": "0.71 is below 0.80"}, who="anna")
    attest("support", 2, "proof", {"passed": True}, who="replica r1")
    attest(
        "support", 2, "parity", {"format": "wardrobe.parity/1", "passed": True, "digest": "other"}, who="x"
    )
    page = re.sub(r"\s+", " ", served.client.get("/console/adapters/support/2").text)
    assert "gate: no</span> 0.71 is below 0.80." in page
    assert "proof: passed</span> A server found" in page
    assert "parity: not known</span>" in page
    assert digest in page


def test_what_somebody_wrote_stays_text(served: Served, tmp_path: Path) -> None:
    version = served.publish("support", 7)
    served.registry.attest("support", version.number, "force", {"why": HOSTILE}, who=HOSTILE)
    served.registry.attest("support", version.number, "lineage", {"data": HOSTILE}, who="x")
    served.registry.quarantine("support", version.number, HOSTILE, who=HOSTILE)
    served.runtime.watcher.refresh()
    number = version.number
    for path in ("", "/support", f"/support/{number}", "/support?done=<b>", "?q=<script>alert(1)"):
        page = served.client.get(f"/console/adapters{path}").text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "<b>" not in page.replace("<b>night</b>", "").replace("<b>stable</b>", "")
    assert "&lt;img src=x" in served.client.get(f"/console/adapters/support/{number}").text


def test_what_does_not_exist_says_what_does(served: Served) -> None:
    missing = served.client.get("/console/adapters/suport")
    assert (missing.status_code, "adapters: support" in missing.text) == (404, True)
    assert served.client.get("/console/adapters/support/9").status_code == 404
    assert served.client.get("/console/adapters/support/do/dance").status_code == 404
