"""The console in a real browser: every page at both widths and schemes, by keyboard, with the server away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.names import STABLE
from registry.store import Registry
from tests.fakes.browser import CHROMIUM, browser, opened
from tests.fakes.served import Served, publish, serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (.ci/run does)"),
]
PAGES = (
    "/console",
    "/console/adapters",
    "/console/adapters/support",
    "/console/adapters/support/2",
    "/console/adapters/support/do/promote?version=2",
    "/console/adapters/support/do/delete?version=2",
    "/console/audit",
    "/console/keys",
    "/console/none",
)
SETTINGS: tuple[tuple[int, Literal["light", "dark"]], ...] = ((1280, "light"), (1280, "dark"), (390, "dark"))


@pytest.fixture
def token(registry: Registry, tmp_path: Path) -> str:
    """A key that may act, on a root with things to see."""
    publish(registry, tmp_path, "support", 2)
    publish(registry, tmp_path, "bare", 3, no_stable=True)
    registry.set_alias("support", "night", 2, who="tester")
    registry.attest("support", 2, "lineage", {"data": "rows.jsonl"}, who="tester")
    return KeyStore(registry.root).create([Scope.ADMIN], who="tester")[1]


@pytest.fixture
def server(registry: Registry, tmp_path: Path, token: str) -> Iterator[Served]:
    with serve(registry, tmp_path) as served:
        for adapter in ("support", "support@2"):
            served.client.post(
                "/v1/chat/completions",
                json={"model": adapter, "messages": [{"role": "user", "content": "Hi"}], "stream": True},
                headers={"authorization": f"Bearer {token}"},
            )
        served.settled()
        served.runtime.traffic.sample(served.runtime.metrics.series())
        yield served


def test_every_page_is_right_in_a_browser(server: Served, token: str) -> None:
    url = server.server.url
    with browser() as chromium:
        for width, scheme in SETTINGS:
            one = opened(chromium, width, scheme)
            one.page.goto(f"{url}/")
            assert one.page.url == f"{url}/console/login"
            assert one.faults() == []
            one.page.keyboard.type(token)  # the field has the focus
            one.page.keyboard.press("Enter")
            one.page.wait_for_url(f"{url}/console")
            for path in PAGES:
                before = len(one.requests)
                one.page.goto(url + path)
                one.page.wait_for_load_state("load")
                asked = [address for address in one.requests[before:] if not address.startswith("data:")]
                assert len(asked) <= 5, asked
                assert one.faults() == [], (path, width, scheme)
                assert one.spill() <= 0, (path, width, scheme)
            assert all(address.startswith((url, "data:")) for address in one.requests)
            assert [text for text in one.complaints if "404 (Not Found)" not in text] == []
            one.context.close()


def test_an_act_by_keyboard_alone_with_the_command_that_follows_what_is_written(
    server: Served, token: str
) -> None:
    url = server.server.url
    with browser() as chromium:
        one = opened(chromium, 1280, "light")
        page = one.page
        page.goto(f"{url}/console/login?next=/console/adapters/support/do/promote")
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        page.get_by_label("Version", exact=True).focus()
        page.keyboard.type("2")
        page.get_by_text("wardrobe promote support@2").wait_for()
        (asked,) = [address for address in one.requests if "version=2" in address]
        assert "change=" not in asked
        page.keyboard.press("Enter")
        page.get_by_text("Promoted. Each server follows").wait_for()
        assert server.registry.aliases("support")[STABLE] == 2
        page.goto(f"{url}/console/adapters")
        page.get_by_label("Part of the name").fill("bar")
        page.get_by_text("1 of 2 adapters").wait_for()
        page.goto(f"{url}/console")
        assert "GMT" not in page.locator("td time").first.inner_text()
        assert "UTC" not in page.locator("td time").first.inner_text()
        assert page.locator(".plot canvas").count() == 1
        assert one.complaints == []


def test_a_page_says_that_the_server_is_away_and_comes_back_by_itself(server: Served, token: str) -> None:
    url = server.server.url
    beat = "document.getElementById('pulse').dispatchEvent(new CustomEvent('every'))"
    with browser() as chromium:
        one = opened(chromium, 390, "light")
        page = one.page
        page.goto(f"{url}/console/login")
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{url}/console")
        with page.expect_response("**/pulse"):
            one.evaluate(beat)
        away = page.get_by_text("The server does not answer.")
        assert away.is_hidden()
        page.route("**/pulse", lambda route: route.fulfill(status=503, body='{"error": {}}'))
        one.evaluate(beat)
        away.wait_for(state="visible")
        assert page.get_by_role("heading", name="Overview").is_visible()
        page.unroute("**/pulse")
        other = {"x-wardrobe-since": "another server process"}
        page.route("**/pulse", lambda route: route.fulfill(status=204, headers=other))
        with page.expect_navigation():
            one.evaluate(beat)
        page.unroute("**/pulse")
        KeyStore(server.registry.root).revoke(token)
        server.runtime.keys.refresh()
        page.wait_for_load_state("load")
        with page.expect_navigation(url="**/console/login"):
            one.evaluate(beat)
