"""Debian's chromium, driven by playwright: what a page asks for, what its policy refuses, what axe finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).parents[1] / "serve/axe/axe.min.js"
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Watched:
    """One page that is looked at: `requests` are addresses, `complaints` what the browser's console said."""

    page: Page
    context: BrowserContext
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def note(self, kind: str, text: str) -> None:
        """Take note of a line of the browser's console; what it merely recommends is no complaint."""
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression comes to; the page's own policy forbids playwright's way."""
        session = self.context.new_cdp_session(self.page)
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = session.send("Runtime.evaluate", asked)
        session.detach()
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def faults(self) -> list[str]:
        """Return what axe calls serious or critical."""
        self.evaluate(AXE.read_text() + ";0")
        found = self.evaluate("axe.run().then(found => found.violations)")
        return [
            f"{one['id']}: {[node['html'] for node in one['nodes']]}"
            for one in found
            if one["impact"] in {"serious", "critical"}
        ]

    def spill(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        width: int = self.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return width


@contextmanager
def browser() -> Iterator[Browser]:
    """Start chromium."""
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield found
        finally:
            found.close()


def opened(found: Browser, width: int, scheme: Literal["light", "dark"], **more: Any) -> Watched:
    """Return an empty page, `width` pixels wide, of a reader in Berlin."""
    size: Any = {"width": width, "height": 900}
    context = found.new_context(
        viewport=size, color_scheme=scheme, locale="en-US", timezone_id="Europe/Berlin", **more
    )
    watched = Watched(context.new_page(), context)
    watched.page.on("request", lambda one: watched.requests.append(one.url))
    watched.page.on("console", lambda one: watched.note(one.type, one.text))
    watched.page.on("pageerror", lambda one: watched.complaints.append(str(one)))
    return watched
